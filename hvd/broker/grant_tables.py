"""Grant tables: which pages each domain lets which other domain map, and who has mapped them (public/grant_table.h).

Pages live in *extents*: an extent is one memfd, made for one owner, one peer and one mode, because whoever holds a
descriptor can reach the whole file. Refs still count 4 KiB pages. Nothing is recycled: refs and extents are numbered
upwards, and an extent whose owner died is dropped as soon as nobody maps it.
"""

from __future__ import annotations

import errno
from bisect import bisect_right, insort
from operator import attrgetter

from hvd.broker.errors import Refused
from hvd.broker.event_channels import EventChannels
from hvd.broker.granted_refs import GrantedRefs
from hvd.broker.hardware import Hardware, NoHardware
from hvd.transport.ids import GRANT_REF_FIRST_FREE, GRANT_REF_MAX, DomId, ExtentId, GrantRef, Handle, Port
from hvd.transport.limits import EXTENT_PAGES_MAX, EXTENTS_MAX, GRANTS_MAX, MAPTRACK_MAX
from hvd.transport.records import dataclass, field


@dataclass(slots=True)
class UnmapNotify:
    """What to do when a mapping ends: zero a byte, raise a port of the one whose mapping it was."""

    clear_offset: int | None
    port: Port | None


@dataclass(frozen=True, slots=True)
class Run:
    """`count` consecutive refs granted over consecutive pages of one extent."""

    ref: GrantRef
    count: int
    first_page: int


_by_ref = attrgetter("ref")


@dataclass(slots=True)
class Mapping:
    """A mapper's claim on consecutive refs of one extent."""

    mapper: DomId
    extent: Extent
    ref: GrantRef
    count: int
    first_page: int
    notify: UnmapNotify | None = None


@dataclass(slots=True)
class Extent:
    """One memfd and what is granted of it."""

    id: ExtentId
    owner: DomId
    peer: DomId
    pages: int
    readonly: bool
    sealed: bool = False
    runs: list[Run] = field(default_factory=list)
    """By ref: there may be thousands, and a grant is looked up by each hypercall. No run is ever changed."""
    mappings: dict[Handle, Mapping] = field(default_factory=dict)
    handed: set[DomId] = field(default_factory=set)
    """Mappers whose living incarnation holds a descriptor of it."""
    notify: UnmapNotify | None = None
    orphaned: bool = False
    """Its owner has died: it goes with its last mapping."""
    maps: int = 0
    """How many mappings there were ever."""

    def place_of(self, ref: GrantRef) -> int:
        """Which of its runs a ref is in, if it is granted."""
        return bisect_right(self.runs, ref, key=_by_ref) - 1


@dataclass(frozen=True, slots=True)
class Mapped:
    """What a map call tells its caller."""

    handle: Handle
    extent: Extent
    ref: GrantRef
    count: int
    first_page: int
    needs_descriptor: bool


@dataclass(slots=True)
class Table:
    """One domain's side of it all."""

    extents: dict[ExtentId, Extent] = field(default_factory=dict)
    refs: GrantedRefs = field(default_factory=GrantedRefs)
    mappings: dict[Handle, Mapping] = field(default_factory=dict)
    next_ref: int = GRANT_REF_FIRST_FREE


