"""Grants: who may share, map and take back which pages, and what happens to them when one of the two dies."""

import errno

import pytest

from hvd.broker.errors import Refused
from hvd.broker.event_channels import EventChannels
from hvd.broker.grant_tables import GrantTables, UnmapNotify
from hvd.transport.ids import GRANT_REF_CONSOLE, GRANT_REF_MAX, DomId, ExtentId, GrantRef, Handle, Port
from hvd.transport.limits import EXTENT_PAGES_MAX, EXTENTS_MAX, GRANTS_MAX, MAPTRACK_MAX

A, B, C, NOBODY = DomId(1), DomId(2), DomId(3), DomId(9)


@pytest.fixture
def grants(hardware):
    made = GrantTables(channels=EventChannels(hardware=hardware), hardware=hardware)
    for dom in (A, B, C):
        made.add_domain(dom)
        made.channels.add_domain(dom)
    return made


def refusal(call, *args, **named):
    with pytest.raises(Refused) as refused:
        call(*args, **named)
    return refused.value.errno


def shared(grants, pages=4, *, readonly=False, owner=A, peer=B):
    """(extent, first ref) with all pages granted in one share."""
    extent = grants.allocate(owner, peer, pages, readonly=readonly)
    return extent, grants.share(owner, extent.id, 0, pages)


def mapped(grants, ref, count=1, *, mapper=B, owner=A, writable=True):
    return grants.map(mapper, owner, GrantRef(ref), count, writable=writable)


# ---- sharing ---------------------------------------------------------------------------------------------------------


def test_guests_refs_start_behind_the_reserved_ones_and_follow_each_other(grants):
    extent, ref = shared(grants, 3)
    assert ref == 8
    assert grants.share(A, extent.id, 1, 2) == 11
    assert sorted(grants.tables[A].refs) == [8, 9, 10, 11, 12]


def test_a_ref_is_never_used_twice(grants):
    extent, ref = shared(grants, 2)
    grants.end_access(A, ref, 2)
    assert grants.share(A, extent.id, 0, 1) == ref + 2
    grants.domain_died(A)
    assert shared(grants)[1] == ref + 3


def test_the_hypervisor_fills_a_reserved_ref_without_using_one_up(grants):
    extent = grants.allocate(A, B, 1, readonly=False)
    assert grants.share(A, extent.id, 0, 1, at=GRANT_REF_CONSOLE) == 0
    assert grants.share(A, extent.id, 0, 1) == 8


@pytest.mark.parametrize("pages", [0, -1, EXTENT_PAGES_MAX + 1])
def test_an_extent_has_at_least_one_page_and_at_most_extent_pages_max(grants, hardware, pages):
    assert refusal(grants.allocate, A, B, pages, readonly=False) == errno.EINVAL
    assert not hardware.calls
    grants.allocate(A, B, EXTENT_PAGES_MAX, readonly=False)


def test_a_domain_has_at_most_extents_max_extents(grants):
    extents = [grants.allocate(A, B, 1, readonly=False) for _ in range(EXTENTS_MAX)]
    assert refusal(grants.allocate, A, B, 1, readonly=False) == errno.ENOSPC
    grants.allocate(B, A, 1, readonly=False)
    grants.free(A, extents[5].id)
    grants.allocate(A, B, 1, readonly=False)


def test_an_extent_that_the_host_refuses_is_not_there(grants, hardware):
    hardware.refused = {"create_extent"}
    with pytest.raises(OSError, match="Too many open files"):
        grants.allocate(A, B, 1, readonly=False)
    assert grants.tables[A].extents == {}


