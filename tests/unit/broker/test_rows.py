"""The tables as rows of one moment: what comes back is what was there then, whatever has happened since."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from hvd.broker import rows
from hvd.broker.domain import Domain, Spare
from hvd.broker.grant_tables import Run, UnmapNotify
from hvd.broker.hypervisor import Hypervisor
from hvd.broker.rows import MUTABLE, ROWS_PER_PART, rows_of
from hvd.broker.sessions import Reply, Sessions
from hvd.broker.state import State
from hvd.transport.ids import DOM0, DomId, Incarnation, Port
from tests.property.test_hypervisor import dump

REPLACED = {
    "DomId", "Incarnation", "Port", "ExtentId", "DomainConfig", "FaultNotice", "Life", "Shutdown", "int", "str", "bool",
    "None", "Calls", "Ahead",
}  # fmt: skip
"""Types of what is never changed in place."""


def kept(hypervisor: Hypervisor, sessions: Sessions) -> Any:
    tables = [hypervisor.domains, hypervisor.grants, hypervisor.channels.ports, hypervisor.events.kept, sessions.last]
    noted, queues = list(hypervisor.deadlines._noted), hypervisor.upcalls
    return dump([*tables, queues, noted, [queue.unacknowledged for queue in queues.values()]], {})


@pytest.fixture
def busy(board) -> tuple[Any, Sessions, DomId, DomId]:
    """Two domains with all that a table may hold: an orphaned extent, notifies, a spare, events sent and unsent."""
    front, back, gone = (board.boot(name) for name in ("front", "back", "gone"))
    grants, h = board.h.grants, board.h
    for owner in (front, gone):
        extent = grants.allocate(owner, back, 4, readonly=False)
        first = grants.share(owner, extent.id, 0, 3)
        grants.end_access(owner, first, 1)
        mapped = grants.map(back, owner, first + 1, 0, writable=True)
        grants.set_unmap_notify(back, mapped.handle, UnmapNotify(8, Port(1)))
        grants.set_share_notify(owner, extent.id, UnmapNotify(None, Port(2)))
    h.destroy(gone, board.now)
    board.dies(gone)
    domain = h.domains[front]
    domain.spare = Spare(Incarnation(2), domain.config, extent.id, 5, 6, lacking={"root": "refused"})
    domain.sandbox_lacking = {"seccomp": "refused"}
    domain.restarted_at_ns.append(5)
    board.will_be_due(front, watchdogs={1: 77})
    for number in range(3):
        h.upcalls[front].add(f"path/{number}", "token")
    h.upcalls[front].take()
    sessions = Sessions()
    sessions.remember("d:1.1", Reply(3, 0, ["a", "list"]))
    return board, sessions, front, back


def change_everything(board: Any, sessions: Sessions, front: DomId, back: DomId) -> None:
    h, domain = board.h, board.h.domains[front]
    domain.clock.paused_ns += 1
    domain.memory.current += 1
    domain.spare.lacking["pid"], domain.spare.pid = "", 4
    domain.watchdogs[2], domain.name = 78, "another"
    domain.sandbox_lacking["pid"] = ""
    domain.restarted_at_ns.clear()
    for handle in list(h.grants.tables[back].mappings):
        h.grants.unmap(back, handle)
    h.channels.close_all(back)
    h.upcalls[front].send_again()
    h.upcalls[front].add("new", "token")
    h.announce("changed", domain, "")
    sessions.remember("d:1.1", Reply(4, 0, None))
    board.create("new")


def test_rows_are_of_one_moment_and_come_back_as_the_tables_that_were(busy, monkeypatch) -> None:
    board, sessions, _, _ = busy
    monkeypatch.setattr(rows, "ROWS_PER_PART", 2)
    state, before = State(board.h, sessions), kept(board.h, sessions)
    first, rest = state.begin_snapshot()
    assert kept(board.h, sessions) == before
    change_everything(*busy)
    assert kept(board.h, sessions) != before
    found = State.restore([first, *map(state.packed_part, rest)])
    assert kept(found.hypervisor, found.sessions) == before
    assert found.hypervisor.deadlines.domains is found.hypervisor.domains


def test_every_field_of_a_domain_that_can_change_in_place_is_copied() -> None:
    for field in fields(Domain):
        words = set(str(field.type).replace("|", " ").split())
        assert field.name in MUTABLE or words <= REPLACED, field.name


def test_a_part_is_of_few_rows_however_much_one_domain_has(board, monkeypatch) -> None:
    monkeypatch.setattr(rows, "ROWS_PER_PART", 7)
    dom = board.create("guest")
    for _ in range(20):
        extent = board.h.grants.allocate(dom, DOM0, 1, readonly=False)
        board.h.grants.share(dom, extent.id, 0, 1)
        board.h.channels.alloc_unbound(dom, DOM0)
        board.h.upcalls[dom].add(f"path/{extent.id}", "token")
    parts = list(rows_of(board.h, Sessions()))
    sizes = [(part.table, len(part.rows)) for part in parts]
    assert max(size for _, size in sizes) == 7
    assert {table for table, size in sizes if size == 7} >= {"extent", "runs", "port", "unsent"}


def test_shares_of_single_pages_are_copied_by_the_extent_and_not_one_by_one(board, monkeypatch) -> None:
    made: list[object] = []

    def row_of(run: Run) -> tuple[int, int, int]:
        made.append(run)
        return run.ref, run.count, run.first_page

    monkeypatch.setattr(rows._RUN, "of", row_of)
    dom = board.create("guest")
    extent = board.h.grants.allocate(dom, DOM0, 200, readonly=False)
    first = board.h.grants.share(dom, extent.id, 0, 200)
    for ref in range(first + 1, first + 200, 2):
        board.h.grants.end_access(dom, ref, 1)
    runs = list(extent.runs)
    parts = rows_of(board.h, Sessions())
    assert len(runs) == 100 and not made, "before the first part is asked for"
    board.h.grants.end_access(dom, first, 1)
    for part in parts:
        assert len(made) <= ROWS_PER_PART
        if part.table == "runs":
            assert sum(len(some) for _, some in part.rows) == len(made)
        made.clear()