@dataclass(slots=True)
class GrantTables:
    """Every domain's grants and mappings."""

    tables: dict[DomId, Table] = field(default_factory=dict)
    next_extent: int = 1
    next_handle: int = 1
    channels: EventChannels = field(default_factory=EventChannels)
    """Where the port of a notify is raised."""
    hardware: Hardware = field(default_factory=NoHardware)

    def add_domain(self, dom: DomId) -> None:
        self.tables[dom] = Table()

    def reserve(self, owner: DomId) -> ExtentId:
        """One zeroed page that is nobody's extent yet: `adopt` takes it, or whoever reserved it releases it."""
        reserved = ExtentId(self.next_extent)
        self.hardware.create_extent(reserved, owner, 1, readonly=False)
        self.next_extent += 1
        return reserved

    def adopt(self, owner: DomId, peer: DomId, reserved: ExtentId) -> Extent:
        """A reserved page as an extent of `owner`, which has none yet."""
        extent = Extent(reserved, owner, peer, 1, readonly=False)
        self._table(owner).extents[reserved] = extent
        return extent

    def allocate(self, owner: DomId, peer: DomId, pages: int, *, readonly: bool) -> Extent:
        """A new extent of zeroed pages; EINVAL on a size out of range, ENOSPC on a full table."""
        table = self._table(owner)
        if not 1 <= pages <= EXTENT_PAGES_MAX:
            raise Refused(errno.EINVAL, f"an extent has 1 to {EXTENT_PAGES_MAX} pages, not {pages}")
        if len(table.extents) >= EXTENTS_MAX:
            raise Refused(errno.ENOSPC, f"domain {owner} has {EXTENTS_MAX} extents; free some")
        extent = Extent(ExtentId(self.next_extent), owner, peer, pages, readonly)
        self.hardware.create_extent(extent.id, owner, pages, readonly=readonly)
        self.next_extent += 1
        table.extents[extent.id] = extent
        return extent

    def share(
        self, owner: DomId, extent_id: ExtentId, first_page: int, count: int, *, at: GrantRef | None = None
    ) -> GrantRef:
        """Grant consecutive pages; reply the first ref. A read-only extent is sealed for good at its first share.

        `at` is for the hypervisor alone, which fills the reserved refs.
        """
        table = self._table(owner)
        extent = self._extent(table, owner, extent_id)
        if count < 1 or first_page + count > extent.pages:
            pages = f"pages {first_page}..{first_page + count - 1}"
            raise Refused(errno.EINVAL, f"no {pages} in extent {extent_id}, which has {extent.pages}")
        if len(table.refs) + count > GRANTS_MAX:
            total = len(table.refs) + count
            raise Refused(errno.ENOSPC, f"domain {owner} would grant {total} pages; {GRANTS_MAX} is the most")
        if table.next_ref + count - 1 > GRANT_REF_MAX:
            raise Refused(errno.ENOSPC, f"domain {owner} has used up its refs, which are never used twice")
        if extent.readonly and not extent.sealed:
            self.hardware.seal_extent(extent.id)
            extent.sealed = True
        ref = GrantRef(table.next_ref) if at is None else at
        if at is None:
            table.next_ref += count
        insort(extent.runs, Run(ref, count, first_page), key=_by_ref)
        table.refs.add(ref, count, extent)
        return ref

    def end_access(self, owner: DomId, ref: GrantRef, count: int) -> None:
        """Withdraw refs; EBUSY, and nothing is withdrawn, while one is mapped. EINVAL if they are not one grant."""
        table = self._table(owner)
        extent, at = self._grant(table, owner, ref, count)
        if any(m.ref < ref + count and ref < m.ref + m.count for m in extent.mappings.values()):
            raise Refused(errno.EBUSY, f"ref {ref} of domain {owner} is mapped by domain {extent.peer}")
        run = extent.runs[at]
        before, after = ref - run.ref, run.ref + run.count - ref - count
        left = [Run(run.ref, before, run.first_page)] if before else []
        left += [Run(GrantRef(ref + count), after, run.first_page + before + count)] if after else []
        extent.runs[at : at + 1] = left
        table.refs.remove(ref, count)

    def free(self, owner: DomId, extent_id: ExtentId) -> None:
        """Give an extent back; EBUSY while any of it is granted."""
        table = self._table(owner)
        extent = self._extent(table, owner, extent_id)
        if extent.runs:
            raise Refused(errno.EBUSY, f"extent {extent_id} of domain {owner} is still granted: end access first")
        self._notify(owner, extent, extent.notify)
        del table.extents[extent_id]
        self.hardware.release_extent(extent.id)

    def map(self, mapper: DomId, dom: DomId, ref: GrantRef, count: int, *, writable: bool) -> Mapped:
        """Map refs of `dom` (count 0: the whole run that holds `ref`).

        ESRCH without such a domain, EINVAL on a ref that is not granted, EACCES when it is granted to somebody else or
        read-only, ENOSPC when the mapper's maptrack table is full.
        """
        extent = self._granted(mapper, dom, ref, writable=writable)
        run = extent.runs[extent.place_of(ref)]
        if count == 0:
            ref, count = run.ref, run.count
        if ref + count > run.ref + run.count:
            raise Refused(errno.EINVAL, f"refs {ref}..{ref + count - 1} of domain {dom} are not one grant")
        table = self._table(mapper)
        if len(table.mappings) >= MAPTRACK_MAX:
            raise Refused(errno.ENOSPC, f"domain {mapper} holds {MAPTRACK_MAX} mappings; unmap some")
        handle = Handle(self.next_handle)
        self.next_handle += 1
        first_page = run.first_page + ref - run.ref
        mapping = Mapping(mapper, extent, ref, count, first_page)
        table.mappings[handle] = extent.mappings[handle] = mapping
        needs_descriptor = mapper not in extent.handed
        extent.handed.add(mapper)
        extent.maps += 1
        return Mapped(handle, extent, ref, count, first_page, needs_descriptor)

    def unmap(self, mapper: DomId, handle: Handle) -> None:
        """Give a mapping back; EINVAL if it is not one of the mapper's."""
        mapping = self._table(mapper).mappings.pop(handle, None)
        if mapping is None:
            raise Refused(errno.EINVAL, f"domain {mapper} has no mapping with handle {handle}")
        extent = mapping.extent
        del extent.mappings[handle]
        self._notify(mapper, extent, mapping.notify)
        if not any(m.mapper == mapper for m in extent.mappings.values()):
            extent.handed.discard(mapper)
        if extent.orphaned and not extent.mappings:
            self.hardware.release_extent(extent.id)

    def set_unmap_notify(self, mapper: DomId, handle: Handle, notify: UnmapNotify) -> None:
        """What to do when this mapping ends, death included."""
        mapping = self._table(mapper).mappings.get(handle)
        if mapping is None:
            raise Refused(errno.EINVAL, f"domain {mapper} has no mapping with handle {handle}")
        if notify.clear_offset is not None:
            if notify.clear_offset >= mapping.count * 4096:
                where = f"the mapping of {mapping.count} pages"
                raise Refused(errno.EINVAL, f"offset {notify.clear_offset} lies outside {where}")
            if mapping.extent.readonly:
                raise Refused(errno.EACCES, "a read-only mapping cannot have a byte cleared in it")
            notify.clear_offset += mapping.first_page * 4096
        mapping.notify = notify

    def set_share_notify(self, owner: DomId, extent_id: ExtentId, notify: UnmapNotify) -> None:
        """What to do when the owner gives the extent back or dies."""
        extent = self._extent(self._table(owner), owner, extent_id)
        if notify.clear_offset is not None:
            if notify.clear_offset >= extent.pages * 4096:
                where = f"extent {extent_id} of {extent.pages} pages"
                raise Refused(errno.EINVAL, f"offset {notify.clear_offset} lies outside {where}")
            if extent.readonly:
                raise Refused(errno.EACCES, "a read-only extent is sealed: no byte of it can be cleared")
        extent.notify = notify

    def page_for_copy(self, caller: DomId, dom: DomId, ref: GrantRef, *, writable: bool) -> tuple[ExtentId, int]:
        """Where a page lies that the caller may copy from or to: its own, or one granted to it."""
        if dom == caller:
            extent = self._table(dom).refs.get(ref)
            if extent is None:
                raise Refused(errno.EINVAL, f"domain {dom} grants no ref {ref}")
            if writable and extent.readonly:
                raise Refused(errno.EACCES, f"ref {ref} is granted read-only: its owner writes it in its own mapping")
        else:
            extent = self._granted(caller, dom, ref, writable=writable)
        run = extent.runs[extent.place_of(ref)]
        return extent.id, run.first_page + ref - run.ref

    def domain_died(self, dom: DomId) -> None:
        """Drop what the dead incarnation had mapped and granted. Call before its ports close: notifies use them."""
        table = self._table(dom)
        for handle in list(table.mappings):
            self.unmap(dom, handle)
        for extent in table.extents.values():
            self._notify(dom, extent, extent.notify)
            extent.orphaned = True
            if not extent.mappings:
                self.hardware.release_extent(extent.id)
        self.tables[dom] = Table(next_ref=table.next_ref)

    def extents(self) -> set[ExtentId]:
        """Every extent that is in use: those of the living, and those of the dead that somebody still maps."""
        owned = {extent for table in self.tables.values() for extent in table.extents}
        return owned | {m.extent.id for table in self.tables.values() for m in table.mappings.values()}

    def remove_domain(self, dom: DomId) -> None:
        self.domain_died(dom)
        del self.tables[dom]

    def _notify(self, dom: DomId, extent: Extent, notify: UnmapNotify | None) -> None:
        if notify is None:
            return
        if notify.clear_offset is not None:
            self.hardware.clear_byte(extent.id, notify.clear_offset)
        if notify.port is not None:
            self.channels.raise_other_end(dom, notify.port)

    def _granted(self, caller: DomId, dom: DomId, ref: GrantRef, *, writable: bool) -> Extent:
        owner = self.tables.get(dom)
        if owner is None:
            raise Refused(errno.ESRCH, f"no domain {dom}")
        extent = owner.refs.get(ref)
        if extent is None:
            raise Refused(errno.EINVAL, f"domain {dom} grants no ref {ref}")
        if extent.peer != caller:
            raise Refused(errno.EACCES, f"ref {ref} of domain {dom} is granted to another domain than {caller}")
        if writable and extent.readonly:
            raise Refused(errno.EACCES, f"ref {ref} of domain {dom} is granted read-only")
        return extent

    def _table(self, dom: DomId) -> Table:
        table = self.tables.get(dom)
        if table is None:
            raise Refused(errno.ESRCH, f"no domain {dom}")
        return table

    def _extent(self, table: Table, owner: DomId, extent_id: ExtentId) -> Extent:
        extent = table.extents.get(extent_id)
        if extent is None:
            raise Refused(errno.EINVAL, f"domain {owner} has no extent {extent_id}")
        return extent

    def _grant(self, table: Table, owner: DomId, ref: GrantRef, count: int) -> tuple[Extent, int]:
        """The extent and the place of the run that these refs are of."""
        extent = table.refs.get(ref)
        if extent is not None and count >= 1:
            at = extent.place_of(ref)
            if ref + count <= extent.runs[at].ref + extent.runs[at].count:
                return extent, at
        raise Refused(errno.EINVAL, f"refs {ref}..{ref + count - 1} of domain {owner} are not one grant")
