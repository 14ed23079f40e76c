"""A program's network namespace as it finds it: loopback is up, and each of its domain's vifs is a TAP device.

Whoever is to be in a namespace opens what reaches into it: TAPs of no device yet, and an rtnetlink(7) socket. Whoever
holds these gives the TAPs devices (TUNSETIFF) and takes them away again, from outside, as often as need be. That takes
privilege in the namespace: its own root has that, and who made the user namespace that it belongs to.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import struct
import sys
from ipaddress import ip_address, ip_interface
from itertools import count
from pathlib import Path
from typing import Protocol, runtime_checkable

from hvd.domains.device import Keys
from hvd.domains.sandbox.root import STAGE
from hvd.transport._native import detach_mount, mount_new
from hvd.transport.limits import INTERFACES_MAX
from hvd.transport.protocols.net import PREFIXES
from hvd.transport.records import dataclass, field

TUN_DIRECTORY, TUN = "/dev/net", "tun"
TUNSETIFF, TUNGETIFF, TUNSETOFFLOAD, SIOCGIFINDEX = 0x400454CA, 0x800454D2, 0x400454D0, 0x8933
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
OFFLOADS = 0x01 | 0x02 | 0x04
"""TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6."""
RTM_NEWLINK, RTM_DELLINK, RTM_NEWADDR, RTM_NEWROUTE = 16, 17, 20, 24
NLM_F_REQUEST, NLM_F_ACK, NLM_F_EXCL, NLM_F_CREATE = 1, 4, 0x200, 0x400
IFLA_ADDRESS, IFLA_MTU, IFA_ADDRESS, IFA_LOCAL, RTA_OIF, RTA_GATEWAY = 1, 4, 1, 2, 4, 5
IFA_F_NODAD, IFF_UP = 2, 1
HEADER = struct.Struct("=IHHII")
"""struct nlmsghdr."""
RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_UNIVERSE, RTN_UNICAST = 254, 4, 0, 1
LINK, ADDRESS, ROUTE = struct.Struct("=BxHiII"), struct.Struct("=BBBBI"), struct.Struct("=BBBBBBBBI")
"""struct ifinfomsg, struct ifaddrmsg, struct rtmsg."""
ATTRIBUTE = struct.Struct("=HH")
ANSWER = struct.Struct("=IHHIIi")
"""struct nlmsghdr, and of struct nlmsgerr the negative errno."""
REPLY_BYTES_MAX = 8192
REPLIES_MAX = 512
"""That are looked at for one answer: more than a socket's buffer holds."""
KERNEL = 0
"""As whoever sends."""
SEQUENCE_MASK = (1 << 32) - 1
_NUMBERS = count(1)
REQUEST = struct.Struct("16sH22x")
"""struct ifreq: a name, and flags."""
NAME_BYTES, INDEX_OFFSET = 16, 16
REMOVALS_MAX = 3
"""Attempts at one device, which its program may rename meanwhile."""


@dataclass(frozen=True, slots=True)
class Interface:
    """What a program sees of one vif."""

    name: str
    mac: bytes
    mtu: int
    addresses: list[str]
    """With or without a prefix length; none: a DHCP client in the domain sees to it."""
    offloads: bool = True
    """Whether checksums and segmentation may be left to whoever takes the packets (struct virtio_net_hdr)."""
    gateways: list[str] = field(default_factory=list)
    """Where what is for nobody in the networks of its addresses goes: one of each version."""


@runtime_checkable
class Pumped(Protocol):
    """A device's frontend that carries packets: a program gets an interface of it."""

    keys: Keys

    @property
    def interface(self) -> Interface: ...

    def pump(self, descriptor: int) -> None:
        """Until `close` what either brings the other gets: a TAP device with a virtio header, which does not block."""


class Taps:
    """Opened before there is a root of our own, and in the network namespace they are to be in."""

    def __init__(self, owner: tuple[int, int] | None) -> None:
        """`owner`: uid and gid that are to open them, where root, which we are now, may keep them from others."""
        self._directory = -1
        self.refusal = ""
        """Why there are none."""
        try:
            self._directory = _directory(TUN_DIRECTORY) if owner is None else _own_node(owner)
        except OSError as error:
            self.refusal = f"{TUN_DIRECTORY}/{TUN}: {error.strerror}"

    def open(self) -> list[int]:
        """As many as a program may ever have at once, of no device yet; [] where the host has none for us."""
        opened: list[int] = []
        try:
            for _ in range(INTERFACES_MAX if self._directory >= 0 else 0):
                opened.append(os.open(TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self._directory))
        except OSError as error:
            self.refusal = f"{TUN_DIRECTORY}/{TUN}: {error.strerror}"
        finally:
            if self._directory >= 0:
                os.close(self._directory)
        return opened


