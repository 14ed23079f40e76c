"""What a new broker keeps, takes over and puts off: whom the host refuses something for waits, and nobody else does."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace
from typing import Any

import pytest

from hvd.broker import recovery as recovery_module
from hvd.broker.domain import Life
from hvd.broker.held import connection_key
from hvd.broker.recovery import AGAIN_LEAST_NS, AGAIN_MOST_NS, DOMAINS_PER_TURN, Recovery
from hvd.broker.sessions import Reply
from hvd.broker.spares import QUIET_NS
from hvd.transport.ids import Incarnation


class World:
    """Refuses what it is told to, and notes what is asked of it."""

    def __init__(self) -> None:
        self.known: set[str] = set()
        self.done: list[tuple[str, int]] = []
        self.refused: set[tuple[str, int]] = set()
        self.refusals: list[Any] = []
        self.said: list[str] = []
        self.held = SimpleNamespace(drop_unknown=self.known.update)
        self.endpoints = SimpleNamespace(name=lambda domid, incarnation: f"domains/{domid}.{incarnation}")
        self.connections = SimpleNamespace(end=lambda name: None)
        self.upcalls = SimpleNamespace(expect=lambda domain: None)
        self.publisher = SimpleNamespace(log=lambda text, **_: self.said.append(text))
        self.calls = False, 0, 0
        self.sent: list[int] = []
        self.bells = SimpleNamespace(
            untrusted_calls=lambda domain: self.calls, ring_what_is_untaken=lambda domain: None
        )
        self.heart = SimpleNamespace(begin=lambda domain, now: None)

    def send_descriptors(self, domid: int, sequence: int, references: Any) -> None:
        self.sent.append(sequence)

    def __getattr__(self, name: str) -> Any:
        def ask(*arguments: Any) -> None:
            if arguments and hasattr(arguments[0], "domid"):
                self.done.append((name, arguments[0].domid))
                if (name, arguments[0].domid) in self.refused:
                    self.refusals.append([name, arguments[0].domid, errno.ENOSPC])
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        return ask


class Takeover:
    """A board's tables, found by a new broker at a time that the test sets."""

    def __init__(self, board: Any, alive: list[tuple[int, int, int]]) -> None:
        self.world, self.commands, self.disowned = World(), list[list[Any]](), list[tuple[int, int]]()
        self.now_ns = 10**12
        inheritance: Any = SimpleNamespace(
            alive=alive, ended={}, brokers_before=1, predecessor_end="killed by SIGKILL", run_dir="/run/here"
        )
        self.last: Reply | None = None
        state: Any = SimpleNamespace(hypervisor=board.h, sessions=SimpleNamespace(reply=lambda session: self.last))
        self.recovery = Recovery(
            self.world, state, inheritance, self.commands.append,  # type: ignore[arg-type]
            lambda *process: self.disowned.append(process),
        )  # fmt: skip
        self.recovery.begin(None)


@pytest.fixture
def takeover(monkeypatch):
    def begin(board, alive=None):
        mine = [(domain.domid, domain.incarnation, domain.pid) for domain in board.h.domains.values()]
        made = Takeover(board, mine if alive is None else alive)
        monkeypatch.setattr(recovery_module, "time", SimpleNamespace(monotonic_ns=lambda: made.now_ns))
        return made

    return begin


def test_the_connections_of_those_who_live_are_kept_and_of_no_process_that_nobody_expects(board, takeover):
    guest = board.boot("guest")
    found = takeover(board, [(guest, 1, 101), (guest, 7, 102), (55, 1, 103)])
    kept = {name for name in found.world.known if name.startswith("connection:")}
    assert kept == {connection_key(f"domains/{guest}.1")}
    assert found.disowned == [(guest, 7), (55, 1)]


