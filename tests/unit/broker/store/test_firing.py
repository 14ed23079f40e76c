"""Watches that hear of changes: so many at once, the others in turn and in order, whatever a multicall writes."""

import pytest

from hvd.broker.store import Store
from hvd.broker.store.events import WatchEvent
from hvd.broker.store.firing import LOOKS_PER_SLICE
from hvd.broker.store.quotas import UNPRIVILEGED
from hvd.transport.ids import DOM0, DomId

FIVE, SEVEN = DomId(5), DomId(7)
WATCHES = UNPRIVILEGED.watches_max
WRITES = 12


@pytest.fixture
def watched(store: Store) -> Store:
    """What FIVE has below `data` may be seen by SEVEN, and both watch it as often as they may."""
    store.mkdir(FIVE, 0, "data")
    store.set_perms(FIVE, 0, "data", ["n5", "r7"])
    for domid in (FIVE, SEVEN):
        for number in range(WATCHES):
            store.watch(domid, "/local/domain/5/data", f"w{number}")
    store.take_events()
    return store


def steps(store: Store) -> list[list[WatchEvent]]:
    """What is told by what has been carried out, and by each slice behind it."""
    told = [store.take_events()]
    while store.has_unsettled:
        store.settle()
        told.append(store.take_events())
    return told


def write_together(store: Store, *names: str) -> None:
    with store.together():
        for name in names:
            store.write(FIVE, 0, f"data/{name}", b"v")


def test_a_multicall_writes_all_at_once_and_no_step_tells_more_watches_than_a_slice_has(watched: Store) -> None:
    names = [f"k{number}" for number in range(WRITES)]
    write_together(watched, *names)
    assert watched.directory(DOM0, 0, "/local/domain/5/data") == names
    assert watched.is_settling(FIVE) and not watched.is_settling(SEVEN)
    told = steps(watched)
    assert max(map(len, told)) == LOOKS_PER_SLICE
    for domid in (FIVE, SEVEN):
        for number in range(WATCHES):
            heard = [e.path for each in told for e in each if (e.domid, e.token) == (domid, f"w{number}")]
            assert heard == [f"/local/domain/5/data/{name}" for name in names], "in the order of the writes"


def test_what_few_watch_is_told_at_once_also_in_a_multicall(store: Store) -> None:
    for number in range(LOOKS_PER_SLICE // WRITES):
        store.watch(FIVE, "data", f"w{number}")
    store.take_events()
    write_together(store, *[f"k{number}" for number in range(WRITES)])
    assert not store.has_unsettled
    assert len(store.take_events()) == LOOKS_PER_SLICE // WRITES * WRITES


def test_a_change_behind_one_that_is_not_told_yet_is_told_behind_it(watched: Store) -> None:
    watched.watch(DOM0, "/local/domain/5/other", "few")
    watched.take_events()
    with watched.together():
        for path in ("data/a", "data/b", "other"):
            watched.write(FIVE, 0, path, b"v")
    assert [event.token for each in steps(watched) for event in each][-1] == "few"


def test_each_call_that_is_made_by_itself_tells_as_many(watched: Store) -> None:
    for number in range(WATCHES):
        watched.unwatch(SEVEN, "/local/domain/5/data", f"w{number}")
    for name in "abc":
        watched.write(FIVE, 0, f"data/{name}", b"v")
        assert len(watched.take_events()) == WATCHES and not watched.has_unsettled


def test_a_removal_goes_on_when_those_have_heard_who_watch_what_it_has_removed_so_far(store: Store) -> None:
    for number in range(40):
        store.write(FIVE, 0, f"data/k{number}", b"v")
        for token in range(3):
            store.watch(FIVE, f"data/k{number}", f"{token}")
            store.watch(SEVEN, f"/local/domain/5/data/k{number}", f"{token}")
    store.set_perms(DOM0, 0, "/local/domain/5/data", ["n5", "r7"])
    store.take_events()
    store.rm(FIVE, 0, "data")
    told = steps(store)
    assert max(map(len, told)) <= LOOKS_PER_SLICE
    assert len([event for each in told for event in each if event.domid == FIVE]) == 40 * 3
    assert not store.check()


def test_whoever_takes_a_watch_back_meanwhile_hears_nothing_more_and_the_others_do(watched: Store) -> None:
    write_together(watched, "a", "b")
    watched.take_events()
    watched.close_connection(SEVEN, 0)
    assert {event.domid for each in steps(watched) for event in each} == {FIVE}


def test_a_slice_counts_those_who_may_not_hear_as_well(watched: Store) -> None:
    watched.set_perms(FIVE, 0, "data", ["n5"])
    steps(watched)
    watched.write(FIVE, 0, "data/secret", b"v")
    told = steps(watched)
    assert {event.domid for each in told for event in each} == {FIVE}
    assert len(told) == 1 + -(-(2 * WATCHES) // LOOKS_PER_SLICE)


def test_a_snapshot_has_everybody_told(watched: Store) -> None:
    write_together(watched, "a", "b")
    with watched.in_parts():
        assert not watched.has_unsettled
    assert len(watched.take_events()) == 4 * WATCHES
