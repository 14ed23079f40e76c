"""The broker's descriptors: channels, extents, domains' sockets, each handed to the machine as it is made."""

from __future__ import annotations

import mmap
import os
import socket

from hvd.transport.channels import Endpoint, create_channel, open_endpoint
from hvd.transport.descriptors import send_message, socket_pair
from hvd.transport.ids import DomId, ExtentId
from hvd.transport.machine_link import DROP, HOLD
from hvd.transport.pages import create_extent, open_read_only, seal_future_writes

# Places in the lists, by kind of key.
PAGE = 0  # channel: page, rx 0, tx 0, rx 1, tx 1
WRITABLE, READ_ONLY = 0, 1  # extent
UPCALL, UPCALL_DOMAIN, STDIO, STDIO_DOMAIN, INFO, INFO_READ_ONLY = range(6)  # domain


def channel_key(channel: int) -> str:
    return f"channel:{channel}"


def extent_key(extent: ExtentId) -> str:
    return f"extent:{extent}"


def domain_key(domid: DomId) -> str:
    return f"domain:{domid}"


class HeldDescriptors:
    """What this broker holds, by key: made here or inherited. Every change is sent on to the machine in order."""

    def __init__(self, link: socket.socket, inherited: dict[str, list[int]]) -> None:
        self._link = link
        self.by_key = dict(inherited)
        self._endpoints: dict[tuple[int, int], Endpoint] = {}
        """Opened when first rung: (channel, side that is raised)."""

    def hold(self, key: str, descriptors: list[int]) -> None:
        self.by_key[key] = descriptors
        send_message(self._link, [HOLD, key], tuple(descriptors))

    def drop(self, key: str) -> None:
        """Forget a key; nothing if it is not held."""
        for descriptor in self.by_key.pop(key, []):
            os.close(descriptor)
        send_message(self._link, [DROP, key])

    def drop_unknown(self, known: set[str]) -> None:
        """Drop what no table mentions: leftovers of a hypercall that its broker did not live to journal."""
        for key in set(self.by_key) - known:
            self.drop(key)

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

    def create_extent(self, extent: ExtentId, pages: int, *, readonly: bool) -> None:
        descriptor = create_extent(pages, "hvd-extent")
        try:
            descriptors = [descriptor, open_read_only(descriptor)] if readonly else [descriptor]
        except OSError:
            os.close(descriptor)
            raise
        self.hold(extent_key(extent), descriptors)

    def seal_extent(self, extent: ExtentId) -> None:
        seal_future_writes(self.by_key[extent_key(extent)][WRITABLE])

    def extent(self, extent: ExtentId) -> int:
        return self.by_key[extent_key(extent)][WRITABLE]

    def create_domain(self, domid: DomId) -> None:
        """Upcall socket, stdio pipe and shared info page for a new incarnation."""
        ours, theirs = socket_pair()
        descriptors = [ours.detach(), theirs.detach(), *os.pipe2(os.O_CLOEXEC)]
        os.set_blocking(descriptors[STDIO], False)
        info = create_extent(1, "hvd-shared-info")
        self.hold(domain_key(domid), [*descriptors, info, open_read_only(info)])

    def shared_info(self, domid: DomId) -> mmap.mmap:
        return mmap.mmap(self.by_key[domain_key(domid)][INFO], mmap.PAGESIZE)