def test_a_domain_grants_at_most_grants_max_pages(grants):
    big = [grants.allocate(A, B, EXTENT_PAGES_MAX, readonly=False) for _ in range(5)]
    for extent in big[: GRANTS_MAX // EXTENT_PAGES_MAX]:
        grants.share(A, extent.id, 0, EXTENT_PAGES_MAX)
    assert refusal(grants.share, A, big[4].id, 0, 1) == errno.ENOSPC
    grants.end_access(A, GrantRef(8), 1)
    assert grants.share(A, big[4].id, 0, 1) == 8 + GRANTS_MAX


def test_a_domain_that_has_used_up_its_refs_is_told_so(grants):
    extent = grants.allocate(A, B, 2, readonly=False)
    grants.tables[A].next_ref = GRANT_REF_MAX
    assert refusal(grants.share, A, extent.id, 0, 2) == errno.ENOSPC
    assert grants.share(A, extent.id, 0, 1) == GRANT_REF_MAX
    assert refusal(grants.share, A, extent.id, 0, 1) == errno.ENOSPC


@pytest.mark.parametrize(("first", "count"), [(0, 0), (0, 5), (4, 1), (3, 2), (2**32 - 1, 1)])
def test_only_pages_of_the_extent_can_be_shared(grants, first, count):
    extent = grants.allocate(A, B, 4, readonly=False)
    assert refusal(grants.share, A, extent.id, first, count) == errno.EINVAL
    assert not grants.tables[A].refs


def test_only_its_owner_shares_or_frees_an_extent(grants):
    extent = grants.allocate(A, B, 1, readonly=False)
    assert refusal(grants.share, B, extent.id, 0, 1) == errno.EINVAL
    assert refusal(grants.free, B, extent.id) == errno.EINVAL
    assert refusal(grants.share, NOBODY, extent.id, 0, 1) == errno.ESRCH


def test_a_read_only_extent_is_sealed_at_its_first_share_and_only_then(grants, hardware):
    extent = grants.allocate(A, B, 2, readonly=True)
    assert not hardware.named("seal_extent")
    grants.share(A, extent.id, 0, 1)
    grants.share(A, extent.id, 1, 1)
    shared(grants)
    assert hardware.named("seal_extent") == [("seal_extent", extent.id)]


def test_an_extent_that_cannot_be_sealed_is_not_shared(grants, hardware):
    extent = grants.allocate(A, B, 1, readonly=True)
    hardware.refused = {"seal_extent"}
    with pytest.raises(OSError, match="Too many open files"):
        grants.share(A, extent.id, 0, 1)
    assert (len(grants.tables[A].refs), extent.runs, extent.sealed) == (0, [], False)


# ---- mapping ---------------------------------------------------------------------------------------------------------


def test_mapping_says_where_the_refs_lie_and_hands_the_descriptor_out_once(grants):
    extent = grants.allocate(A, B, 8, readonly=False)
    ref = grants.share(A, extent.id, 2, 4)
    first, second = mapped(grants, ref + 1, 2), mapped(grants, ref + 3, 1)
    assert (first.extent, first.ref, first.count, first.first_page) == (extent, ref + 1, 2, 3)
    assert (second.first_page, second.count) == (5, 1)
    assert (first.needs_descriptor, second.needs_descriptor) == (True, False)


def test_count_zero_maps_all_that_was_shared_together(grants):
    extent = grants.allocate(A, B, 8, readonly=False)
    grants.share(A, extent.id, 0, 2)
    ref = grants.share(A, extent.id, 2, 4)
    whole = mapped(grants, ref + 3, 0)
    assert (whole.ref, whole.count, whole.first_page) == (ref, 4, 2)


def test_the_descriptor_is_handed_out_again_after_the_last_unmap_and_to_a_new_incarnation(grants):
    _, ref = shared(grants)
    first, second = mapped(grants, ref), mapped(grants, ref)
    grants.unmap(B, first.handle)
    assert not mapped(grants, ref).needs_descriptor
    grants.unmap(B, second.handle)
    grants.domain_died(B)
    assert mapped(grants, ref).needs_descriptor


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ((C, A, 8, 1), errno.EACCES),
        ((A, A, 8, 1), errno.EACCES),
        ((B, NOBODY, 8, 1), errno.ESRCH),
        ((B, C, 8, 1), errno.EINVAL),
        ((B, A, 7, 1), errno.EINVAL),
        ((B, A, 12, 1), errno.EINVAL),
        ((B, A, 2**31 - 1, 1), errno.EINVAL),
        ((B, A, 8, 5), errno.EINVAL),
        ((B, A, 11, 2), errno.EINVAL),
        ((B, A, 8, EXTENT_PAGES_MAX), errno.EINVAL),
    ],
)
def test_what_is_not_granted_to_the_mapper_cannot_be_mapped(grants, asked, expected):
    mapper, owner, ref, count = asked
    shared(grants)
    assert refusal(mapped, grants, ref, count, mapper=mapper, owner=owner) == expected
    assert not any(table.mappings for table in grants.tables.values())


