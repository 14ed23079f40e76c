"""A domain's waiting watch events: in order, each once, never more than a bound, and none lost with a broker."""

import pytest

from hvd.broker.upcalls import FOLLOWS_MAX, OVERFLOW, UpcallQueue
from hvd.transport.limits import EVENTS_PENDING_BYTES_MAX, EVENTS_PENDING_MAX


@pytest.fixture
def queue():
    return UpcallQueue()


def add(queue, *names):
    for name in names:
        queue.add(f"/{name}", "t")


def sent(queue):
    taken = []
    while (event := queue.take()) is not None:
        taken.append((event[0], event[1].removeprefix("/")))
    return taken


def received(*batches):
    """What a domain makes of numbered events: it drops every number that is not above all it has seen."""
    seen, names = 0, []
    for number, name in (event for batch in batches for event in batch):
        if number > seen:
            seen = number
            names.append(name)
    return names


def test_events_are_numbered_in_the_order_they_fired(queue):
    add(queue, "a", "b")
    assert sent(queue) == [(1, "a"), (2, "b")]
    add(queue, "a")
    assert sent(queue) == [(3, "a")]


def test_an_event_that_repeats_one_not_sent_yet_takes_its_place_and_leaves_a_gap(queue):
    add(queue, "a", "b", "a")
    assert sent(queue) == [(2, "b"), (3, "a")]


def test_the_same_path_under_another_token_is_another_event(queue):
    queue.add("/a", "t")
    queue.add("/a", "u")
    assert [queue.take(), queue.take()] == [(1, "/a", "t"), (2, "/a", "u")]


def test_an_event_that_the_socket_did_not_take_is_the_next_again(queue):
    add(queue, "a", "b")
    queue.take()
    queue.put_back()
    assert not queue.unacknowledged
    assert sent(queue) == [(1, "a"), (2, "b")]


def test_what_a_domain_has_seen_is_forgotten(queue):
    add(queue, "a", "b", "c")
    sent(queue)
    queue.acknowledge(2, 0)
    assert [number for number, _, _ in queue.unacknowledged] == [3]
    queue.acknowledge(10**12, 0)
    assert not queue.unacknowledged


def test_after_a_brokers_death_what_was_not_acknowledged_is_sent_again(queue):
    add(queue, "a", "b", "c")
    first = sent(queue)
    queue.acknowledge(1, 0)
    add(queue, "d")
    queue.send_again()
    again = sent(queue)
    assert again == [(2, "b"), (3, "c"), (4, "d")]
    assert received(first, again) == ["a", "b", "c", "d"]


def test_an_event_that_fired_again_does_not_push_an_older_one_out_of_the_order(queue):
    """Numbers must rise: whoever has seen 3 drops 2."""
    add(queue, "a")
    sent(queue)
    add(queue, "b")
    sent(queue)
    add(queue, "a")
    sent(queue)
    queue.send_again()
    assert sent(queue) == [(2, "b"), (3, "a")]


def test_what_was_acknowledged_before_it_was_sent_by_this_broker_is_not_sent(queue):
    """After a replay everything counts as unsent, the domain has seen it all the same."""
    add(queue, "a", "b", "c")
    queue.acknowledge(2, 0)
    assert sent(queue) == [(3, "c")]


def test_too_many_events_become_one_that_says_so_and_later_ones_follow_it(queue):
    add(queue, *(f"n{n}" for n in range(EVENTS_PENDING_MAX)))
    assert len(queue.unsent) == EVENTS_PENDING_MAX
    add(queue, "one more", "and another")
    events = [queue.take(), queue.take(), queue.take()]
    assert [event and event[1:] for event in events] == [OVERFLOW, ("/and another", "t"), None]
    assert events[0] is not None
    assert events[0][0] == EVENTS_PENDING_MAX + 1


def test_events_that_were_sent_and_not_acknowledged_count_too(queue):
    add(queue, *(f"n{n}" for n in range(EVENTS_PENDING_MAX)))
    sent(queue)
    add(queue, "one more")
    assert list(queue.unsent) == [OVERFLOW]
    assert not queue.unacknowledged


LONG = "n" * 2000
FIT = EVENTS_PENDING_BYTES_MAX // len(f"/{LONG}00")


def test_events_of_long_paths_are_fewer(queue):
    """A thousand of the longest paths took 2 MiB of the broker's."""
    add(queue, *(f"{LONG}{number:02}" for number in range(FIT)))
    assert len(queue.unsent) == FIT
    add(queue, f"{LONG}99")
    assert list(queue.unsent) == [OVERFLOW]


def test_paths_that_were_taken_and_acknowledged_or_fired_again_count_no_more(queue):
    for number in range(3 * FIT):
        add(queue, f"{LONG}{number:02}", f"{LONG}{number:02}")
        if number % 3:
            queue.take()
        if number % 7 == 6:
            queue.acknowledge(queue.last, 0)
        assert OVERFLOW not in queue.unsent
        waiting = [*queue.unsent, *(event[1:] for event in queue.unacknowledged)]
        assert queue.path_bytes == sum(len(path) for path, _ in waiting)
    queue.send_again()
    assert queue.path_bytes == sum(len(path) for path, _ in queue.unsent)


def test_a_repeated_event_does_not_count_twice(queue):
    add(queue, *(["a"] * 10 * EVENTS_PENDING_MAX))
    assert sent(queue) == [(10 * EVENTS_PENDING_MAX, "a")]


def test_a_domain_cannot_acknowledge_descriptors_that_were_not_sent_nor_take_it_back(queue):
    queue.descriptors_sent = 5
    queue.acknowledge(0, 3)
    assert queue.descriptors_received == 3
    queue.acknowledge(0, 1)
    assert queue.descriptors_received == 3
    queue.acknowledge(0, 2**60)
    assert queue.descriptors_received == 5


def test_a_token_brings_its_directory_until_it_is_watched_no_more(queue):
    queue.follow("t", "/a")
    before = queue.follows
    queue.follow("u", "/b")
    queue.unfollow("t")
    queue.unfollow("never")
    assert queue.follows == {"u": "/b"}
    assert before == {"t": "/a"}


def test_so_many_tokens_bring_their_directories_and_no_more(queue):
    for number in range(FOLLOWS_MAX + 1):
        queue.follow(str(number), "/a")
    assert len(queue.follows) == FOLLOWS_MAX
    assert str(FOLLOWS_MAX) not in queue.follows
