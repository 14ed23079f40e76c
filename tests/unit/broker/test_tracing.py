"""Who is traced, whose buffers are kept, and what becomes of a session: the tables' part."""

from __future__ import annotations

import errno
import os

import pytest

from hvd.broker.dispatch import handle
from hvd.broker.domain import Domain
from hvd.broker.errors import Refused
from hvd.broker.hardware import NoHardware
from hvd.broker.tracing import Phase
from hvd.transport import messages as m
from hvd.transport.ids import DOM0, DOMID_XEN, DomId
from hvd.transport.limits import TRACES_KEPT_MAX
from hvd.transport.messages import RestartPolicy

FOREVER = RestartPolicy(limit=0)


def call(board, message):
    return handle(board.h, DOM0, message, board.now).value


def refusal(board, message) -> Refused:
    with pytest.raises(Refused) as refused:
        call(board, message)
    return refused.value


def switched(board) -> list[tuple[str, bool]]:
    return [(domain.name, on) for _, domain, on in board.hardware.named("switch_trace")]


def kept(board) -> list[tuple[str, int]]:
    return [(name, incarnation) for (_, incarnation), name in board.h.tracing.kept.items()]


def test_everybody_who_lives_is_switched_on_and_off_again(board):
    board.boot("ivi")
    session = call(board, m.TraceStart())
    assert switched(board) == [("Domain-0", True), ("ivi", True)]
    board.hardware.calls.clear()
    call(board, m.TraceStop(session, keep=True))
    assert switched(board) == [("Domain-0", False), ("ivi", False)]
    assert board.hardware.named("clear_trace", "end_trace") == []
    call(board, m.TraceStop(session, keep=False))
    assert len(board.hardware.named("clear_trace")) == 2
    assert len(board.hardware.named("end_trace")) == 1


def test_only_those_chosen_are_traced_and_only_they_are_listed(board):
    ivi, _ = board.boot("ivi"), board.boot("ic")
    session = call(board, m.TraceStart([ivi]))
    assert switched(board) == [("ivi", True)]
    assert [row[:4] for row in call(board, m.TraceBuffers(session))["buffers"]] == [
        [DOMID_XEN, 0, "hypervisor", True],
        [ivi, 1, "ivi", True],
    ]


def test_a_domain_that_does_not_exist_is_not_traced_and_nor_is_anybody_else(board):
    assert refusal(board, m.TraceStart([DomId(99)])).errno == errno.ESRCH
    assert switched(board) == []
    assert board.h.tracing.phase is Phase.OFF


def test_the_buffer_of_an_incarnation_that_died_is_kept_before_it_goes(board):
    ivi = board.boot("ivi", restart=FOREVER)
    session = call(board, m.TraceStart())
    board.hardware.calls.clear()
    board.dies(ivi)
    order = [name for name, *_ in board.hardware.named("keep_trace", "release_domain")]
    assert order == ["keep_trace", "release_domain"]
    rows = {(row[2], row[1]): row[3] for row in call(board, m.TraceBuffers(session))["buffers"]}
    assert rows == {("hypervisor", 0): True, ("Domain-0", 1): True, ("ivi", 2): True, ("ivi", 1): False}


def test_a_domain_that_is_destroyed_stays_readable(board):
    ivi = board.boot("ivi")
    call(board, m.TraceStart())
    board.h.destroy(ivi, board.now)
    board.dies(ivi)
    assert kept(board) == [("ivi", 1)]


def test_nothing_is_kept_of_those_that_nobody_traces(board):
    ivi, ic = board.boot("ivi"), board.boot("ic")
    board.dies(ic)
    call(board, m.TraceStart([ivi]))
    board.dies(ic)
    assert kept(board) == []
    assert board.hardware.named("keep_trace") == []


def test_beyond_a_bound_the_oldest_of_the_dead_goes(board):
    ivi = board.boot("ivi", restart=FOREVER)
    call(board, m.TraceStart())
    for _ in range(TRACES_KEPT_MAX + 2):
        board.started(ivi)
        board.h.domain_ready(ivi, board.now)
        board.dies(ivi)
    assert kept(board)[0] == ("ivi", 3)
    assert len(kept(board)) == TRACES_KEPT_MAX
    assert board.hardware.named("release_trace") == [("release_trace", ivi, 1), ("release_trace", ivi, 2)]


def test_the_dead_of_a_session_go_with_it(board):
    ivi = board.boot("ivi", restart=FOREVER)
    session = call(board, m.TraceStart())
    board.dies(ivi)
    call(board, m.TraceStop(session, keep=False))
    assert kept(board) == []
    assert board.hardware.named("release_trace") == [("release_trace", ivi, 1)]


def test_whoever_starts_last_traces_and_the_one_before_is_told(board):
    first = call(board, m.TraceStart())
    second = call(board, m.TraceStart())
    assert second == first + 1
    for message in (m.TraceBuffers(first), m.TraceRead(first, DOM0, 1, 0), m.TraceStop(first, keep=False)):
        refused = refusal(board, message)
        assert (refused.errno, "another trace has begun since" in refused.text) == (errno.ESTALE, True)
    assert board.h.tracing.phase is Phase.ON


def test_a_session_that_ended_says_why(board):
    session = call(board, m.TraceStart())
    board.h.end_trace()
    assert "it was not read for too long" in refusal(board, m.TraceBuffers(session)).text


def test_a_buffer_that_has_gone_is_refused_by_name(board):
    session = call(board, m.TraceStart())
    refused = refusal(board, m.TraceRead(session, DOM0, 77, 0))
    assert (refused.errno, refused.text) == (errno.ENOENT, "the trace of domain 0, incarnation 77, has gone")


class WithoutMemory(NoHardware):
    """A host that has none left for one domain's buffer; `on` is who is switched on."""

    def __init__(self, domid: DomId) -> None:
        super().__init__()
        self.domid = domid
        self.on: set[DomId] = set()

    def _ask(self, what: str, number: int) -> None:
        if (what, number) == ("trace", self.domid):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def switch_trace(self, domain: Domain, *, on: bool) -> None:
        super().switch_trace(domain, on=on)
        (self.on.add if on else self.on.discard)(domain.domid)


@pytest.mark.parametrize("domid", [DOMID_XEN, DOM0, DomId(1)])
def test_a_host_without_memory_for_one_buffer_leaves_everybody_untraced(board, domid):
    board.boot("ivi")
    hardware = WithoutMemory(domid)
    board.h.attach(hardware)
    refused = refusal(board, m.TraceStart())
    assert (refused.errno, refused.text) == (errno.ENOSPC, "the host refused: No space left on device")
    assert board.h.tracing.phase is Phase.OFF
    assert hardware.on == set()


def test_every_port_is_told_to_the_trace_when_it_is_bound(board):
    ivi = board.boot("ivi")
    board.hardware.calls.clear()
    port = board.h.channels.alloc_unbound(ivi, DOM0)
    other = board.h.channels.bind_interdomain(DOM0, ivi, port)
    channel = board.h.channels.ports[ivi][port].channel
    assert board.hardware.named("port_bound") == [
        ("port_bound", ivi, port, channel, 0),
        ("port_bound", DOM0, other, channel, 1),
    ]
