"""The interfaces of a program as its init gives and takes them, while it runs too: each a vif's and a TAP's.

Init holds as many TAPs as the program may ever have interfaces, and an rtnetlink socket, all opened in the program's
network namespace. It has no capability, but it made the process that made that namespace, under the same user, and so
may configure it (user_namespaces(7)). The program has none of these descriptors.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence

from hvd.domains.program.network import Pumped, make_tap, remove_tap
from hvd.transport.errors import HvdError
from hvd.transport.limits import INTERFACES_MAX

HINTS = {
    errno.EPERM: "its program has no network of its own that could be configured: hvd doctor says more",
    errno.EEXIST: "it has that address, or a default route, already",
    errno.EBUSY: "it has an interface of that name already",
    errno.EINVAL: "it has an interface of that name already, or a gateway is in none of its networks",
    errno.ENETUNREACH: "a gateway is in none of its networks",
}
"""What a refusal by the kernel is mostly about."""


class NoInterface(HvdError):
    """A device's interface cannot be; the text says why."""


class Interfaces:
    """Those of one program."""

    def __init__(self, netlink: socket.socket, taps: Sequence[int], refusal: str) -> None:
        """`taps`: of no device yet. `refusal`: why there are fewer than there may be."""
        self._netlink = netlink
        self._free = list(taps)
        self._taps: dict[Pumped, int] = {}
        self._refusal = refusal or f"{INTERFACES_MAX} are the most"

    def give(self, device: Pumped) -> str:
        """An interface for what this device carries; its name. NoInterface: there is none, and nothing has changed."""
        interface = device.interface
        if not self._free:
            raise NoInterface(f"its vif takes a TAP device: {self._refusal}; hvd doctor says more")
        tap = self._free.pop(0)
        try:
            make_tap(self._netlink, tap, interface)
            device.pump(tap)
        except (OSError, HvdError) as error:
            self._put_back(tap)
            raise NoInterface(_told(error)) from None
        self._taps[device] = tap
        return interface.name

    def take(self, device: Pumped) -> None:
        """Its interface away, if it has one: the device, which is closed, pumps no more."""
        tap = self._taps.pop(device, None)
        if tap is not None:
            self._put_back(tap)

    def has(self, device: Pumped) -> bool:
        return device in self._taps

    def _put_back(self, tap: int) -> None:
        if remove_tap(self._netlink, tap):
            self._free.append(tap)
        else:
            os.close(tap)
            self._refusal = "its program did not let go of one"


def _told(error: OSError | HvdError) -> str:
    if not isinstance(error, OSError):
        return str(error)
    return ": ".join(filter(None, (error.filename, error.strerror, HINTS.get(error.errno or 0))))
