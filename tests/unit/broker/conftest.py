"""Owns the world that the tables' tests act on: it remembers what was asked of it, and refuses what it is told to."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Any

import pytest

from hvd.broker.groups import Groups
from hvd.broker.hardware import NoHardware
from hvd.broker.hypervisor import Hypervisor
from hvd.broker.networks import Networks
from hvd.transport.ids import DOMID_XEN, DomId
from hvd.transport.messages import DomainConfig, GroupConfig, NetworkConfig

FALLIBLE = {
    "create_channel": "channel",
    "create_extent": "extent",
    "seal_extent": "seal",
    "open_medium": "medium",
    "create_domain": "domain",
    "start_domain": "start",
    "create_spare": "spare",
    "start_spare": "start spare",
    "promote_spare": "promote",
    "open_endpoint": "endpoint",
    "start_trace": "trace",
    "attach_store_ring": "ring",
    "switch_trace": "trace",
}
ANSWERING = {
    "physinfo", "heartbeat", "read_extent", "trace_clock", "trace_head", "read_trace", "events_sent", "fault_counts",
    "memory_used_kib",
}  # fmt: skip


class RecordingHardware(NoHardware):
    """`calls` are (method, argument...); `refused` names methods that fail, as on a host without descriptors."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, ...]] = []
        self.refused: set[str] = set()
        self.busy: set[str] = set()
        """Media that somebody else writes."""

    def __getattribute__(self, name: str) -> Any:
        found = object.__getattribute__(self, name)
        if name.startswith("_") or name in ANSWERING or name not in dir(NoHardware):
            return found

        def recording(*args: Any, **named: Any) -> None:
            self.calls.append((name, *args, *named.values()))
            if name == "open_medium" and args[1] in self.busy:
                self.refusals.append(["medium", args[0], errno.EBUSY])
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
            if name in self.refused:
                number = getattr(args[0], "domid", args[0]) if args else DOMID_XEN
                self.refusals.append([FALLIBLE[name], number, errno.EMFILE])
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        return recording

    def named(self, *names: str) -> list[tuple[Any, ...]]:
        """The calls of these methods, in order."""
        return [call for call in self.calls if call[0] in names]


class Board:
    """A hypervisor with its recording world, and the steps of domains' lives in short words. The clock is `now`."""

    def __init__(self, *groups: GroupConfig, networks: Sequence[NetworkConfig] = ()) -> None:
        self.hardware = RecordingHardware()
        self.now = 1_000_000_000
        self.h = Hypervisor(
            b"secret", self.now, self.hardware, groups=Groups(groups), networks=Networks(networks)
        )
        self.pids = 100

    def create(self, name: str, **fields: Any) -> DomId:
        return self.h.create(DomainConfig(name, **{"kernel": "hvd:idle", **fields}), self.now).domid

    def started(self, dom: DomId) -> None:
        self.pids += 1
        self.h.started(dom, self.h.domains[dom].incarnation, self.pids, self.now)

    def boot(self, name: str, **fields: Any) -> DomId:
        """Create a domain, report its process and have it say that it is ready."""
        dom = self.create(name, **fields)
        self.started(dom)
        self.h.domain_ready(dom, self.now)
        return dom

    def dies(self, dom: DomId, how: str = "killed by SIGKILL") -> None:
        self.h.died(dom, self.h.domains[dom].incarnation, how, self.now)

    def will_be_due(self, dom: DomId, **times: Any) -> None:
        """Write deadlines into a domain's record."""
        for name, time in times.items():
            setattr(self.h.domains[dom], name, time)
        self.h.deadlines.note(self.h.domains[dom])

    def after(self, ns: int) -> None:
        """Let time pass and do what is due."""
        self.now += ns
        self.h.tick(self.now)


@pytest.fixture
def hardware() -> RecordingHardware:
    return RecordingHardware()


@pytest.fixture
def board() -> Board:
    """A machine with Domain-0 running."""
    made = Board()
    made.boot("Domain-0")
    return made
