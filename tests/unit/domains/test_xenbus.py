"""The device handshake when a spare takes over: whose offer stands, and what is published for which."""

from types import SimpleNamespace
from typing import Any

import pytest

from hvd.domains import xenbus
from hvd.domains.xenbus import Found, XenbusBackend, XenbusFrontend
from hvd.transport.xenbus_state import XenbusState

BACK, FRONT = "backend/vbd/7/768", "/local/domain/7/device/vbd/768"
OFFERED = {"hvd-incarnation": "5", "state": "2", "sectors": "8"}


class Store:
    """Directories of keys, and what was written in them, in order."""

    def __init__(self, directories):
        self.directories = directories
        self.written = []

    def read_all(self, path):
        return dict(self.directories.get(path, {}))

    def write_all(self, path, keys):
        self.written.append((path, keys))
        self.directories.setdefault(path, {}).update(keys)

    def write(self, path, value):
        directory, _, name = path.rpartition("/")
        self.write_all(directory, {name: str(value)})

    def read(self, path, tx=0):
        directory, _, name = path.rpartition("/")
        return self.directories.get(directory, {}).get(name)

    def remove(self, path, tx=0):
        directory, _, name = path.rpartition("/")
        self.directories.get(directory, {}).pop(name, None)
        self.directories.pop(path, None)

    def transaction(self, body):
        body(1)

    def unwatch(self, token):
        self.tell = lambda keys=None: None

    def watch_keys(self, path, handler):
        """Its events bring nothing, or what they are given."""
        self.tell = handler
        return "1"


class Device:
    """Either end of a device: what it was asked to do."""

    def __init__(self, features=None):
        self.offers = features
        self.calls = []

    def features(self):
        return self.offers

    def publish(self, keys):
        return {"ring-ref": "9"}

    def __getattr__(self, name):
        return lambda *given: self.calls.append(name)


def runtime(store):
    made: Any = SimpleNamespace(store=store, incarnation=5)
    return made


@pytest.fixture
def driven(monkeypatch):
    """The device that the next end drives."""

    def by(device):
        driver = SimpleNamespace(backend=lambda *given: device, frontend=lambda *given: device)
        monkeypatch.setattr(xenbus, "find_driver", lambda kind: driver)
        return device

    return by


def backend(store):
    found = Found("768", store.read_all(BACK), FRONT, "1")
    guest: Any = 7
    made = XenbusBackend(runtime(store), "vbd", guest, found, say=store.write_all, log=lambda text: None)
    made.follow(store.read_all(FRONT))
    return made


def test_an_offer_that_was_renewed_for_a_spare_and_is_its_own_is_not_written_again(driven):
    driven(Device({"sectors": "8"}))
    store = Store({BACK: dict(OFFERED)})
    backend(store)
    assert store.written == []


def test_a_ring_that_was_published_meanwhile_is_attached_at_once(driven):
    device = driven(Device({"sectors": "8"}))
    device.attach = lambda keys: {}
    store = Store({BACK: dict(OFFERED), FRONT: {"state": "3", "hvd-backend-incarnation": "5", "hvd-session": "1.2"}})
    assert backend(store).state is XenbusState.CONNECTED


def test_an_offer_that_differs_is_made_anew_and_nothing_published_for_the_other_is_attached(driven):
    device = driven(Device({"sectors": "16"}))
    attached: list[str] = []

    def attach(keys):
        attached.append(keys["hvd-session"])
        return {}

    device.attach = attach
    store = Store({BACK: dict(OFFERED), FRONT: {"state": "3", "hvd-backend-incarnation": "5", "hvd-session": "1.2"}})
    end = backend(store)
    assert store.written == [(BACK, {"sectors": "16", "hvd-incarnation": "5.1", "state": "2"})]
    assert attached == []
    store.directories[FRONT] |= {"hvd-backend-incarnation": "5.1", "hvd-session": "1.3"}
    end.follow(store.read_all(FRONT))
    assert attached == ["1.3"]


