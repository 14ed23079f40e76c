"""A small cluster in which a device is tried: its backend in a driver domain of its own, a subject, and a neighbour.

Subject and neighbour have a device of the same kind and options; they are never made to use it at the same time.
"""

from __future__ import annotations

import os
import re
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from hvd.toolstack.cluster import Cluster
from hvd.transport import messages as m
from hvd.transport.hypercalls import HypercallError
from hvd.transport.xenbus_state import XenbusState, parse_state

DEADLINE_S = 60.0
DONE = "done"
BACKEND, SUBJECT, NEIGHBOUR = "backend", "subject", "neighbour"
SETTLING = 8
"""Exchanges of the neighbour's after which the driver domain has had a turn for everything."""
PASSING = "passing"
"""A guest that comes and goes."""
RESTART = m.RestartPolicy(limit=100, delay_ms=1, delay_max_ms=1)
"""More deaths than a test causes; a device that never connects is given up in seconds."""
COUNTED = ("ports", "granted_pages", "mappings", "extents")
READ_BYTES = 4096
DEVID = 0


@dataclass(frozen=True, slots=True)
class DeviceUnderTest:
    """A device's kind, and the keys that the toolstack writes for it into both ends' directories.

    `{guest}` in a key's value stands for the guest's name (subject, neighbour, passing): for what only one may have.
    """

    kind: str
    keys: dict[str, str] = field(default_factory=dict)
    paths: tuple[str, ...] = ()
    """Files of the host that its backend works with, as in a cluster file: with ":w" behind where it writes."""


class Conversation:
    """Orders typed on a guest's console, answers read from it, across the guest's incarnations."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self._name = name
        node = f"/local/domain/{cluster.domain(name).domid}/console/tty"
        self._terminal = os.open(bytes(cluster.call(m.StoreRead(0, node))), os.O_RDWR | os.O_NOCTTY)
        self._seen = b""
        self._number = 0

    def order(self, command: str) -> str:
        """The guest's answer to one command."""
        self._number += 1
        os.write(self._terminal, f"{self._number} {command}\n".encode())
        return self._read_until(rb"#%d: ([^\r\n]*)\r?\n" % self._number)

    def _read_until(self, pattern: bytes) -> str:
        until = time.monotonic() + DEADLINE_S
        while not (match := re.search(pattern, self._seen)):
            left = until - time.monotonic()
            if left <= 0 or not select.select([self._terminal], [], [], left)[0]:
                raise AssertionError(
                    f"{self._name} did not answer within {DEADLINE_S:g} s; it said {self._seen[-500:]!r}"
                )
            self._seen += os.read(self._terminal, READ_BYTES)
        self._seen = self._seen[match.end() :]
        return match[1].decode("utf-8", "replace")

    def close(self) -> None:
        os.close(self._terminal)


class Trial:
    """The running cluster, and what the tests ask of it."""

    def __init__(self, cluster: Cluster, device: DeviceUnderTest) -> None:
        self.cluster = cluster
        self.kind = device.kind
        self._device = device
        self._talks: dict[str, Conversation] = {}

    # ---- what is done -----------------------------------------------------------------------------------------------

    def order(self, name: str, command: str) -> str:
        """What a guest answers to a command."""
        if name not in self._talks:
            self._talks[name] = Conversation(self.cluster, name)
        return self._talks[name].order(command)

    def exercise(self, *names: str) -> None:
        """A round of the device's traffic in each of these guests; AssertionError when it went wrong."""
        for name in names or (SUBJECT, NEIGHBOUR):
            answer = self.order(name, "exercise")
            assert answer == DONE, f"{self.kind} of {name}: {answer}"

    def settle(self) -> None:
        """When it returns, the driver domain has acted on all that was written to XenStore before.

        It was told by then; it handles what has happened in turns, and answers the neighbour in some of them. A busy
        port may have more than one turn before one that has been quiet.
        """
        self.exercise(*[NEIGHBOUR] * SETTLING)

    def kill(self, *names: str) -> None:
        """Kill these domains, all before any of them is waited for."""
        for name in names:
            self.cluster.domain(name).kill()
        for name in names:
            self.cluster.domain(name).wait_ready(DEADLINE_S)

    def create(self, name: str) -> None:
        """One more guest with such a device."""
        self.cluster.create(guest(name, self._device))
        self.cluster.domain(name).wait_ready(DEADLINE_S)

    def destroy(self, name: str) -> None:
        """Kill a guest for good."""
        if name in self._talks:
            self._talks.pop(name).close()
        self.cluster.domain(name).destroy()

    def write(self, path: str, key: str, value: str) -> None:
        """Write a node, with domain 0's right to do so."""
        self.cluster.call(m.StoreWrite(0, f"{path}/{key}", value.encode()))

    def remove(self, path: str) -> None:
        """Remove a directory, likewise."""
        self.cluster.call(m.StoreRm(0, path))

    # ---- what there is ----------------------------------------------------------------------------------------------

    def counts(self) -> dict[str, int]:
        """What the machine holds for its domains."""
        info = self.cluster.info()
        return {name: info[name] for name in COUNTED}

    def frontend_path(self, name: str) -> str:
        return f"/local/domain/{self.cluster.domain(name).domid}/device/{self.kind}/{DEVID}"

    def backend_path(self, name: str) -> str:
        backend, frontend = self.cluster.domain(BACKEND).domid, self.cluster.domain(name).domid
        return f"/local/domain/{backend}/backend/{self.kind}/{frontend}/{DEVID}"

    def read(self, path: str, key: str) -> str | None:
        """A node's text; None if there is no such node."""
        try:
            return bytes(self.cluster.call(m.StoreRead(0, f"{path}/{key}"))).decode("utf-8", "replace")
        except HypercallError:
            return None

    def state(self, path: str) -> XenbusState:
        return parse_state(self.read(path, "state"))

    def published_keys(self, name: str) -> list[str]:
        """What a frontend has written for its backend, beyond what every device has."""
        every = {"backend", "backend-id", "handle", "state", "error", *self._device.keys}
        names = self.cluster.call(m.StoreDirectory(0, self.frontend_path(name)))
        return sorted(key for key in names if key not in every and not key.startswith("hvd-"))

    def close(self) -> None:
        for talk in self._talks.values():
            talk.close()


def guest(name: str, device: DeviceUnderTest) -> m.DomainConfig:
    """A guest with one device of this kind."""
    keys = {key: value.replace("{guest}", name) for key, value in device.keys.items()}
    devices = [m.DeviceConfig(device.kind, DEVID, BACKEND, dict(keys), dict(keys))]
    return m.DomainConfig(name, "hvd:conformance", args=[device.kind], devices=devices, restart=RESTART)


@contextmanager
def running_trial(device: DeviceUnderTest) -> Iterator[Trial]:
    """A trial whose guests have connected."""
    backend = m.DomainConfig(
        BACKEND, "hvd:driver_domain", driver_domain=True, restart=RESTART, paths=list(device.paths)
    )
    with Cluster.build([backend, guest(SUBJECT, device), guest(NEIGHBOUR, device)]) as cluster:
        trial = Trial(cluster, device)
        try:
            yield trial
        finally:
            trial.close()
