"""A program's network namespace as it finds it: loopback is up, and each of its domain's vifs is a TAP device.

The devices are made by the process that is to run the program (TUNSETIFF, rtnetlink(7)); their descriptors are init's,
which moves packets between them and whatever carries these on.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import struct
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import Protocol, runtime_checkable

from hvd.domains.sandbox.root import STAGE
from hvd.transport._native import detach_mount, mount_new
from hvd.transport.protocols.net import PREFIXES

TUN_DIRECTORY, TUN = "/dev/net", "tun"
TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
OFFLOADS = 0x01 | 0x02 | 0x04
"""TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6."""
RTM_NEWLINK, RTM_NEWADDR, RTM_NEWROUTE = 16, 20, 24
NLM_F_REQUEST, NLM_F_ACK, NLM_F_EXCL, NLM_F_CREATE = 1, 4, 0x200, 0x400
IFLA_ADDRESS, IFLA_MTU, IFA_ADDRESS, IFA_LOCAL, RTA_OIF, RTA_GATEWAY = 1, 4, 1, 2, 4, 5
IFA_F_NODAD, IFF_UP = 2, 1
HEADER = struct.Struct("=IHHII")
"""struct nlmsghdr."""
RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_UNIVERSE, RTN_UNICAST = 254, 4, 0, 1
LINK, ADDRESS, ROUTE = struct.Struct("=BxHiII"), struct.Struct("=BBBBI"), struct.Struct("=BBBBBBBBI")
"""struct ifinfomsg, struct ifaddrmsg, struct rtmsg."""
ATTRIBUTE = struct.Struct("=HH")
REPLY_BYTES_MAX = 8192
TAPS_MAX = 8
"""Of one program: its terminal and they go to init in one message."""


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

    @property
    def interface(self) -> Interface: ...

    def pump(self, descriptor: int) -> None:
        """From now on what either brings the other gets: a TAP device with a virtio header, which does not block."""


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

    def open(self, count: int) -> list[int]:
        """So many, of no device yet; [] where the host has none for us."""
        opened: list[int] = []
        try:
            for _ in range(count if self._directory >= 0 else 0):
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


def make_tap(descriptor: int, interface: Interface) -> None:
    """Give an open TAP a device, its addresses and routes, and have it up. OSError, naming the interface."""
    try:
        name = struct.pack("16sH22x", interface.name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)
        fcntl.ioctl(descriptor, TUNSETIFF, name)
        fcntl.ioctl(descriptor, TUNSETOFFLOAD, OFFLOADS if interface.offloads else 0)
        with _netlink() as netlink:
            index = socket.if_nametoindex(interface.name)
            mac, mtu = _attribute(IFLA_ADDRESS, interface.mac), _attribute(IFLA_MTU, struct.pack("=I", interface.mtu))
            _ask(netlink, RTM_NEWLINK, 0, LINK.pack(socket.AF_UNSPEC, 0, index, IFF_UP, IFF_UP) + mac + mtu)
            for address in interface.addresses:
                _ask(netlink, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, _address(address, index))
            for gateway in interface.gateways:
                _ask(netlink, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, _default_route(gateway, index))
    except OSError as error:
        raise OSError(error.errno, error.strerror, interface.name) from None


def set_up_loopback() -> None:
    """Nothing where the network is not our own."""
    with contextlib.suppress(PermissionError), _netlink() as netlink:
        index = socket.if_nametoindex("lo")
        _ask(netlink, RTM_NEWLINK, 0, LINK.pack(socket.AF_UNSPEC, 0, index, IFF_UP, IFF_UP))


def _netlink() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)


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
    netlink.send(HEADER.pack(HEADER.size + len(message), kind, NLM_F_REQUEST | NLM_F_ACK | flags, 1, 0) + message)
    (negative,) = struct.unpack_from("=i", netlink.recv(REPLY_BYTES_MAX), HEADER.size)
    if negative:
        raise OSError(-negative, os.strerror(-negative))
