"""A domain's grants: pages it shares, and others' pages it has mapped."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

from hvd.transport import messages as m
from hvd.transport.errors import LocalError
from hvd.transport.hypercalls import HypercallError
from hvd.transport.ids import DomId, ExtentId, GrantRef, Handle
from hvd.transport.pages import PAGE_SIZE, Extent
from hvd.transport.records import dataclass


@dataclass(frozen=True, slots=True)
class SharedPages:
    """Pages of ours that one peer may map: consecutive refs from `ref`, page i under ref + i."""

    id: ExtentId
    ref: GrantRef
    extent: Extent

    @property
    def view(self) -> memoryview:
        return self.extent.view


@dataclass(frozen=True, slots=True)
class MappedPages:
    """A peer's pages, mapped: `view` begins with the page of `ref`."""

    handle: Handle
    id: ExtentId
    ref: GrantRef
    count: int
    view: memoryview


class Grants:
    """The calls of xengntshr and xengnttab."""

    def __init__(self, call: Callable[[Any], Any]) -> None:
        self._call = call
        self._mapped: dict[ExtentId, tuple[Extent, set[Handle]]] = {}
        self._leaving: list[SharedPages] = []
        """What is given back as soon as nobody uses it any more."""

    def share(self, peer: DomId, pages: int, *, readonly: bool = False) -> SharedPages:
        """Zeroed pages shared with `peer`; read-only ones are sealed: nobody but this mapping ever writes them."""
        self.give_back_what_is_free()
        extent_id, (descriptor,) = self._call(m.GnttabAllocate(peer, pages, readonly))
        try:
            extent = Extent.map(descriptor, pages, writable=True)
        finally:
            os.close(descriptor)
        return SharedPages(extent_id, GrantRef(self._call(m.GnttabShare(extent_id, 0, pages))), extent)

    def unshare(self, shared: SharedPages) -> None:
        """Withdraw and give back; HypercallError EBUSY while the peer has it mapped. Release views of it first."""
        self._call(m.GnttabEndAccess(shared.ref, len(shared.view) // PAGE_SIZE))
        shared.extent.close()
        self._call(m.GnttabFree(shared.id))

    def give_back(self, shared: SharedPages) -> None:
        """Unshare pages now, or later if the peer has them mapped yet or a view of them is in use."""
        self._leaving.append(shared)
        self.give_back_what_is_free()

    @property
    def leaving(self) -> bool:
        """Whether pages wait to be given back."""
        return bool(self._leaving)

    def give_back_what_is_free(self) -> None:
        """Those of the pages that wait that nobody uses any more."""
        for shared in list(self._leaving):
            try:
                shared.extent.close()
                self._call(m.GnttabEndAccess(shared.ref, len(shared.extent)))
            except (BufferError, LocalError):
                continue  # a view of ours
            except HypercallError as error:
                if error.errno == errno.EBUSY:
                    continue  # the peer's mapping
                raise
            self._leaving.remove(shared)
            self._call(m.GnttabFree(shared.id))

    def map(self, dom: DomId, ref: GrantRef, count: int = 1, *, writable: bool = True) -> MappedPages:
        """Map refs of a peer; count 0: all that were granted together with `ref`."""
        reply = self._call(m.GnttabMap(dom, ref, count, writable))
        return self.take(*reply) if isinstance(reply, tuple) else self.take(reply, [])

    def take(self, value: dict[str, Any], descriptors: list[int]) -> MappedPages:
        """What GnttabMap has answered, mapped; it is undone when that fails. The descriptors are ours."""
        extent = self.adopt(value, descriptors)
        view = extent.pages(value["first_page"], value["count"])
        handle, extent_id, ref = Handle(value["handle"]), ExtentId(value["extent"]), GrantRef(value["ref"])
        return MappedPages(handle, extent_id, ref, value["count"], view)

    def adopt(self, value: dict[str, Any], descriptors: list[int]) -> Extent:
        """The extent that GnttabMap has answered with, mapped under this handle; it is undone when that fails.

        Until `take`, or `disown`.
        """
        extent_id, handle = ExtentId(value["extent"]), Handle(value["handle"])
        if extent_id not in self._mapped:
            try:
                extent = Extent.map(descriptors[0], value["pages"], writable=not value["readonly"])
            except BaseException:
                self._call(m.GnttabUnmap(handle))
                raise
            finally:
                os.close(descriptors[0])
            self._mapped[extent_id] = extent, set()
        extent, handles = self._mapped[extent_id]
        handles.add(handle)
        return extent

    def disown(self, value: dict[str, Any]) -> None:
        """Give back what GnttabMap has answered and nobody has taken, whether it was adopted or not."""
        self._let_go(ExtentId(value["extent"]), Handle(value["handle"]))

    def unmap(self, mapped: MappedPages) -> None:
        """Give a mapping back. Release everything that uses its view first."""
        mapped.view.release()
        self._let_go(mapped.id, mapped.handle)

    def _let_go(self, extent_id: ExtentId, handle: Handle) -> None:
        if extent_id in self._mapped:
            extent, handles = self._mapped[extent_id]
            handles.discard(handle)
            if not handles:
                del self._mapped[extent_id]
                extent.close()
        self._call(m.GnttabUnmap(handle))
