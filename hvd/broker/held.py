"""The broker's descriptors: channels, extents, domains' sockets, each handed to the machine as it is made."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import resource
import socket
from collections.abc import Iterable

from hvd.transport.channels import Endpoint, create_channel, open_endpoint
from hvd.transport.descriptors import send_message, socket_pair
from hvd.transport.ids import DomId, ExtentId, Incarnation
from hvd.transport.limits import DESCRIPTORS_SPARED
from hvd.transport.machine_link import DROP, HOLD
from hvd.transport.pages import create_extent, open_read_only, seal_future_writes, seal_seals
from hvd.transport.run_dir import EXTENT_LABEL
from hvd.transport.trace import create_trace_buffer

# Places in the lists, by kind of key.
PAGE = 0  # channel: page, rx 0, tx 0, rx 1, tx 1
WRITABLE, READ_ONLY = 0, 1  # extent
UPCALL, UPCALL_DOMAIN, STDIO, STDIO_DOMAIN, INFO, INFO_READ_ONLY, TRACE = range(7)  # domain

CHANNEL, DOMAIN, CONNECTION = "channel:", "domain", "connection:"
READY = "ready"
"""The descriptors of a domain that there is not yet: of those that are spared, they count when they are taken."""
KEYS_PER_DROP = 256
"""Of one message to the machine, which wakes it."""
ENDPOINTS_PER_CHANNEL = 2
"""Descriptors that ringing both sides of a channel takes beside those that are held."""


def channel_key(channel: int) -> str:
    return f"{CHANNEL}{channel}"


def extent_key(extent: ExtentId) -> str:
    return f"extent:{extent}"


def medium_key(number: int) -> str:
    return f"medium:{number}"


def domain_key(domid: DomId) -> str:
    return f"{DOMAIN}:{domid}"


def store_key(domid: DomId | None) -> str:
    """Of the listening XenStore socket of a domain; None: the host's."""
    return f"store:{'host' if domid is None else domid}"


def spare_store_key(domid: DomId) -> str:
    """Of its spare's."""
    return f"spare store:{domid}"


def connection_key(name: str) -> str:
    """Of the newest connection to the endpoint of this name."""
    return f"{CONNECTION}{name}"


def spare_key(domid: DomId) -> str:
    return f"spare:{domid}"


def trace_key(domid: DomId, incarnation: Incarnation) -> str:
    """Of a dead incarnation's buffer, or of the broker's own."""
    return f"trace:{domid}.{incarnation}"


