"""A driver domain makes a backend for each device that it finds, up to a bound, and unmakes those that are gone."""

import os
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from hvd.domains import driver_domain
from hvd.domains.driver_domain import DEVICES_MAX, DriverDomain
from hvd.domains.media import Media
from hvd.domains.store import Followed
from hvd.transport.errors import LocalError
from hvd.transport.hypercalls import HypercallError
from hvd.transport.ids import DomId
from hvd.transport.messages import PhysdevOpenMedium
from hvd.transport.multicall import Answered
from hvd.transport.xenbus_state import XenbusState

OFFERED = {"hvd-incarnation": "1", "rate": "1"}


class Directory:
    """The store as a driver domain sees it: a set of devices below `backend`."""

    def __init__(self):
        self.devices = set()
        self.leftovers = set()
        """Directories below `backend` that only we have written in."""
        self.replaced = set()
        """Devices in whose new directories nothing was offered yet."""
        self.closed = set()
        """Devices that their driver domain has closed before it ever offered them."""
        self.watched = []
        self.heard = {}
        self.room = 10_000
        self.fronts = {}
        self.backs = {}
        """Directories of backends that hold anything else by the time that they are watched."""
        """What frontends have written, by directory."""
        self.hypercalls = []
        self.full = set()
        """Directories in which nothing can be written any more."""
        self.opened = []
        """Media, asked for together with a look at the devices."""
        self.watches = False
        self.now_s = 1000.0
        self.given_back = []
        """When what was asked ahead was given back."""
        self.brings = False
        """Whether events say what has changed."""
        self._afterwards = []

    def watch(self, path, handler):
        self.watches = True
        self._told = handler

    def tell(self, path="backend"):
        self._told(path)
        self._run_afterwards()

    def transaction(self, body):
        body(7)

    def read(self, path, tx=0):
        device, _, name = path.removeprefix("backend/").rpartition("/")
        return b"" if device in self.devices and name == "frontend" else None

    def read_all(self, path):
        device = path.removeprefix("backend/")
        if device not in self.devices:
            return {}
        if device in self.closed:
            return {"hvd-closed-for": "", "error": "no", "state": "6"}
        return {} if device in self.replaced else OFFERED

    def read_text(self, path):
        return ""

    def remove(self, path, tx):
        self.leftovers.discard(path.removeprefix("backend/"))

    def directory(self, path):
        names = path.split("/")[1:]
        found = [str(device).split("/") for device in self.devices | self.leftovers]
        return sorted({parts[len(names)] for parts in found if parts[: len(names)] == names})

    def read_directories(self, paths):
        return [self.directory(path) for path in paths]

    def follow(self, watched, read, others):
        self.opened += others
        there = {f"backend/{device}" for device in self.devices}
        taken = [path if self.room > 0 else HypercallError(7, "too many", "StoreWatch") for path, _ in watched]
        self.room -= len(watched)
        self.watched += [token for token in taken if isinstance(token, str)]
        self.heard |= dict(watched)
        keys = [self.fronts.get(path, {"frontend": ""} if path in there else {}) for path in read]
        return Followed(taken, keys, [Answered(0, None, [os.open(os.devnull, os.O_RDONLY)]) for _ in others])

    def read_all_of(self, paths):
        self.hypercalls.append(paths)
        return [self._front(path) if path.startswith("/local") else self.backs.get(path, OFFERED) for path in paths]

    def _front(self, path):
        return self.fronts.get(path, {})

    def write(self, path, value):
        self.hypercalls.append((path, value))

    def write_several(self, entries):
        self.hypercalls.append(entries)
        return [HypercallError(28, "full", "StoreWrite") if path in self.full else None for path, _ in entries]

    def afterwards(self, handler):
        self._afterwards = [handler]

    def publish(self, *devices):
        """Their frontends have: the events come one after the other, with nothing between them."""
        for device in devices:
            kind, domid, devid = device.split("/")
            front = f"/local/domain/{domid}/device/{kind}/{devid}"
            self.fronts[front] = {"state": "3"}
            self.heard[f"{front}/state"](self.fronts[front] if self.brings else None)
        self._run_afterwards()

    def _run_afterwards(self):
        for handler in self._afterwards:
            handler()

    def unwatch(self, token):
        self.watched.remove(token)


class Backend:
    """A backend that knows when it was unmade."""

    made: ClassVar[list[Any]] = []

    def __init__(self, runtime, kind, domid, found, *, say, log):
        self.name, self.closed = f"{kind}/{domid}/{found.devid}", False
        self.path, self.state = f"backend/{self.name}", XenbusState.INIT_WAIT
        self.frontend_path = found.frontend_path
        self._unwatch = partial(runtime.store.unwatch, found.token)
        self._say = say
        self.told: list[Any] = []
        changed = lambda *told: self.told.append(told)  # noqa: E731
        self.device = SimpleNamespace(CHANGING={"rate"}, keys={"rate": "1"}, changed=changed)
        self.made.append(self)
        say(self.path, {"state": "2"})

    def written(self):
        """Nothing of a breach is to be cleared away."""

    def follow(self, keys):
        if keys.get("state") == "3":
            self.state = XenbusState.CONNECTED
            self._say(self.path, {"state": "4"})

    def close(self):
        self.closed = True
        self._unwatch()