def test_an_older_incarnations_offer_is_replaced(driven):
    driven(Device({"sectors": "8"}))
    store = Store({BACK: OFFERED | {"hvd-incarnation": "4"}})
    backend(store)
    assert store.written == [(BACK, {"sectors": "8", "hvd-incarnation": "5", "state": "2"})]


def frontend(store, driven, keys=()):
    device = driven(Device())
    device.in_use = lambda: ""
    own = "device/vbd/768"
    store.directories[own] = {"backend": BACK, "backend-id": "1"} | dict(keys)
    end = XenbusFrontend(runtime(store), "vbd", "768")
    end.on_change = lambda changed: None
    return end, device, own


def published_for(store, own):
    return store.directories[own].get("hvd-backend-incarnation")


def test_a_frontend_publishes_for_each_offer_once_and_lets_requests_wait_in_the_ring(driven):
    store = Store({BACK: dict(OFFERED)})
    _, device, own = frontend(store, driven)
    store.tell(None)
    store.tell(None)
    assert (published_for(store, own), device.calls) == ("5", ["published"])
    store.directories[BACK]["hvd-incarnation"] = "5.1"
    store.tell(None)
    assert (published_for(store, own), device.calls) == ("5.1", ["published", "backend_gone", "published"])


@pytest.mark.parametrize("name", ["error", "hvd-incarnation"])
def test_what_a_dead_incarnation_said_of_a_breach_is_removed_when_the_next_is_connected(driven, name):
    store = Store({BACK: dict(OFFERED)})
    own = "device/vbd/768"
    _, device, _ = frontend(store, driven, {name: "of the dead"})
    store.tell(None)
    assert name in store.directories[own]
    store.directories[BACK]["state"] = "4"
    store.tell(None)
    assert name not in store.directories[own]
    assert device.calls == ["published", "connected"]


def test_a_backend_that_dies_while_it_clears_away_a_breach_leaves_the_rest_to_the_next(driven):
    driven(Device({"sectors": "8"})).attach = lambda keys: {}
    store = Store({BACK: OFFERED | {"hvd-closed-for": "1", "error": "x"}, FRONT: {"state": "1"}})
    end = backend(store)
    removed: list[str] = []

    def remove(path, tx=0):
        removed.append(path.rpartition("/")[2])
        raise EOFError("killed")

    store.remove = remove  # type: ignore[method-assign]
    store.directories[FRONT] |= {"state": "3", "hvd-backend-incarnation": "5", "hvd-session": "1.1"}
    end.follow(store.read_all(FRONT))
    assert (store.directories[BACK]["state"], removed) == ("4", [])
    with pytest.raises(EOFError):
        end.written()
    assert removed == ["error"]


def test_a_backend_that_dies_before_it_attached_is_gone_too(driven):
    store = Store({BACK: dict(OFFERED)})
    _, device, _ = frontend(store, driven)
    store.tell(None)
    del store.directories[BACK]["state"]
    store.tell(None)
    assert device.calls == ["published", "backend_gone"]


def test_a_device_that_was_removed_in_the_moment_of_an_answer_is_gone_and_the_answer_too(driven):
    """The toolstack asks whether it may go, and takes it by force: "in use" is written where it was by then."""
    store = Store({BACK: dict(OFFERED)})
    end, device, own = frontend(store, driven)
    store.tell(None)
    del store.directories[BACK]
    store.directories[own] = {"hvd-busy": "it is held"}
    store.tell(None)
    assert (end.gone, own in store.directories) == (True, False)
    assert device.calls == ["published", "close"]


@pytest.mark.parametrize("name", ["", "x", "5.2", "5.1.1", "-5", "٥", "1" * 20])
def test_what_is_no_name_of_an_offer_is_none(driven, name):
    store = Store({BACK: OFFERED | {"hvd-incarnation": name}})
    _, device, own = frontend(store, driven)
    store.tell(None)
    assert (published_for(store, own), device.calls) == (None, [])


def test_what_an_event_brings_is_followed_and_not_read_again(driven):
    store = Store({BACK: dict(OFFERED) | {"hvd-incarnation": "4"}})
    end, _, own = frontend(store, driven)
    store.tell(dict(OFFERED))
    assert published_for(store, own) == "5"
    assert end.state is XenbusState.INITIALISED


