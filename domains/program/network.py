"""A program's network namespace as it finds it: loopback is up."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct

IFREQ = struct.Struct("16sh22x")
"""struct ifreq with flags."""
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
LOOPBACK = b"lo"


def set_up_loopback() -> None:
    """Nothing where the network is not our own, and up already."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        _, flags = IFREQ.unpack(fcntl.ioctl(control, SIOCGIFFLAGS, IFREQ.pack(LOOPBACK, 0)))
        fcntl.ioctl(control, SIOCSIFFLAGS, IFREQ.pack(LOOPBACK, flags | IFF_UP))
