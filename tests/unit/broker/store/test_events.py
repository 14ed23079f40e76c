"""Events that wait: in order, each once, bounded."""

import pytest

from hvd.broker.store import Store, StoreError, WatchEvent
from hvd.broker.store.events import Events
from hvd.broker.store.watches import Watch
from hvd.transport.ids import DOM0, DomId

FIVE, SEVEN = DomId(5), DomId(7)
ALL = Watch(FIVE, "/local/domain/5", "all", relative=True)
DATA = Watch(FIVE, "/data", "data", relative=False)
OTHER = Watch(SEVEN, "/data", "data", relative=False)


def test_events_come_in_firing_order_and_are_taken_once() -> None:
    events = Events()
    for watch, path in ((DATA, "/data/b"), (OTHER, "/data/a"), (DATA, "/data/a")):
        events.add(watch, path, 10)
    assert (events.count(FIVE), events.count(SEVEN)) == (2, 1)
    assert [(event.domid, event.path) for event in events.take()] == [(5, "/data/b"), (7, "/data/a"), (5, "/data/a")]
    assert events.take() == []
    assert (events.count(FIVE), events.count(SEVEN)) == (0, 0)


def test_xsa_349_equal_events_that_wait_are_one_until_it_is_taken() -> None:
    events = Events()
    for _ in range(1000):
        events.add(DATA, "/data/state", 10)
        events.add(OTHER, "/data/state", 10)
    assert events.take() == [WatchEvent(FIVE, "/data/state", "data"), WatchEvent(SEVEN, "/data/state", "data")]
    events.add(DATA, "/data/state", 10)
    assert events.take() == [WatchEvent(FIVE, "/data/state", "data")]


def test_beyond_the_bound_an_event_says_only_which_watch_it_was() -> None:
    events = Events()
    for number in range(100):
        events.add(ALL, f"/local/domain/5/{number}", 3)
        events.add(DATA, f"/data/{number}", 3)
        events.add(OTHER, f"/data/{number}", 200)
    taken = events.take()
    assert [event[1:3] for event in taken if event.domid == FIVE] == [
        ("0", "all"),
        ("/data/0", "data"),
        ("1", "all"),
        ("/data", "data"),
        ("", "all"),
    ]
    assert sum(event.domid == SEVEN for event in taken) == 100
    assert events.shortened == 197


def test_a_dropped_domains_events_are_gone_and_others_stay() -> None:
    events = Events()
    events.add(DATA, "/data/a", 10)
    events.add(OTHER, "/data/a", 10)
    events.drop(FIVE)
    events.drop(FIVE)
    assert events.count(FIVE) == 0
    assert events.take() == [WatchEvent(SEVEN, "/data/a", "data")]


def test_a_guest_with_too_many_events_waiting_cannot_watch_more_to_get_more(small_store: Store) -> None:
    small_store.set_perms(DOM0, 0, "/local/domain/5", ["b5"])
    small_store.watch(FIVE, "data", "t")
    for number in range(20):
        small_store.write(DOM0, 0, f"/local/domain/5/data/{number}", b"")
    assert small_store.statistics().domains[FIVE].events == 4
    small_store.unwatch(FIVE, "data", "t")
    with pytest.raises(StoreError, match="ENOSPC: "):
        small_store.watch(FIVE, "data", "t")
    assert [event.path for event in small_store.take_events()] == ["data", "data/0", "data/1", "data/2"]
    small_store.watch(FIVE, "data", "t")
