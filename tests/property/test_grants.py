"""Grants against a model of pages and who maps them: nothing goes while it is mapped, everything when all are gone."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hvd.broker.errors import Refused
from hvd.broker.event_channels import EventChannels
from hvd.broker.grant_tables import GrantTables, UnmapNotify
from hvd.broker.hardware import NoHardware
from hvd.transport.ids import DomId, ExtentId, GrantRef, Handle

DOMAINS = [DomId(n) for n in range(1, 4)]
DOMS = st.sampled_from(DOMAINS)
COUNTS = st.sampled_from([1, 2, 0, 1, 3, 4])
PICKS = st.integers(0, 50)
"""Which of those there are."""
BESIDE = st.sampled_from([0] * 8 + [1, -1])
"""Mostly the thing itself, sometimes what lies next to it."""
OR_ANOTHER = st.sampled_from([None] * 9 + DOMAINS)
"""Mostly whoever has the right, sometimes anybody."""


@dataclass
class Page:
    """A granted page: of which extent, by which share."""

    extent: ExtentId
    number: int
    share: int


@dataclass
class Pages:
    """An extent."""

    owner: DomId
    peer: DomId
    count: int
    readonly: bool


@dataclass
class Map:
    """A mapping: where its pages are, whether its owner's grant still is."""

    mapper: DomId
    owner: DomId
    extent: ExtentId
    refs: list[GrantRef] = field(default_factory=list)


class CountingHardware(NoHardware):
    """Knows which extents there are."""

    def __init__(self) -> None:
        super().__init__()
        self.extents: set[ExtentId] = set()
        self.sealed: set[ExtentId] = set()

    def create_extent(self, extent: ExtentId, owner: DomId, pages: int, *, readonly: bool) -> None:
        assert extent not in self.extents
        self.extents.add(extent)

    def seal_extent(self, extent: ExtentId) -> None:
        assert extent in self.extents
        assert extent not in self.sealed
        self.sealed.add(extent)

    def release_extent(self, extent: ExtentId) -> None:
        self.extents.remove(extent)

    def clear_byte(self, extent: ExtentId, offset: int) -> None:
        assert extent in self.extents
        assert extent not in self.sealed