class Timer:
    """One that is due when the test says so."""

    def __init__(self, runtime):
        self._later = runtime.later

    def after(self, nanoseconds, act):
        self._later.append((nanoseconds, act))


@pytest.fixture
def store(monkeypatch):
    monkeypatch.setattr(driver_domain, "XenbusBackend", Backend)
    monkeypatch.setattr(driver_domain, "Timer", Timer)
    monkeypatch.setattr(Backend, "made", [])
    made = Directory()
    monkeypatch.setattr(driver_domain, "time", SimpleNamespace(monotonic=lambda: made.now_s))
    return made


def serve(store, served=()):
    """Have a driver domain find what is there; what it says."""
    said: list[str] = []
    runtime: Any = make_runtime(store, served)
    DriverDomain(runtime, said.append)
    let_time_pass(store, runtime)
    store.tell()
    return said


def let_time_pass(store, runtime):
    """Until nobody is waited for any longer."""
    for nanoseconds, act in runtime.later:
        store.now_s += nanoseconds / 1e9
        act()


def make_runtime(store, served=()):
    """What is to be done soon is done at once; what is to be done later, when `later` is called."""
    hypercalls = SimpleNamespace(linger=lambda: None, rest=lambda: None)
    return SimpleNamespace(
        store=store, served=list(served), hypercalls=hypercalls, soon=lambda act: act(), media=Media(print), later=[],
        take_ahead=lambda: None, give_back_ahead=lambda: store.given_back.append(store.now_s),
    )


def test_devices_that_come_and_go_have_a_backend_while_they_are_there(store):
    store.devices = {"vbd/1/768", "vbd/2/768"}
    serve(store)
    assert {backend.name for backend in Backend.made} == store.devices
    store.devices = {"vbd/2/768"}
    store.tell()
    assert {backend.name: backend.closed for backend in Backend.made} == {"vbd/1/768": True, "vbd/2/768": False}


def test_what_it_wrote_in_the_moment_in_which_its_device_was_removed_is_cleared_away(store):
    store.devices = {"vbd/1/768", "vbd/2/768"}
    serve(store)
    store.devices, store.leftovers = {"vbd/2/768"}, {"vbd/1/768"}
    store.tell("backend/vbd/1/768")
    assert store.leftovers == set()
    assert {backend.name: backend.closed for backend in Backend.made} == {"vbd/1/768": True, "vbd/2/768": False}


def test_one_that_was_replaced_before_it_looked_is_another_one_whatever_its_old_end_wrote_there(store):
    store.devices = {"vbd/1/768", "vbd/2/768"}
    serve(store)
    store.replaced = {"vbd/1/768"}
    store.tell("backend/vbd/1/768")
    store.tell("backend/vbd/2/768/frontend")
    made = [(backend.name, backend.closed) for backend in Backend.made]
    assert sorted(made) == [("vbd/1/768", False), ("vbd/1/768", True), ("vbd/2/768", False)]


def test_one_that_it_has_closed_is_not_made_again_while_it_is_there(store):
    store.devices, store.closed = {"vif/1/0"}, {"vif/1/0"}
    serve(store)
    Backend.made[0].state = XenbusState.CLOSED
    store.tell("backend/vif/1/0/frontend")
    store.tell("backend/vif/1/0")
    assert [(backend.name, backend.closed) for backend in Backend.made] == [("vif/1/0", False)]


def test_one_that_it_has_given_up_is_looked_at_again_when_another_is_plugged_in_there(store):
    store.devices |= {"vif/2/0"}
    store.full.add("backend/vif/2/0")
    serve(store)
    store.full.clear()
    store.tell("backend/vif/2/0/frontend")
    assert [(backend.name, backend.closed) for backend in Backend.made] == [("vif/2/0", True), ("vif/2/0", False)]


def test_what_it_was_told_of_when_it_was_let_run_is_served_unless_it_has_gone_meanwhile(store):
    store.devices = {"vbd/1/768"}
    serve(store, [("vbd", "1", "768"), ("vbd", "3", "768")])
    assert [backend.name for backend in Backend.made] == ["vbd/1/768"]
    assert store.watched == ["/local/domain/1/device/vbd/768/state"]


def test_a_device_that_cannot_be_watched_is_named_and_the_others_are_served(store):
    store.devices, store.room = {f"vbd/1/{n}" for n in range(20)}, 16
    said = serve(store)
    assert len(Backend.made) == 16
    assert len(said) == 4
    assert all(line.endswith("StoreWatch: too many (E2BIG)") for line in said)


def test_a_device_without_a_driver_is_named_and_watched_no_more(store, monkeypatch):
    def refuse(*given, **named):
        raise LocalError("no driver")

    monkeypatch.setattr(driver_domain, "XenbusBackend", refuse)
    store.devices = {"vbd/1/768"}
    assert (serve(store), store.watched) == (["device vbd 768 of domain 1: no driver"], [])


