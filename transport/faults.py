"""The faults that the hypervisor carries out on a domain, or whose end it holds: their names, and what excludes what.

`hvd fault list` has more: what the toolstack does by itself (hvd/toolstack/faults).
"""

from __future__ import annotations

from enum import IntEnum, StrEnum, auto

from hvd.transport.xs_wire import REQ_CONS_AT, REQ_PROD_AT, RSP_CONS_AT, RSP_PROD_AT

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
    """Its first process computes and does nothing else; what it has started stands still."""
    FILL_FDS = "fill-fds"
    """None of its processes can open a descriptor."""
    OOM = "oom"
    """None of its processes gets private memory any more."""
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
    """One bit of a control word of one of its rings is flipped; `amount` is the word."""
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

class RingKind(IntEnum):
    """Whose ring it is that a domain has."""

    DEVICE = 1
    """Of one of its devices (ring.h)."""
    CONSOLE = 2
    """Its console's (console.h)."""
    STORE = 3
    """XenStore's ring page (xs_wire.h), of a domain that brings its own xenbus client."""


class ControlWord(IntEnum):
    """The shared indices of rings, of which no end believes what another has written: 32 bits each."""

    REQ_PROD = 1
    """The frontend's: the backend looks."""
    RSP_PROD = 2
    """The backend's: the frontend looks."""
    CONSOLE_IN_CONS = 3
    """The domain's, as CONSOLE_OUT_PROD is; the other two are domain 0's."""
    CONSOLE_IN_PROD = 4
    CONSOLE_OUT_CONS = 5
    CONSOLE_OUT_PROD = 6
    STORE_REQ_CONS = 7
    """The hypervisor's, as STORE_RSP_PROD is; the other two are the domain's."""
    STORE_REQ_PROD = 8
    STORE_RSP_CONS = 9
    STORE_RSP_PROD = 10

    @property
    def ring(self) -> RingKind:
        return _PLACES[self][0]

    @property
    def offset(self) -> int:
        """In the page that has the ring's control words, in bytes."""
        return _PLACES[self][1]

    @property
    def unsure_bits(self) -> int:
        """A bit from this one on makes an index that cannot be, or one that its owner finds changed; one below may make
        an index that is right.
        """
        return _PLACES[self][2]

    @property
    def title(self) -> str:
        """Its name in Xen's header."""
        return self.name.lower().removeprefix(f"{self.ring.name.lower()}_")


SLOTS_BITS = 12
"""No device's ring has as many slots. Where its ends keep checks (hvd-ring-checks) a lower bit is found as well."""
CONSOLE_BITS = 12
"""A console has 2,048 bytes under way at most. A daemon that attaches goes on at what it finds in its words."""
STORE_BITS = 11
"""XenStore's client may have 1,024 bytes under way each way, and need not remember what it has written."""
_PLACES: dict[ControlWord, tuple[RingKind, int, int]] = {
    ControlWord.REQ_PROD: (RingKind.DEVICE, 0, SLOTS_BITS),
    ControlWord.RSP_PROD: (RingKind.DEVICE, 8, SLOTS_BITS),
    ControlWord.CONSOLE_IN_CONS: (RingKind.CONSOLE, 3072, 0),
    ControlWord.CONSOLE_IN_PROD: (RingKind.CONSOLE, 3076, CONSOLE_BITS),
    ControlWord.CONSOLE_OUT_CONS: (RingKind.CONSOLE, 3080, CONSOLE_BITS),
    ControlWord.CONSOLE_OUT_PROD: (RingKind.CONSOLE, 3084, 0),
    ControlWord.STORE_REQ_CONS: (RingKind.STORE, REQ_CONS_AT, 0),
    ControlWord.STORE_REQ_PROD: (RingKind.STORE, REQ_PROD_AT, STORE_BITS),
    ControlWord.STORE_RSP_CONS: (RingKind.STORE, RSP_CONS_AT, STORE_BITS),
    ControlWord.STORE_RSP_PROD: (RingKind.STORE, RSP_PROD_AT, 0),
}


def words_of(ring: RingKind) -> list[ControlWord]:
    """Its control words."""
    return [word for word in ControlWord if word.ring is ring]


SLOW_PERIOD_MS = 20
ORDER_SIGNAL = 47
"""What tells a domain's process to look at the order in its shared info page (native/fault_orders.hpp)."""
