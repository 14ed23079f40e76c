"""A driver domain makes a backend for each device that it finds, up to a bound, and unmakes those that are gone."""

from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from hvd.domains import driver_domain
from hvd.domains.driver_domain import DEVICES_MAX, DriverDomain


class Directory:
    """The store as a driver domain sees it: a set of devices below `backend`."""

    def __init__(self):
        self.devices = set()

    def watch(self, path, handler):
        self.tell = lambda: handler("backend")

    def wait_until(self, condition, what, timeout_s):
        """As a domain waits: the watch fires."""
        self.tell()
        assert condition()

    def directories(self, paths):
        return [self._directory(path) for path in paths]

    def _directory(self, path):
        names = path.split("/")[1:]
        found = [str(device).split("/") for device in self.devices]
        return sorted({parts[len(names)] for parts in found if parts[: len(names)] == names})

    def read_all_each(self, paths):
        return [{"frontend": "/local/domain/1/device"} for _ in paths]


class Backend:
    """A backend that knows when it was unmade."""

    made: ClassVar[list[Any]] = []

    def __init__(self, runtime, kind, domid, devid, *, keys, log):
        self.name, self.closed = f"{kind}/{domid}/{devid}", False
        self.made.append(self)

    def close(self):
        self.closed = True


@pytest.fixture
def store(monkeypatch):
    monkeypatch.setattr(driver_domain, "XenbusBackend", Backend)
    monkeypatch.setattr(Backend, "made", [])
    return Directory()


def serve(store):
    """Have a driver domain find what is there; what it says."""
    said: list[str] = []
    runtime: Any = SimpleNamespace(store=store, wait_until=store.wait_until)
    DriverDomain(runtime, said.append)
    return said


def test_devices_that_come_and_go_have_a_backend_while_they_are_there(store):
    store.devices = {"vbd/1/768", "vbd/2/768"}
    serve(store)
    assert {backend.name for backend in Backend.made} == store.devices
    store.devices = {"vbd/2/768"}
    store.tell()
    assert {backend.name: backend.closed for backend in Backend.made} == {"vbd/1/768": True, "vbd/2/768": False}


def test_one_device_beyond_devices_max_is_named_and_not_served_until_another_goes(store):
    store.devices = {f"vbd/1/{n}" for n in range(DEVICES_MAX + 1)}
    said = serve(store)
    assert len(Backend.made) == DEVICES_MAX
    (beyond,) = store.devices - {backend.name for backend in Backend.made}
    assert said == [f"device {beyond} is one too many: {DEVICES_MAX} are served at most"]
    store.devices.remove(Backend.made[0].name)
    store.tell()
    assert Backend.made[-1].name == beyond
