"""What the tables ask of the world that is descriptors and no process: channels, extents, media."""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, suppress

from hvd.broker.held import PAGE, HeldDescriptors, channel_key, extent_key
from hvd.broker.hypervisor import Hypervisor
from hvd.transport.channels import events_sent
from hvd.transport.ids import DOM0, DomId, ExtentId

ALLOCATOR = 0
"""The side of a channel that its allocator has."""
PART_LEAST = 32
"""Descriptors that a domain may hold however many domains there are: those of its birth, and a few."""


class HeldHardware(ABC):
    """A part of `Hardware`, for whoever has the rest."""

    held: HeldDescriptors

    @property
    @abstractmethod
    def hypervisor(self) -> Hypervisor: ...
    @abstractmethod
    def noting_refusal(self, what: str, number: int) -> AbstractContextManager[None]: ...

    def create_channel(self, channel: int, owner: DomId) -> None:
        with self.noting_refusal("channel", channel):
            self._keep_to_part(owner)
            self.held.create_channel(channel)

    def release_channel(self, channel: int) -> None:
        self.held.release_channel(channel)

    def raise_end(self, channel: int, side: int) -> None:
        self.held.endpoint(channel, side).kick()

    def mark_closed(self, channel: int, side: int) -> None:
        self.held.endpoint(channel, side).mark_closed()

    def mark_open(self, channel: int, side: int) -> None:
        self.held.endpoint(channel, side).mark_open()

    def create_extent(self, extent: ExtentId, owner: DomId, pages: int, *, readonly: bool) -> None:
        with self.noting_refusal("extent", extent):
            self._keep_to_part(owner)
            self.held.create_extent(extent, owner, pages, readonly=readonly)

    def _keep_to_part(self, owner: DomId) -> None:
        """Half of our descriptors go to whoever asks, of the other half each domain has its part. OSError past it."""
        if owner == DOM0 or self.held.used <= self.held.most // 2:
            return
        hypervisor = self.hypervisor
        ports, table = hypervisor.channels.ports.get(owner, {}), hypervisor.grants.tables.get(owner)
        keys = [channel_key(binding.channel) for binding in ports.values() if binding.side == ALLOCATOR]
        keys += [extent_key(extent) for extent in (table.extents if table is not None else ())]
        part = max(self.held.most // 2 // len(hypervisor.domains), PART_LEAST)
        if (has := self.held.cost(keys)) >= part:
            text = f"domain {owner} holds {has} of {self.held.most} descriptors, and few are left: its part is {part}"
            raise OSError(errno.EMFILE, text)

    def seal_extent(self, extent: ExtentId) -> None:
        with self.noting_refusal("seal", extent):
            self.held.seal_extent(extent)

    def release_extent(self, extent: ExtentId) -> None:
        self.held.drop(extent_key(extent))

    def clear_byte(self, extent: ExtentId, offset: int) -> None:
        with suppress(OSError):  # its holders punched a hole there, and the host has no memory to fill it
            os.pwrite(self.held.extent(extent), b"\0", offset)

    def copy(self, source: ExtentId, source_offset: int, target: ExtentId, target_offset: int, length: int) -> None:
        os.pwrite(self.held.extent(target), os.pread(self.held.extent(source), length, source_offset), target_offset)

    def read_extent(self, extent: ExtentId, offset: int, length: int) -> bytes:
        return os.pread(self.held.extent(extent), length, offset)

    def open_medium(self, number: int, path: str, *, readonly: bool) -> None:
        with self.noting_refusal("medium", number):
            self.held.open_medium(number, path, readonly=readonly)

    def release_medium(self, number: int) -> None:
        self.held.release_medium(number)

    def events_sent(self, channel: int, side: int) -> int:
        return events_sent(self.held.by_key[channel_key(channel)][PAGE], side)
