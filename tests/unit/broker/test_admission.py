"""What any hypercall is refused for: too much of it waits already, or nothing that it did could be noted."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import Any

import pytest

from hvd.broker.admission import REPORT_BYTES_MAX, refusal
from hvd.broker.ledger import LEFT_AT_LAST, LEFT_BY_HOST, LEFT_BY_LIFE
from hvd.broker.sessions import domain_session, toolstack_session
from hvd.broker.upcalls import UpcallQueue
from hvd.transport import messages as m
from hvd.transport.ids import DOM0, DomId, Incarnation
from hvd.transport.limits import DESCRIPTORS_PENDING_MAX

GUEST = DomId(1)
OURS, TOOLS = domain_session(GUEST, Incarnation(1)), toolstack_session(b"client")
DOM0S = domain_session(DOM0, Incarnation(1))
CALL: Any = m.EvtchnClose(1)  # type: ignore[arg-type]
ENDS = [m.DomctlDestroy(GUEST), m.DomctlKill(GUEST)]
REPORT, READY = m.SandboxReport({}), m.DomainReady()
LIFE = [REPORT, READY, m.SchedWatchdog(1, 5), m.SchedShutdown(0, "")]
ROOM = {"": 1 << 30, "for a life": LEFT_BY_LIFE, "for the host": LEFT_BY_HOST, "at last": LEFT_AT_LAST, "nobody": 0}


def asked(
    session: str, message: Any, *, journaled: bool = True, waiting: int = 0, room: str = "", lives: bool = True,
    size: int = 100,
) -> Any:  # fmt: skip
    """The refusal; `room`: what the journal has room for; `lives`: whether its domain has said that it does."""
    queue, caller = UpcallQueue(descriptors_sent=waiting), DOM0 if session in {TOOLS, DOM0S} else GUEST
    domain = SimpleNamespace(domid=caller, ready=lives, sandbox_lacking={} if lives else None)
    state: Any = SimpleNamespace(hypervisor=SimpleNamespace(upcalls={GUEST: queue}, domains={caller: domain}))
    ledger: Any = SimpleNamespace(has_room=lambda _, leaves: ROOM[room] >= leaves, full="the host refuses: why")
    return refusal(state, ledger, session, caller, message, size=size, journaled=journaled)


def test_whoever_leaves_descriptors_unread_is_told_to_read_them() -> None:
    assert asked(OURS, CALL, waiting=DESCRIPTORS_PENDING_MAX - 1) is None
    refused = asked(OURS, CALL, waiting=DESCRIPTORS_PENDING_MAX)
    assert (refused.errno, refused.text) == (
        errno.EAGAIN, f"{DESCRIPTORS_PENDING_MAX} descriptors wait on the upcall socket: read them first"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("session", "message", "room", "is_refused"),
    [
        (OURS, CALL, "", False),
        (OURS, CALL, "for a life", True),
        *((OURS, message, "for a life", False) for message in LIFE),
        *((OURS, message, "for the host", True) for message in LIFE),
        (TOOLS, CALL, "for the host", False),
        (TOOLS, CALL, "at last", True),
        *((TOOLS, message, "at last", False) for message in ENDS),
        (DOM0S, CALL, "at last", False),
        (DOM0S, CALL, "nobody", True),
    ],
)
def test_where_nothing_can_be_noted_a_domains_life_goes_on_and_the_toolstack_is_refused_last(
    session: str, message: Any, room: str, *, is_refused: bool
) -> None:
    """A domain that reports without end uses up nothing of the toolstack's, which may be about to end it."""
    refused = asked(session, message, room=room)
    assert (refused is not None) is is_refused
    if refused is not None:
        assert (refused.errno, refused.text) == (errno.ENOSPC, "the host refuses: why")
    assert asked(session, message, room=room, journaled=False) is None, "what changes nothing needs no room"


@pytest.mark.parametrize("report", [REPORT, READY])
def test_what_a_domain_comes_to_life_by_is_refused_last_once_and_where_it_is_small(report: Any) -> None:
    """Or one that is started again meanwhile would never be ready."""
    assert asked(OURS, report, room="at last", lives=False, size=REPORT_BYTES_MAX) is None
    assert asked(OURS, report, room="at last", lives=False, size=REPORT_BYTES_MAX + 1).errno == errno.ENOSPC
    assert asked(OURS, report, room="at last", lives=True).errno == errno.ENOSPC
    assert asked(OURS, CALL, room="at last", lives=False).errno == errno.ENOSPC