def test_one_mapping_does_not_reach_from_one_share_into_the_next(grants):
    extent = grants.allocate(A, B, 2, readonly=False)
    ref = grants.share(A, extent.id, 0, 1)
    grants.share(A, extent.id, 1, 1)
    assert refusal(mapped, grants, ref, 2) == errno.EINVAL


def test_a_read_only_grant_cannot_be_mapped_writable(grants):
    _, ref = shared(grants, readonly=True)
    assert refusal(mapped, grants, ref) == errno.EACCES
    assert mapped(grants, ref, writable=False).extent.readonly


def test_a_domain_holds_at_most_maptrack_max_mappings(grants):
    _, ref = shared(grants)
    handles = [mapped(grants, ref).handle for _ in range(MAPTRACK_MAX)]
    assert refusal(mapped, grants, ref) == errno.ENOSPC
    grants.unmap(B, handles[3])
    mapped(grants, ref)


def test_a_handle_is_never_used_twice_and_is_its_mappers_alone(grants):
    _, ref = shared(grants)
    first = mapped(grants, ref)
    assert refusal(grants.unmap, C, first.handle) == errno.EINVAL
    assert refusal(grants.unmap, A, first.handle) == errno.EINVAL
    grants.unmap(B, first.handle)
    assert refusal(grants.unmap, B, first.handle) == errno.EINVAL
    assert mapped(grants, ref).handle > first.handle
    assert refusal(grants.unmap, NOBODY, first.handle) == errno.ESRCH


def test_a_domain_may_grant_to_itself(grants):
    _, ref = shared(grants, peer=A)
    own = mapped(grants, ref, mapper=A)
    assert refusal(grants.end_access, A, ref, 4) == errno.EBUSY
    grants.unmap(A, own.handle)
    grants.end_access(A, ref, 4)


# ---- taking back -----------------------------------------------------------------------------------------------------


def test_access_ends_only_when_nothing_of_it_is_mapped(grants):
    extent, ref = shared(grants)
    one = mapped(grants, ref + 2)
    assert refusal(grants.end_access, A, ref, 4) == errno.EBUSY
    assert refusal(grants.end_access, A, ref + 2, 1) == errno.EBUSY
    assert len(grants.tables[A].refs) == 4
    wide = mapped(grants, ref, 2)
    assert refusal(grants.end_access, A, ref + 1, 1) == refusal(grants.end_access, A, ref, 1) == errno.EBUSY
    grants.unmap(B, wide.handle)
    grants.end_access(A, ref + 3, 1)
    grants.end_access(A, ref, 2)
    grants.unmap(B, one.handle)
    grants.end_access(A, ref + 2, 1)
    assert (len(grants.tables[A].refs), extent.runs) == (0, [])
    assert refusal(mapped, grants, ref) == errno.EINVAL


def test_access_may_end_in_the_middle_while_what_lies_beside_it_is_mapped(grants):
    _, ref = shared(grants, 6)
    left, right = mapped(grants, ref, 2), mapped(grants, ref + 4, 2)
    grants.end_access(A, ref + 2, 2)
    assert sorted(grants.tables[A].refs) == [ref, ref + 1, ref + 4, ref + 5]
    assert refusal(mapped, grants, ref + 2) == errno.EINVAL
    assert refusal(mapped, grants, ref, 5) == errno.EINVAL
    again = mapped(grants, ref + 5, 0)
    assert (again.ref, again.count, again.first_page) == (ref + 4, 2, 4)
    for handle in (left.handle, right.handle, again.handle):
        grants.unmap(B, handle)
    grants.end_access(A, ref, 2)
    grants.end_access(A, ref + 4, 2)


@pytest.mark.parametrize(("offset", "count"), [(0, 0), (0, 5), (4, 1), (-1, 1), (3, 2)])
def test_only_one_grants_own_refs_end_together(grants, offset, count):
    _, ref = shared(grants)
    assert refusal(grants.end_access, A, GrantRef(ref + offset), count) == errno.EINVAL
    assert len(grants.tables[A].refs) == 4


def test_an_extent_is_freed_when_nothing_of_it_is_granted(grants, hardware):
    extent, ref = shared(grants)
    assert refusal(grants.free, A, extent.id) == errno.EBUSY
    grants.end_access(A, ref, 4)
    grants.free(A, extent.id)
    assert hardware.calls[-1] == ("release_extent", extent.id)
    assert refusal(grants.free, A, extent.id) == errno.EINVAL
    assert refusal(grants.share, A, extent.id, 0, 1) == errno.EINVAL
    assert grants.allocate(A, B, 1, readonly=False).id > extent.id


