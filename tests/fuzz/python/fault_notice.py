"""What a domain writes to its upcall socket, where only a fault notice may stand: it is one, or a PeerFault."""

from __future__ import annotations

from hvd.transport import _native
from hvd.transport.errors import PeerFault
from hvd.transport.fault_notice import NOTICE, FaultNotice


def play(data: bytes) -> None:
    try:
        notice = FaultNotice.parse(data)
    except PeerFault as fault:
        assert str(fault)
        return
    assert notice.signal in _native.FATAL_SIGNALS
    assert FaultNotice(*notice.as_list()) == notice
    assert NOTICE.pack(*notice.as_list()) == data
