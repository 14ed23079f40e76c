"""What a domain says of its fatal signal: taken apart, and refused when it is something else."""

import os
import signal
import struct

import pytest

from hvd.transport.errors import PeerFault
from hvd.transport.fault_notice import FaultNotice

GOOD = struct.pack("<IIQQ", signal.SIGSEGV, 3, 2**64 - 1, 0x2000)


def test_a_notice_is_taken_apart():
    notice = FaultNotice.parse(GOOD)
    assert notice == FaultNotice(signal.SIGSEGV, 3, 2**64 - 1, 0x2000)
    assert FaultNotice(*notice.as_list()) == notice


@pytest.mark.parametrize("untrusted", [b"x", GOOD[:-1], GOOD + b"x", os.urandom(300)])
def test_another_size_is_no_notice(untrusted):
    with pytest.raises(PeerFault, match="24 bytes"):
        FaultNotice.parse(untrusted)


@pytest.mark.parametrize("number", [0, signal.SIGTERM, signal.SIGKILL, 40, 2**32 - 1])
def test_a_signal_that_ends_nobody_by_itself_is_none_to_tell_of(number):
    with pytest.raises(PeerFault, match=f"signal {number}"):
        FaultNotice.parse(struct.pack("<IIQQ", number, 1, 0, 0))