# ---- death -----------------------------------------------------------------------------------------------------------


def test_a_dead_mapper_holds_nothing_any_more(grants):
    _, ref = shared(grants)
    mapped(grants, ref, 2)
    mapped(grants, ref, 0)
    grants.domain_died(B)
    assert grants.tables[B].mappings == {}
    grants.end_access(A, ref, 4)


def test_a_dead_owners_extents_stay_for_those_who_map_them_and_go_with_the_last(grants, hardware):
    extent, ref = shared(grants)
    lone, _ = shared(grants)
    first, second = mapped(grants, ref), mapped(grants, ref, 0)
    grants.domain_died(A)
    assert hardware.named("release_extent") == [("release_extent", lone.id)]
    assert grants.extents() == {extent.id}
    grants.unmap(B, first.handle)
    assert grants.extents() == {extent.id}
    grants.unmap(B, second.handle)
    assert hardware.named("release_extent") == [("release_extent", lone.id), ("release_extent", extent.id)]
    assert grants.extents() == set()


def test_nobody_maps_what_a_dead_owner_had_granted(grants):
    _, ref = shared(grants)
    mapped(grants, ref)
    grants.domain_died(A)
    assert refusal(mapped, grants, ref) == errno.EINVAL
    grants.remove_domain(A)
    assert refusal(mapped, grants, ref) == errno.ESRCH


def test_owner_and_mapper_may_die_in_either_order(grants, hardware):
    for first, second in ((A, B), (B, A)):
        extent, ref = shared(grants)
        mapped(grants, ref)
        grants.domain_died(first)
        grants.domain_died(second)
        assert hardware.named("release_extent")[-1] == ("release_extent", extent.id)
    assert len(hardware.named("release_extent")) == 2


# ---- notifies --------------------------------------------------------------------------------------------------------


def ported(grants, dom, peer):
    """A port of `dom` that is bound to `peer`, and the ring that raising it is."""
    port = grants.channels.alloc_unbound(peer, dom)
    local = grants.channels.bind_interdomain(dom, peer, port)
    binding = grants.channels.ports[dom][local]
    return local, ("raise_end", binding.channel, 1 - binding.side)


@pytest.mark.parametrize("how", ["unmap", "death"])
def test_the_end_of_a_mapping_clears_a_byte_and_raises_a_port(grants, hardware, how):
    extent = grants.allocate(A, B, 8, readonly=False)
    ref = grants.share(A, extent.id, 2, 4)
    one = mapped(grants, ref + 1, 2)
    port, ring = ported(grants, B, A)
    grants.set_unmap_notify(B, one.handle, UnmapNotify(5000, port))
    hardware.calls.clear()
    if how == "unmap":
        grants.unmap(B, one.handle)
    else:
        grants.domain_died(B)
    assert hardware.calls == [("clear_byte", extent.id, 3 * 4096 + 5000), ring]


def test_a_mapping_of_a_dead_owners_pages_still_notifies(grants, hardware):
    extent, ref = shared(grants)
    one = mapped(grants, ref)
    grants.domain_died(A)
    grants.set_unmap_notify(B, one.handle, UnmapNotify(1, None))
    grants.unmap(B, one.handle)
    assert hardware.calls[-2:] == [("clear_byte", extent.id, 1), ("release_extent", extent.id)]


@pytest.mark.parametrize("how", ["free", "death"])
def test_the_end_of_an_extent_clears_a_byte_and_raises_a_port(grants, hardware, how):
    extent = grants.allocate(A, B, 2, readonly=False)
    port, ring = ported(grants, A, B)
    grants.set_share_notify(A, extent.id, UnmapNotify(8191, port))
    hardware.calls.clear()
    if how == "free":
        grants.free(A, extent.id)
    else:
        grants.domain_died(A)
    assert hardware.calls == [("clear_byte", extent.id, 8191), ring, ("release_extent", extent.id)]


def test_a_notify_whose_port_was_closed_is_no_error(grants, hardware):
    _, ref = shared(grants)
    one = mapped(grants, ref)
    grants.set_unmap_notify(B, one.handle, UnmapNotify(None, Port(77)))
    grants.unmap(B, one.handle)
    assert not hardware.named("raise_end", "clear_byte")