def test_a_frontend_whose_answer_came_too_late_publishes_its_ring_anew(driven):
    """The request was taken back before it was read: its event still brings it."""
    store = Store({BACK: dict(OFFERED)})
    end, device, own = frontend(store, driven)
    store.tell(None)
    store.tell(OFFERED | {"state": "4", "online": "1"})
    assert (end.state, end.connected) == (XenbusState.CONNECTED, True)
    store.tell(OFFERED | {"state": "5", "online": "0"})
    assert store.directories[own]["state"] == "5"
    store.tell(OFFERED | {"state": "4", "online": "1"})
    assert not end.connected
    store.tell(OFFERED | {"state": "2", "online": "1"})
    assert (store.directories[own]["state"], store.directories[own]["hvd-session"]) == ("3", "5.2")
    store.tell(OFFERED | {"state": "4", "online": "1"})
    assert (end.connected, end.gone, device.calls[-1]) == (True, False, "connected")


def test_a_frontend_to_which_a_request_was_not_read_before_it_was_taken_back_goes_on(driven):
    store = Store({BACK: dict(OFFERED)})
    end, device, own = frontend(store, driven)
    store.tell(None)
    store.tell(OFFERED | {"state": "4", "online": "1"})
    store.tell(OFFERED | {"state": "4", "online": "1"})
    assert (end.connected, store.directories[own]["hvd-session"]) == (True, "5.1")
    assert device.calls == ["published", "connected"]


PUBLISHED = {"ring-ref": "9", "event-channel": "3", "queue-0/ring-ref": "4", "feature": "1"}


def publication(driven):
    """A frontend that has published for the offer 5.1, having published for the one before; what it has written."""
    store = Store({BACK: dict(OFFERED)})
    end, device, own = frontend(store, driven)
    device.publish = lambda keys: dict(PUBLISHED)
    store.tell(None)
    before = dict(store.directories[own])
    store.directories[BACK]["hvd-incarnation"] = "5.1"
    store.written.clear()
    store.tell(None)
    ((path, keys),) = store.written
    assert path == own
    return end, store, own, before, list(keys.items())


def test_a_backend_that_looks_at_a_publication_which_is_not_all_there_attaches_to_nothing_of_it(driven):
    """Many keys are more than one hypercall carries out, and the state of the one before stands there."""
    _, _, _, before, written = publication(driven)
    assert before["state"] == "3"
    for so_far in range(len(written) + 1):
        device = driven(Device({"sectors": "16"}))
        attached: list[Any] = []

        def attach(keys, attached=attached):
            attached.append(keys)
            return {}

        device.attach = attach
        store = Store({BACK: dict(OFFERED), FRONT: before | dict(written[:so_far])})
        end = backend(store)
        assert len(attached) == (so_far >= len(written) - 1), written[:so_far]
        store.directories[FRONT] |= dict(written)
        end.follow(store.read_all(FRONT))
        assert [(keys["hvd-session"], keys["ring-ref"]) for keys in attached] == [("5.2", "9")]


def test_a_device_that_was_taken_away_and_plugged_in_again_while_keys_were_published_is_another(driven):
    for lost in range(1, len(PUBLISHED) + 3):
        end, store, own, _, written = publication(driven)
        store.directories[own] = {"backend": BACK, "backend-id": "1"} | dict(written[lost:])
        end.drop_replaced()
        assert end.gone, written[lost:]


def test_whoever_closes_a_device_says_for_whom_before_he_says_why(driven):
    """A successor knows by the first that there is the second to take away."""
    device = driven(Device({"sectors": "8"}))

    def attach(keys):
        raise ValueError("no")

    device.attach = attach
    store = Store({BACK: dict(OFFERED), FRONT: {"state": "3", "hvd-backend-incarnation": "5", "hvd-session": "7.1"}})
    backend(store)
    assert list(store.written[-1][1]) == ["hvd-closed-for", "error", "state"]