def test_one_device_beyond_devices_max_is_named_and_not_served_until_another_goes(store):
    store.devices = {f"vbd/1/{n}" for n in range(DEVICES_MAX + 1)}
    said = serve(store)
    assert len(Backend.made) == DEVICES_MAX
    (beyond,) = store.devices - {backend.name for backend in Backend.made}
    assert said == [f"device {beyond} is one too many: {DEVICES_MAX} are served at most"]
    store.devices.remove(Backend.made[0].name)
    store.tell()
    assert Backend.made[-1].name == beyond


def test_all_are_offered_in_one_hypercall_and_those_whose_frontends_wait_are_attached_behind_it(store):
    store.devices |= {"vif/2/0", "vif/3/0"}
    serve(store)
    store.publish("vif/3/0")
    offers, attached = (call for call in store.hypercalls if call and isinstance(call[0], tuple))
    assert sorted(offers) == [("backend/vif/2/0", {"state": "2"}), ("backend/vif/3/0", {"state": "2"})]
    assert attached == [("backend/vif/3/0", {"state": "4"})]


def test_frontends_that_publish_at_a_time_are_read_in_one_hypercall_and_answered_in_one(store):
    store.devices |= {"vif/2/0", "vif/3/0", "vif/4/0"}
    serve(store)
    store.hypercalls.clear()
    store.publish("vif/2/0", "vif/4/0", "vif/2/0")
    assert store.hypercalls == [
        ["/local/domain/2/device/vif/0", "/local/domain/4/device/vif/0"],
        [("backend/vif/2/0", {"state": "4"}), ("backend/vif/4/0", {"state": "4"})],
    ]


def test_a_device_whose_directory_takes_nothing_more_is_named_and_the_others_are_served(store):
    store.devices |= {"vif/2/0", "vif/3/0"}
    store.full.add("backend/vif/2/0")
    said = serve(store)
    assert said == ["device vif/2/0: StoreWrite: full (ENOSPC)"]
    assert {made.name: made.closed for made in Backend.made} == {"vif/2/0": True, "vif/3/0": False}
    assert ("backend/vif/2/0/state", 6) in store.hypercalls
    store.hypercalls.clear()
    store.publish("vif/2/0")
    assert store.hypercalls == [[], []]


def test_what_frontends_say_is_not_asked_for_where_it_came_with_the_event(store):
    store.devices |= {"vif/2/0", "vif/3/0"}
    serve(store)
    store.hypercalls.clear()
    store.brings = True
    store.publish("vif/2/0", "vif/3/0")
    assert store.hypercalls == [[], [("backend/vif/2/0", {"state": "4"}), ("backend/vif/3/0", {"state": "4"})]]


@pytest.mark.parametrize(("rate", "told"), [("1", []), ("2", [("rate", "2")])])
def test_a_key_that_has_changed_before_it_is_watched_is_told(store, rate, told):
    store.devices |= {"vif/2/0"}
    store.backs["backend/vif/2/0"] = OFFERED | {"rate": rate}
    serve(store, [("vif", "2", "0")])
    (made,) = Backend.made
    assert made.told == told


def test_a_device_that_was_replaced_before_it_is_watched_is_another_one(store):
    store.devices |= {"vif/2/0"}
    store.backs["backend/vif/2/0"] = {"frontend": ""}
    store.replaced.add("vif/2/0")
    serve(store, [("vif", "2", "0")])
    assert [made.closed for made in Backend.made] == [True, False]


def test_while_a_frontend_may_come_it_asks_nothing_else_and_no_longer_than_it_has_said(store):
    store.devices |= {"vif/2/0"}
    runtime = make_runtime(store, [("vif", "2", "0")])
    DriverDomain(runtime, print)
    assert (store.watches, store.hypercalls) == (False, [[("backend/vif/2/0", {"state": "2"})]])
    let_time_pass(store, runtime)
    assert store.watches


def test_when_its_frontends_are_attached_it_looks_for_what_it_has_missed(store):
    store.devices |= {"vif/2/0"}
    runtime = make_runtime(store, [("vif", "2", "0")])
    DriverDomain(runtime, print)
    store.publish("vif/2/0")
    assert store.watches
    let_time_pass(store, runtime)  # the timer has nothing to do
    assert len(Backend.made) == 1


def test_media_are_opened_with_the_first_look_at_their_devices_and_those_that_nobody_takes_are_closed(store):
    """The backend of this test takes none."""
    store.devices |= {"vbd/2/768", "vif/2/0"}
    before = sorted(Path("/proc/self/fd").iterdir())
    serve(store, [("vbd", "2", "768"), ("vif", "2", "0"), ("vbd", "nobody's", "768"), ("nonsense", "2", "1")])
    assert store.opened == [PhysdevOpenMedium(DomId(2), "vbd", 768)]
    assert sorted(Path("/proc/self/fd").iterdir()) == before