@pytest.mark.parametrize("what", ["start_domain", "open_endpoint"])
def test_a_domain_for_which_the_host_refuses_something_is_tried_again_and_keeps_nobody(board, takeover, what):
    doms = [board.boot(f"d{number}") for number in range(2 * DOMAINS_PER_TURN)]
    found = takeover(board)
    found.world.refused = {(what, doms[0])}
    for _ in range(len(doms) // DOMAINS_PER_TURN + 1):  # and domain 0
        assert found.recovery.is_due
        assert found.recovery.go_on() is found.recovery
    assert {dom for name, dom in found.world.done if name == "open_endpoint"} | {doms[0]} > set(doms)
    waits = []
    for _ in range(8):
        assert not found.recovery.is_due
        waits.append(found.recovery.next_ns - found.now_ns)
        assert found.world.said[-1].startswith(
            "domain d0 cannot be taken over: the host refuses: No space left on device. It runs on and gets no answer "
            "to what it asks: make room in /run/here, or free memory or descriptors; it is tried again in "
        )
        found.now_ns = found.recovery.next_ns
        assert found.recovery.is_due
        assert found.recovery.go_on() is found.recovery
    assert waits == [min(AGAIN_LEAST_NS << number, AGAIN_MOST_NS) for number in range(8)]
    assert found.world.refusals == [], "of no command"
    assert board.h.domains[doms[0]].life is Life.RUNNING
    found.world.refused = set()
    found.now_ns = found.recovery.next_ns
    assert found.recovery.go_on() is None
    assert found.world.said[-1] == "taken over at last"
    assert found.world.done.count(("signal_domain", doms[0])) == 1


def test_a_process_that_was_asked_for_is_asked_for_once_however_often_its_domain_is_tried(board, takeover):
    guest = board.boot("guest")
    found = takeover(board, [])
    found.world.refused = {("open_endpoint", guest)}
    for _ in range(3):
        found.recovery.go_on()
        found.now_ns = found.recovery.next_ns
    assert found.world.done.count(("fork_domain", guest)) == 1


def test_a_domain_that_has_died_while_it_was_put_off_is_not_tried_again(board, takeover):
    guest = board.boot("guest", on_crash="preserve")
    found = takeover(board)
    found.world.refused = {("start_domain", guest)}
    found.recovery.go_on()
    board.dies(guest)
    found.now_ns = found.recovery.next_ns
    assert found.recovery.go_on() is None


@pytest.mark.parametrize("asks", [True, False])
@pytest.mark.parametrize(("received", "sent"), [(0, [7]), (6, [7]), (7, [])])
def test_the_descriptors_of_the_last_call_are_sent_to_who_lacks_them_though_it_has_given_it_up(
    board, takeover, asks, received, sent
):
    """They would count for ever as on their way to it."""
    board.boot("guest")
    found = takeover(board)
    found.last = Reply(7, 0, None, (("extent:1", 0),))
    found.world.calls = asks, 0, received
    found.recovery.go_on()
    assert found.world.sent == sent * len(board.h.domains)


@pytest.mark.parametrize("alive", [True, False])
def test_a_spare_for_which_the_host_refuses_something_is_ended_as_one_that_died(board, takeover, monkeypatch, alive):
    drv = board.boot("drv", spare=True)
    board.after(QUIET_NS)
    domain = board.h.domains[drv]
    number = domain.spare.incarnation
    board.h.started(drv, number, 1000, board.now)
    monkeypatch.setattr(World, "start_spare", refuse, raising=False)
    processes = [(drv, 1, domain.pid)] + [(drv, number, 1000)] * alive
    found = takeover(board, processes)
    assert (drv, number) in found.disowned
    died = [command for command in found.commands if command[0] == "died"]
    why = "it could not be taken over: the host refused: No space left on device"
    assert [[*command[:1], *command[2:]] for command in died] == [["died", drv, Incarnation(number), why, ""]]
    assert found.world.refusals == []


def refuse(world: World, domain: Any) -> None:
    world.refusals.append(["start spare", domain.domid, errno.ENOSPC])
    raise OSError(errno.ENOSPC, "cannot bind ipc:///proc/self/fd/5/x: No space left on device")