def _directory(path: str) -> int:
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _own_node(owner: tuple[int, int]) -> int:
    """A directory with another node of the device in it. It is reached by this descriptor alone."""
    device = Path(TUN_DIRECTORY, TUN).stat().st_rdev
    mount_new("tmpfs", STAGE, "mode=0700")
    try:
        node = f"{STAGE}/{TUN}"
        os.mknod(node, stat.S_IFCHR | 0o600, device)
        for path in (node, STAGE):
            os.chown(path, *owner)
        return _directory(STAGE)
    finally:
        detach_mount(STAGE)


def make_tap(netlink: socket.socket, descriptor: int, interface: Interface) -> None:
    """Give a TAP a device in the namespace that it was opened in, addresses, routes, and have it up. OSError, naming
    the interface: `remove_tap` takes away what there is of it then."""
    try:
        name = interface.name.encode()
        fcntl.ioctl(descriptor, TUNSETIFF, REQUEST.pack(name, IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
        fcntl.ioctl(descriptor, TUNSETOFFLOAD, OFFLOADS if interface.offloads else 0)
        index = _index(netlink, name)
        mac, mtu = _attribute(IFLA_ADDRESS, interface.mac), _attribute(IFLA_MTU, struct.pack("=I", interface.mtu))
        _ask(netlink, RTM_NEWLINK, 0, LINK.pack(socket.AF_UNSPEC, 0, index, IFF_UP, IFF_UP) + mac + mtu)
        for address in interface.addresses:
            _ask(netlink, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, _address(address, index))
        for gateway in interface.gateways:
            _ask(netlink, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, _default_route(gateway, index))
    except OSError as error:
        raise OSError(error.errno, error.strerror, interface.name) from None


def remove_tap(netlink: socket.socket, descriptor: int) -> bool:
    """Take a TAP's device away, whatever its program has called or made of it; False if it can have no other."""
    for _ in range(REMOVALS_MAX):
        try:
            name = fcntl.ioctl(descriptor, TUNGETIFF, REQUEST.pack(b"", 0))[:NAME_BYTES].rstrip(b"\0")
        except OSError as error:
            return error.errno == errno.EBADFD  # it has none
        with contextlib.suppress(OSError):  # it has been renamed in between, or removed
            _ask(netlink, RTM_DELLINK, 0, LINK.pack(socket.AF_UNSPEC, 0, _index(netlink, name), 0, 0))
    return False


def set_up_loopback(netlink: socket.socket) -> None:
    """Nothing where the network is not our own."""
    with contextlib.suppress(PermissionError):
        index = _index(netlink, b"lo")
        _ask(netlink, RTM_NEWLINK, 0, LINK.pack(socket.AF_UNSPEC, 0, index, IFF_UP, IFF_UP))


def open_netlink() -> socket.socket:
    """What speaks rtnetlink about the namespace that we are in now, whoever has it later."""
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)


def _index(netlink: socket.socket, name: bytes) -> int:
    """Of an interface in the socket's namespace."""
    answer = fcntl.ioctl(netlink, SIOCGIFINDEX, REQUEST.pack(name, 0))
    return int.from_bytes(answer[INDEX_OFFSET : INDEX_OFFSET + 4], sys.byteorder)


def _address(text: str, index: int) -> bytes:
    given = ip_interface(text if "/" in text else f"{text}/{PREFIXES[6 if ':' in text else 4]}")
    family = socket.AF_INET if given.version == 4 else socket.AF_INET6
    flags = IFA_F_NODAD if given.version == 6 else 0  # nobody else has it, and the program is not to wait
    attributes = _attribute(IFA_LOCAL, given.ip.packed) + _attribute(IFA_ADDRESS, given.ip.packed)
    return ADDRESS.pack(family, given.network.prefixlen, flags, 0, index) + attributes


def _default_route(gateway: str, index: int) -> bytes:
    to = ip_address(gateway)
    family = socket.AF_INET if to.version == 4 else socket.AF_INET6
    attributes = _attribute(RTA_GATEWAY, to.packed) + _attribute(RTA_OIF, struct.pack("=I", index))
    head = ROUTE.pack(family, 0, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_UNIVERSE, RTN_UNICAST, 0)
    return head + attributes


def _attribute(kind: int, value: bytes) -> bytes:
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def _ask(netlink: socket.socket, kind: int, flags: int, message: bytes) -> None:
    """The kernel has answered when `send` comes back. Others of the namespace, which may be hostile, can write to us
    too, and fill our buffer: what is not its answer is dropped, and not waited for. OSError."""
    number = next(_NUMBERS) & SEQUENCE_MASK
    head = HEADER.pack(HEADER.size + len(message), kind, NLM_F_REQUEST | NLM_F_ACK | flags, number, 0)
    netlink.send(head + message)
    for _ in range(REPLIES_MAX):
        reply, (sender, _) = netlink.recvfrom(REPLY_BYTES_MAX, socket.MSG_DONTWAIT)
        if sender == KERNEL and len(reply) >= ANSWER.size and ANSWER.unpack_from(reply)[3] == number:
            negative = ANSWER.unpack_from(reply)[5]
            if negative:
                raise OSError(-negative, os.strerror(-negative))
            return
    raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
