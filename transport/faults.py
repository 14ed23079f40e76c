"""The faults that the hypervisor carries out on a domain, or whose end it holds: their names, and what excludes what.

`hvd fault list` has more: what the toolstack does by itself (hvd/toolstack/faults).
"""

from __future__ import annotations

from enum import IntEnum, StrEnum, auto

RATE_MOST = 1000
"""Rates are in thousandths."""


class FaultKind(StrEnum):
    """What is done to a domain; the sentence behind each says how its `amount` is meant."""

    KILL = "kill"
    """SIGKILL."""
    SEGV = "segv"
    """SIGSEGV."""
    ABORT = "abort"
    """SIGABRT."""
    EXIT = "exit"
    """Its process calls exit(0) wherever it is, and closes nothing."""
    HANG = "hang"
    """SIGSTOP, and SIGCONT when the fault is over."""
    SLOW = "slow"
    """Stopped for `rate` thousandths of each SLOW_PERIOD_MS."""
    BUSY = "busy"
    """Its process computes, and does nothing else."""
    FILL_FDS = "fill-fds"
    """It can open no descriptor."""
    OOM = "oom"
    """It gets no private memory any more."""
    FILL_SHM = "fill-shm"
    """It has all the extents that a domain may have."""
    DROP_EVENTS = "drop-events"
    """`rate` of its notifications are not sent."""
    DELAY_EVENTS = "delay-events"
    """`rate` of its notifications take `amount` microseconds, as long as a slow hypercall would."""
    STORM = "storm"
    """Each of its notifications is sent `amount` times more."""
    KILL_BEFORE_NOTIFY = "kill-before-notify"
    """It dies at its next notification: what it published stays, nobody is told."""
    DROP_HYPERCALLS = "drop-hypercalls"
    """`rate` of its requests, and of the replies to the others, are lost."""
    DUPLICATE_HYPERCALLS = "duplicate-hypercalls"
    """`rate` of its requests arrive twice."""
    REORDER_HYPERCALLS = "reorder-hypercalls"
    """`rate` of its requests arrive behind the next one."""
    DELAY_HYPERCALLS = "delay-hypercalls"
    """`rate` of its requests arrive `amount` microseconds late."""
    OVERSIZE_HYPERCALLS = "oversize-hypercalls"
    """`rate` of its requests arrive behind a message that is too large."""
    KILL_IN_TRANSACTION = "kill-in-transaction"
    """SIGKILL when it has begun a XenStore transaction and not ended it."""
    CORRUPT_RING = "corrupt-ring"
    """One bit of a control word of one of its rings is flipped; `amount` chooses the word, 0: the seed does."""
    CORRUPT_PAGE = "corrupt-page"
    """`amount` bits of pages that it has granted are flipped: data, not rings."""


class Family(IntEnum):
    """A domain has at most one fault of each."""

    MOMENT = auto()
    """Over as soon as it is done: any number."""
    STOP = auto()
    ORDER = auto()
    """Its own process is told to by a signal, and by a word of its shared info page."""
    EVENTS = auto()
    """Its transport's notify looks at its shared info page."""
    HYPERCALLS = auto()
    """The broker does it to what comes in at its endpoint."""
    MEMORY = auto()


FAMILY: dict[FaultKind, Family] = {
    **dict.fromkeys((FaultKind.KILL, FaultKind.SEGV, FaultKind.ABORT), Family.MOMENT),
    **dict.fromkeys((FaultKind.CORRUPT_RING, FaultKind.CORRUPT_PAGE), Family.MOMENT),
    **dict.fromkeys((FaultKind.HANG, FaultKind.SLOW), Family.STOP),
    **dict.fromkeys((FaultKind.EXIT, FaultKind.BUSY, FaultKind.FILL_FDS, FaultKind.OOM), Family.ORDER),
    **dict.fromkeys((FaultKind.DROP_EVENTS, FaultKind.DELAY_EVENTS, FaultKind.STORM), Family.EVENTS),
    FaultKind.KILL_BEFORE_NOTIFY: Family.EVENTS,
    FaultKind.DROP_HYPERCALLS: Family.HYPERCALLS,
    FaultKind.DUPLICATE_HYPERCALLS: Family.HYPERCALLS,
    FaultKind.REORDER_HYPERCALLS: Family.HYPERCALLS,
    FaultKind.DELAY_HYPERCALLS: Family.HYPERCALLS,
    FaultKind.OVERSIZE_HYPERCALLS: Family.HYPERCALLS,
    FaultKind.KILL_IN_TRANSACTION: Family.HYPERCALLS,
    FaultKind.FILL_SHM: Family.MEMORY,
}

class ControlWord(IntEnum):
    """The shared indices of a ring (ring.h) that the other end believes nothing of."""

    REQ_PROD = 1
    """The frontend's: the backend looks."""
    RSP_PROD = 2
    """The backend's: the frontend looks."""

    @property
    def offset(self) -> int:
        """In the ring's first page, in bytes."""
        return {ControlWord.REQ_PROD: 0, ControlWord.RSP_PROD: 8}[self]


SLOW_PERIOD_MS = 20
ORDER_SIGNAL = 47
"""What tells a domain's process to look at the order in its shared info page (native/fault_orders.hpp)."""
