"""The TAP devices of the host that are networks' uplinks: opened before all else, and held until the machine ends.

Nobody below the machine may open one. A device that was there is used as it is, and stays. One that was not is made,
with the network's MTU and up, and goes with the last descriptor of it: with the machine, however that ends.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterable

from hvd.transport.machine_link import uplink_key

TUN = "/dev/net/tun"
TUNSETIFF, TUNSETOFFLOAD, TUNSETVNETHDRSZ = 0x400454CA, 0x400454D0, 0x400454D8
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
OFFLOADS = 0x01 | 0x02 | 0x04
"""TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6: the switch takes what is checksummed and cut up later."""
VNET_HEADER_BYTES = 10
SIOCSIFMTU, SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8922, 0x8913, 0x8914, 1
HELP = {
    errno.ENOENT: "there is no " + TUN,
    errno.EACCES: TUN + " is not ours to open",
    errno.EPERM: "that takes root, CAP_NET_ADMIN, or a TAP that is yours: `ip tuntap add {tap} mode tap user NAME`",
    errno.EBUSY: "another program has it, or another cluster",
    errno.EINVAL: "there is a device of this name that is no TAP, or one with several queues",
}


class UplinkRefused(Exception):
    """A device cannot be had; the text says which, why, and what would help."""


def open_uplinks(wanted: Iterable[tuple[str, int]]) -> dict[str, list[int]]:
    """What the machine is to hold, by key, for each (name, MTU); UplinkRefused, and none is open or made."""
    opened: dict[str, list[int]] = {}
    for tap, mtu in wanted:
        try:
            opened[uplink_key(tap)] = [_open(tap, mtu)]
        except OSError as error:
            for (descriptor,) in opened.values():
                os.close(descriptor)
            help_ = HELP.get(error.errno or 0, "").format(tap=tap)
            raise UplinkRefused(f"uplink {tap}: {error.strerror}{help_ and ': ' + help_}") from None
    return opened


def _open(tap: str, mtu: int) -> int:
    descriptor = os.open(TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = _exists(tap)
        fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", tap.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
        fcntl.ioctl(descriptor, TUNSETVNETHDRSZ, struct.pack("i", VNET_HEADER_BYTES))
        fcntl.ioctl(descriptor, TUNSETOFFLOAD, OFFLOADS)
        if not found:
            _bring_up(tap, mtu)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _exists(tap: str) -> bool:
    return tap in {name for _, name in socket.if_nameindex()}


def _bring_up(tap: str, mtu: int) -> None:
    name = tap.encode()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFMTU, struct.pack("16si20x", name, mtu))
        answer = fcntl.ioctl(any_socket, SIOCGIFFLAGS, struct.pack("16sh22x", name, 0))
        (flags,) = struct.unpack_from("16xH", answer)
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH22x", name, flags | IFF_UP))