@pytest.mark.parametrize("offset", [2 * 4096, 8192 * 4096])
def test_a_notify_clears_no_byte_outside_its_mapping_or_extent(grants, offset):
    extent, ref = shared(grants, 2)
    one = mapped(grants, ref, 2)
    assert refusal(grants.set_unmap_notify, B, one.handle, UnmapNotify(offset, None)) == errno.EINVAL
    assert refusal(grants.set_share_notify, A, extent.id, UnmapNotify(offset, None)) == errno.EINVAL
    assert (extent.notify, grants.tables[B].mappings[one.handle].notify) == (None, None)


def test_no_byte_of_a_read_only_extent_is_cleared_for_either_side(grants):
    extent, ref = shared(grants, readonly=True)
    one = mapped(grants, ref, writable=False)
    assert refusal(grants.set_unmap_notify, B, one.handle, UnmapNotify(0, None)) == errno.EACCES
    assert refusal(grants.set_share_notify, A, extent.id, UnmapNotify(0, None)) == errno.EACCES
    grants.set_unmap_notify(B, one.handle, UnmapNotify(None, Port(1)))
    grants.set_share_notify(A, extent.id, UnmapNotify(None, Port(1)))


def test_notifies_are_set_by_the_mapper_and_the_owner_only(grants):
    extent, ref = shared(grants)
    one = mapped(grants, ref)
    assert refusal(grants.set_unmap_notify, A, one.handle, UnmapNotify(None, None)) == errno.EINVAL
    assert refusal(grants.set_unmap_notify, B, Handle(99), UnmapNotify(None, None)) == errno.EINVAL
    assert refusal(grants.set_share_notify, B, extent.id, UnmapNotify(None, None)) == errno.EINVAL


# ---- copying ---------------------------------------------------------------------------------------------------------


def test_a_page_may_be_copied_from_and_to_where_it_is_granted(grants):
    extent = grants.allocate(A, B, 8, readonly=False)
    ref = grants.share(A, extent.id, 2, 4)
    for caller in (A, B):
        assert grants.page_for_copy(caller, A, GrantRef(ref + 1), writable=True) == (extent.id, 3)


def test_a_read_only_page_is_a_source_for_both_and_a_target_for_none(grants):
    extent, ref = shared(grants, readonly=True)
    for caller in (A, B):
        assert grants.page_for_copy(caller, A, ref, writable=False) == (extent.id, 0)
        assert refusal(grants.page_for_copy, caller, A, ref, writable=True) == errno.EACCES


def test_a_page_that_is_not_granted_is_not_copied(grants):
    _, ref = shared(grants)
    assert refusal(grants.page_for_copy, C, A, ref, writable=False) == errno.EACCES
    assert refusal(grants.page_for_copy, B, A, GrantRef(ref + 4), writable=False) == errno.EINVAL
    assert refusal(grants.page_for_copy, A, A, GrantRef(ref + 4), writable=False) == errno.EINVAL
    assert refusal(grants.page_for_copy, B, NOBODY, ref, writable=False) == errno.ESRCH


def test_extents_are_numbered_over_all_domains(grants):
    assert [grants.allocate(dom, C, 1, readonly=False).id for dom in (A, B, A)] == [1, 2, 3]
    assert grants.extents() == {ExtentId(1), ExtentId(2), ExtentId(3)}


def test_no_hypercall_walks_or_copies_all_grants_of_an_extent(grants):
    class Unwalked(list):
        def __iter__(self):
            raise AssertionError("walked")

    extent = grants.allocate(A, B, 8, readonly=False)
    refs = [grants.share(A, extent.id, at % 8, 1) for at in range(100)]
    extent.runs = runs = Unwalked(extent.runs)
    refs.append(grants.share(A, extent.id, 0, 3))
    handle = mapped(grants, refs[50]).handle
    assert refusal(mapped, grants, refs[50], 2) == refusal(grants.end_access, A, refs[7], 2) == errno.EINVAL
    assert grants.page_for_copy(B, A, GrantRef(refs[100] + 1), writable=True) == (extent.id, 1)
    grants.unmap(B, handle)
    grants.end_access(A, GrantRef(refs[100] + 1), 1)
    for ref in (refs[99], refs[0], refs[50]):
        grants.end_access(A, ref, 1)
    assert extent.runs is runs
    left = [ref for ref in refs[:100] if ref not in (refs[0], refs[50], refs[99])]
    assert [runs[at].ref for at in range(len(runs))] == [*left, refs[100], refs[100] + 2]
