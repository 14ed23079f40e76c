"""What a domain says of its own fatal signal: one datagram on its upcall socket."""

from __future__ import annotations

import struct

from hvd.transport import _native
from hvd.transport.errors import PeerFault
from hvd.transport.records import dataclass

MSGPACK_ARRAYS = 0x90
NOTICE = struct.Struct("<IIQQ")
"""FaultNotice of transport/native/fault_report.hpp."""


@dataclass(frozen=True, slots=True)
class FaultNotice:
    """Which signal met which thread, and where the domain's memory tells more. Nothing but the signal is checked."""

    signal: int
    untrusted_thread: int
    """As the domain's PID namespace numbers it."""
    untrusted_context: int
    """Address of the ucontext_t that its handler was given."""
    untrusted_siginfo: int
    """Address of the siginfo_t."""

    @staticmethod
    def may_be(untrusted: bytes) -> bool:
        """Whether this is meant as one: a hypercall, which comes down there too, begins as msgpack's arrays do."""
        return untrusted[0] < MSGPACK_ARRAYS

    @classmethod
    def parse(cls, untrusted: bytes) -> FaultNotice:
        """PeerFault for what is no notice."""
        if len(untrusted) != NOTICE.size:
            raise PeerFault(f"a fault notice has {NOTICE.size} bytes, not {len(untrusted)}")
        notice = cls(*NOTICE.unpack(untrusted))
        if notice.signal not in _native.FATAL_SIGNALS:
            raise PeerFault(f"a fault notice names signal {notice.signal}, which is not fatal")
        return notice

    def as_list(self) -> list[int]:
        """For a journal or the machine's link."""
        return [self.signal, self.untrusted_thread, self.untrusted_context, self.untrusted_siginfo]