class Grants(RuleBasedStateMachine):
    """Three domains share pages, map each other's, take them back, and die."""

    def __init__(self) -> None:
        super().__init__()
        self.hardware = CountingHardware()
        self.real = GrantTables(channels=EventChannels(hardware=self.hardware), hardware=self.hardware)
        for dom in DOMAINS:
            self.real.add_domain(dom)
        self.extents: dict[ExtentId, Pages] = {}
        self.granted: dict[tuple[DomId, GrantRef], Page] = {}
        self.maps: dict[Handle, Map] = {}
        self.refs_used = dict.fromkeys(DOMAINS, 0)
        self.shares = 0
        self.last_handle = Handle(0)

    @initialize(layout=st.lists(st.tuples(DOMS, DOMS, st.integers(2, 4), st.booleans(), PICKS), min_size=2, max_size=5))
    def pages_are_shared_and_mapped(self, layout: list[tuple[DomId, DomId, int, bool, int]]) -> None:
        for owner, peer, count, readonly, pick in layout:
            self.allocate(owner, peer, count, readonly)
            self.share(len(self.extents) - 1, 0, None, 0, count)
            for n in range(2):
                self.map(pick + n, 0, None, pick % count, False)

    @rule(owner=DOMS, peer=DOMS, count=st.integers(1, 4), readonly=st.booleans())
    def allocate(self, owner: DomId, peer: DomId, count: int, readonly: bool) -> None:
        extent = self.real.allocate(owner, peer, count, readonly=readonly)
        assert extent.id not in self.extents
        self.extents[extent.id] = Pages(owner, peer, count, readonly)

    def some_extent(self, pick: int, beside: int, another: DomId | None) -> tuple[DomId, ExtentId]:
        living = sorted(extent for extent, pages in self.extents.items() if pages.owner) or [ExtentId(1)]
        extent = ExtentId(living[pick % len(living)] + beside)
        owner = self.extents[extent].owner if extent in self.extents else None
        return another or owner or DOMAINS[0], extent

    def some_ref(self, pick: int, beside: int) -> tuple[DomId, GrantRef]:
        granted = sorted(self.granted) or [(DOMAINS[0], GrantRef(8))]
        owner, ref = granted[pick % len(granted)]
        return owner, GrantRef(ref + beside)

    def some_map(self, pick: int, beside: int, another: DomId | None) -> tuple[DomId, Handle]:
        handles = sorted(self.maps) or [Handle(1)]
        handle = Handle(handles[pick % len(handles)] + beside)
        return another or (self.maps[handle].mapper if handle in self.maps else DOMAINS[0]), handle

    @rule(pick=PICKS, beside=BESIDE, another=OR_ANOTHER, first=st.integers(0, 3), count=COUNTS)
    def share(self, pick: int, beside: int, another: DomId | None, first: int, count: int) -> None:
        owner, extent = self.some_extent(pick, beside, another)
        pages = self.extents.get(extent)
        allowed = pages is not None and pages.owner == owner and 1 <= count <= pages.count - first
        try:
            ref = self.real.share(owner, extent, first, count)
        except Refused:
            assert not allowed
            return
        assert allowed
        assert ref == 8 + self.refs_used[owner]
        self.refs_used[owner] += count
        self.shares += 1
        for n in range(count):
            self.granted[owner, GrantRef(ref + n)] = Page(extent, first + n, self.shares)

    def run(self, owner: DomId, ref: GrantRef, count: int) -> list[GrantRef] | None:
        """The refs of a call that names a part of one share of which nothing was withdrawn in between."""
        refs = [GrantRef(ref + n) for n in range(count)]
        pages = [self.granted.get((owner, each)) for each in refs]
        whole = count > 0 and all(page is not None and pages[0] is not None and page.share == pages[0].share
                                  for page in pages)
        return refs if whole else None

    def whole_run(self, owner: DomId, ref: GrantRef) -> list[GrantRef]:
        """All that is left around a ref of its share."""
        low = high = ref
        while self.run(owner, GrantRef(low - 1), ref - low + 2):
            low = GrantRef(low - 1)
        while self.run(owner, ref, high - ref + 2):
            high = GrantRef(high + 1)
        return [GrantRef(n) for n in range(low, high + 1)]

    @rule(pick=PICKS, beside=BESIDE, another=OR_ANOTHER, count=COUNTS, writable=st.booleans())
    def map(self, pick: int, beside: int, another: DomId | None, count: int, writable: bool) -> None:
        owner, ref = self.some_ref(pick, beside)
        page = self.granted.get((owner, ref))
        mapper = another or (self.extents[page.extent].peer if page is not None else DOMAINS[0])
        refs = None
        if page is not None:
            pages = self.extents[page.extent]
            if pages.peer == mapper and not (writable and pages.readonly):
                refs = self.whole_run(owner, ref) if count == 0 else self.run(owner, ref, count)
        try:
            mapped = self.real.map(mapper, owner, ref, count, writable=writable)
        except Refused:
            assert refs is None
            return
        assert refs is not None
        assert page is not None
        assert mapped.handle > self.last_handle
        assert (mapped.ref, mapped.count) == (refs[0], len(refs))
        assert mapped.first_page == self.granted[owner, refs[0]].number
        held = any(m.mapper == mapper and m.extent == page.extent for m in self.maps.values())
        assert mapped.needs_descriptor is not held
        self.last_handle = mapped.handle
        self.maps[mapped.handle] = Map(mapper, owner, page.extent, refs)

    @rule(pick=PICKS, beside=BESIDE, another=OR_ANOTHER)
    def unmap(self, pick: int, beside: int, another: DomId | None) -> None:
        mapper, handle = self.some_map(pick, beside, another)
        allowed = handle in self.maps and self.maps[handle].mapper == mapper
        try:
            self.real.unmap(mapper, handle)
        except Refused:
            assert not allowed
            return
        assert allowed
        del self.maps[handle]

    @rule(pick=PICKS, another=OR_ANOTHER, offset=st.integers(0, 4 * 4096))
    def notify_of_an_unmap(self, pick: int, another: DomId | None, offset: int) -> None:
        mapper, handle = self.some_map(pick, 0, another)
        one = self.maps.get(handle)
        allowed = (
            one is not None
            and one.mapper == mapper
            and offset < 4096 * len(one.refs)
            and not self.extents[one.extent].readonly
        )
        try:
            self.real.set_unmap_notify(mapper, handle, UnmapNotify(offset, None))
        except Refused:
            assert not allowed
        else:
            assert allowed

    @rule(pick=PICKS, beside=BESIDE, another=OR_ANOTHER, count=COUNTS)
    def end_access(self, pick: int, beside: int, another: DomId | None, count: int) -> None:
        owner, ref = self.some_ref(pick, beside)
        owner = another or owner
        refs = self.run(owner, ref, count)
        living = [m for m in self.maps.values() if m.owner == owner and set(m.refs) & set(refs or [])]
        try:
            self.real.end_access(owner, ref, count)
        except Refused as refusal:
            assert refusal.errno == (errno.EINVAL if refs is None else errno.EBUSY)
            assert refs is None or living
            return
        assert refs is not None
        assert not living
        for each in refs:
            del self.granted[owner, each]

    @rule(pick=PICKS, beside=BESIDE, another=OR_ANOTHER)
    def free(self, pick: int, beside: int, another: DomId | None) -> None:
        owner, extent = self.some_extent(pick, beside, another)
        mine = extent in self.extents and self.extents[extent].owner == owner
        busy = any(page.extent == extent for page in self.granted.values())
        try:
            self.real.free(owner, extent)
        except Refused as refusal:
            assert refusal.errno == (errno.EBUSY if mine and busy else errno.EINVAL)
            return
        assert mine
        assert not busy
        self.extents[extent].owner = DomId(0)

    @rule(dom=DOMS, really=st.integers(0, 5))
    def die(self, dom: DomId, really: int) -> None:
        if really:
            return
        self.real.domain_died(dom)
        self.bury(dom)

    def bury(self, dom: DomId) -> None:
        for handle in [handle for handle, m in self.maps.items() if m.mapper == dom]:
            del self.maps[handle]
        for key in [key for key in self.granted if key[0] == dom]:
            del self.granted[key]
        for pages in self.extents.values():
            if pages.owner == dom:
                pages.owner = DomId(0)

    @invariant()
    def the_tables_are_the_models(self) -> None:
        tables = self.real.tables
        assert {(dom, ref) for dom, table in tables.items() for ref in table.refs} == set(self.granted)
        assert {handle for table in tables.values() for handle in table.mappings} == set(self.maps)

    @invariant()
    def mappings_are_counted_alike_on_both_sides(self) -> None:
        by_mapper = sorted(handle for table in self.real.tables.values() for handle in table.mappings)
        extents = {id(m.extent): m.extent for table in self.real.tables.values() for m in table.mappings.values()}
        assert by_mapper == sorted(handle for extent in extents.values() for handle in extent.mappings)

    @invariant()
    def an_extent_is_there_while_somebody_owns_or_maps_it(self) -> None:
        owned = {extent for extent, pages in self.extents.items() if pages.owner}
        assert self.hardware.extents == owned | {m.extent for m in self.maps.values()} == self.real.extents()

    @invariant()
    def what_is_granted_read_only_is_sealed(self) -> None:
        shared = {page.extent for page in self.granted.values() if self.extents[page.extent].readonly}
        assert shared <= self.hardware.sealed

    def teardown(self) -> None:
        for dom in DOMAINS:
            self.real.remove_domain(dom)
        assert self.real.tables == {}
        assert self.hardware.extents == set()


TestGrants = Grants.TestCase
TestGrants.settings = settings(max_examples=200, stateful_step_count=50)