class HeldDescriptors:
    """What this broker holds, by key: made here or inherited. Every change is sent on to the machine.

    What is new, at once. What goes, at the next `settle`: a broker that dies before the command is in the journal
    leaves its successor what the tables still speak of.
    """

    def __init__(self, link: socket.socket, inherited: dict[str, list[int]]) -> None:
        self._link = link
        self.by_key = dict(inherited)
        self._dropped: dict[str, list[int]] = {}
        self.used = sum(_cost(key, descriptors) for key, descriptors in inherited.items())
        self._limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.most = self._limit - min(DESCRIPTORS_SPARED, self._limit // 2)
        """How many may be in use."""
        self._endpoints: dict[tuple[int, int], Endpoint] = {}
        """Opened when first rung: (channel, side that is raised)."""

    def hold(self, key: str, descriptors: list[int]) -> None:
        """Keep these under a key, in place of what it named. OSError, all closed: too few are left.

        What takes no more than what it replaces is never refused: the journal's next file least of all.
        """
        cost = _cost(key, descriptors)
        replaced = _cost(key, self.by_key[key]) if key in self.by_key else 0
        try:
            if cost > replaced and self.used + cost - replaced > self.most:
                raise OSError(errno.EMFILE, f"{self.used} of {self._limit} descriptors are in use")
            send_message(self._link, [HOLD, key], tuple(descriptors))
        except OSError:
            _close(descriptors)
            raise
        _close(self._dropped.pop(key, []))
        if key in self.by_key:
            self.used -= _cost(key, self.by_key[key])
            _close(self.by_key[key])
        self.used += cost
        self.by_key[key] = descriptors

    def lend(self, descriptors: Iterable[int]) -> list[int]:
        """Copies, which count as in use until they are taken back. OSError, and there is none: too few are left."""
        own: list[int] = []
        try:
            for descriptor in descriptors:
                if self.used >= self.most:
                    raise OSError(errno.EMFILE, f"{self.used} of {self._limit} descriptors are in use")
                own.append(os.dup(descriptor))
                self.used += 1
        except OSError:
            self.take_back(own)
            raise
        return own

    def take_back(self, lent: list[int]) -> None:
        self.used -= len(lent)
        _close(lent)

    def count(self) -> int:
        """How many are held for somebody. Connections are libzmq's, and come and go by themselves."""
        return sum(len(held) for key, held in self.by_key.items() if key != READY and not key.startswith(CONNECTION))

    def cost(self, keys: Iterable[str]) -> int:
        """How many descriptors are in use for what these keys name."""
        return sum(_cost(key, self.by_key[key]) for key in keys if key in self.by_key)

    def drop(self, key: str) -> None:
        """Forget a key; nothing if it is not held."""
        descriptors = self.by_key.pop(key, None)
        if descriptors is not None:
            self.used -= _cost(key, descriptors)
            self._dropped[key] = descriptors

    def let_go(self, key: str) -> None:
        """Forget one that no table speaks of, here and in the machine at once; nothing if it is not held."""
        descriptors = self.by_key.pop(key, None)
        if descriptors is not None:
            self.used -= _cost(key, descriptors)
            _close(descriptors)
            send_message(self._link, [DROP, key])

    def rename(self, key: str, name: str) -> None:
        """What a key names under another, in place of what that named. Their number does not change, so there is room.

        OSError, and nothing has changed: the kernel lets our user send no more of them just now.
        """
        send_message(self._link, [HOLD, name], tuple(self.by_key[key]))
        descriptors = self.by_key.pop(key)
        self.drop(name)
        _close(self._dropped.pop(name, []))
        self.by_key[name] = descriptors
        self._dropped[key] = []

    def drop_unknown(self, known: set[str]) -> None:
        """Drop what no table mentions: leftovers of a hypercall that its broker did not live to journal."""
        for key in set(self.by_key) - known:
            self.drop(key)

    def settle(self) -> None:
        """Let go of what was dropped, here and in the machine."""
        if not self._dropped:
            return
        for descriptors in self._dropped.values():
            _close(descriptors)
        keys = list(self._dropped)
        for at in range(0, len(keys), KEYS_PER_DROP):
            send_message(self._link, [DROP, *keys[at : at + KEYS_PER_DROP]])
        self._dropped.clear()

    def create_channel(self, channel: int) -> None:
        made = create_channel()
        self.hold(channel_key(channel), [made.page_fd, *(d for end in made.ends for d in (end.rx, end.tx))])

    def release_channel(self, channel: int) -> None:
        for side in (0, 1):
            endpoint = self._endpoints.pop((channel, side), None)
            if endpoint is not None:
                endpoint.close()
        self.drop(channel_key(channel))

    def endpoint(self, channel: int, side: int) -> Endpoint:
        """Our hand on the bell of one side: an endpoint that sends to it."""
        endpoint = self._endpoints.get((channel, side))
        if endpoint is None:
            descriptors = self.by_key[channel_key(channel)]
            sender = 1 - side
            endpoint = open_endpoint(descriptors[PAGE], sender, -1, os.dup(descriptors[2 + 2 * sender]))
            self._endpoints[channel, side] = endpoint
        return endpoint

    def create_extent(self, extent: ExtentId, owner: DomId, pages: int, *, readonly: bool) -> None:
        """Nobody who is handed a writable one can seal it: that would lock its other holders out, us among them."""
        descriptors = [create_extent(pages, f"{EXTENT_LABEL}{owner}")]
        try:
            if readonly:
                descriptors.append(open_read_only(descriptors[WRITABLE]))
            else:
                seal_seals(descriptors[WRITABLE])
        except OSError:
            _close(descriptors)
            raise
        self.hold(extent_key(extent), descriptors)

    def seal_extent(self, extent: ExtentId) -> None:
        """From here on only mappings that exist already write to it, for good."""
        descriptor = self.by_key[extent_key(extent)][WRITABLE]
        seal_future_writes(descriptor)
        seal_seals(descriptor)

    def extent(self, extent: ExtentId) -> int:
        return self.by_key[extent_key(extent)][WRITABLE]

    def open_medium(self, number: int, path: str, *, readonly: bool) -> None:
        """O_NONBLOCK: a FIFO must not hold up the broker; it means nothing to a file or disk.

        EBUSY when another writes it: what is to be written is locked, against other devices and other clusters.
        """
        flags = (os.O_RDONLY if readonly else os.O_RDWR) | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        descriptor = os.open(path, flags)
        try:
            if not readonly:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            code = errno.EBUSY if isinstance(error, BlockingIOError) else error.errno or errno.EIO
            raise OSError(code, os.strerror(code)) from None
        self.hold(medium_key(number), [descriptor])

    def release_medium(self, number: int) -> None:
        """Unlocked at once: the machine and a dying backend may have it open for a moment yet."""
        key = medium_key(number)
        if key in self.by_key:
            fcntl.flock(self.by_key[key][0], fcntl.LOCK_UN)
        self.drop(key)

    def create_domain(self, key: str) -> None:
        """Upcall socket, stdio pipe, shared info page and trace buffer for a new incarnation."""
        ready = self.by_key.get(READY, ())
        if ready and self.used + len(ready) <= self.most:
            self.rename(READY, key)
            self.used += len(ready)
        else:
            self._make_domain(key)

    def make_ready(self) -> None:
        """What `create_domain` takes next; nothing if there is some."""
        if READY not in self.by_key:
            self._make_domain(READY)

    def _make_domain(self, key: str) -> None:
        ours, theirs = socket_pair()
        descriptors = [ours.detach(), theirs.detach()]
        try:
            descriptors += os.pipe2(os.O_CLOEXEC)
            os.set_blocking(descriptors[STDIO], False)
            descriptors.append(create_extent(1, "hvd-shared-info"))
            descriptors.append(open_read_only(descriptors[INFO]))
            seal_seals(descriptors[INFO])
            descriptors.append(create_trace_buffer())
            seal_seals(descriptors[TRACE])
        except OSError:
            _close(descriptors)
            raise
        self.hold(key, descriptors)

    def shared_info(self, key: str) -> mmap.mmap:
        """Of the domain or spare that this key is of."""
        return mmap.mmap(self.by_key[key][INFO], mmap.PAGESIZE)


def _cost(key: str, descriptors: list[int]) -> int:
    if key == READY:
        return 0
    return len(descriptors) + (ENDPOINTS_PER_CHANNEL if key.startswith(CHANNEL) else 0)


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
