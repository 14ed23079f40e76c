"""Following a buffer: every record is read once or counted as missing, whatever its writer does meanwhile."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvd.toolstack.trace.track import IN_FLIGHT_MAX, JUMP_MAX, KEPT_MAX, Track
from hvd.transport.ids import DomId, Incarnation
from hvd.transport.limits import TRACE_READ_RECORDS_MAX, TRACE_RECORDS
from hvd.transport.trace import RECORD, Kind, Slots

NOW = 1 << 40


class Ring:
    """A buffer as its domain sees it: `begun` records, of which those in `unfinished` are not whole."""

    def __init__(self) -> None:
        self.begun = 0
        self.unfinished: set[int] = set()
        self.slots = [bytes(RECORD.size)] * TRACE_RECORDS

    def write(self, count: int, *, finish: bool = True, kind: int = Kind.NOTIFY, ticks: int | None = None) -> None:
        for n in range(self.begun, self.begun + count):
            sequence = n + 1 if finish else 0
            at = n if ticks is None else ticks
            self.slots[n % TRACE_RECORDS] = RECORD.pack(sequence, at, n, 1, 0, kind)
        self.begun += count

    def copy(self, first: int, written_meanwhile: int = 0) -> Slots:
        head = self.begun
        numbers = range(first, min(head, first + TRACE_READ_RECORDS_MAX))
        self.write(written_meanwhile)
        return Slots(head, first, b"".join(self.slots[n % TRACE_RECORDS] for n in numbers), self.begun)


def track() -> Track:
    return Track(DomId(1), Incarnation(1), "guest", 0)


def read(followed: Track, ring: Ring, *, final: bool = False, written_meanwhile: int = 0) -> None:
    first = followed.first_wanted(ring.begun, final=final)
    while first is not None:
        followed.take(ring.copy(first, written_meanwhile), NOW, final=final)
        if followed.next == first:
            return
        first = followed.first_wanted(max(ring.begun, followed.next), final=final)


def test_what_was_written_is_read_once_and_in_order():
    followed, ring = track(), Ring()
    for count in (3, 0, 5000, 1):
        ring.write(count)
        read(followed, ring)
    assert [event.id for event in followed.events] == list(range(5004))
    assert (followed.lost, followed.torn, followed.spoiled) == (0, 0, False)


@given(st.lists(st.tuples(st.integers(0, 3 * TRACE_RECORDS), st.integers(0, TRACE_RECORDS // 4)), max_size=6))
def test_every_record_is_read_or_counted_and_none_is_another_than_it_says(steps):
    followed, ring = track(), Ring()
    for count, meanwhile in steps:
        ring.write(count)
        first = followed.first_wanted(ring.begun, final=False)
        if first is not None:
            followed.take(ring.copy(first, meanwhile), NOW, final=False)
    read(followed, ring, final=True)
    assert len(followed.events) + followed.lost == ring.begun
    assert all(event.id == event.ticks for event in followed.events)
    assert (followed.torn, followed.senseless, followed.head_jumped) == (0, 0, False)
    assert sum(count for _, count in followed.gaps) == followed.lost
    ids = [event.id for event in followed.events]
    assert ids == sorted(set(ids))


def test_a_writer_that_laps_the_reader_costs_what_it_overwrote_and_the_track_says_where():
    followed, ring = track(), Ring()
    ring.write(10)
    read(followed, ring)
    ring.write(3 * TRACE_RECORDS)
    read(followed, ring, final=True)
    assert followed.lost == 2 * TRACE_RECORDS
    assert followed.gaps == [(9, 2 * TRACE_RECORDS)]
    assert len(followed.events) == 10 + TRACE_RECORDS


def test_what_is_overwritten_while_it_is_copied_is_lost_and_never_taken_for_whole():
    followed, ring = track(), Ring()
    ring.write(TRACE_RECORDS)
    first = followed.first_wanted(ring.begun, final=True)
    assert first == 0
    followed.take(ring.copy(first, written_meanwhile=7), NOW, final=False)
    assert followed.lost == 7
    assert followed.events[0].id == 7


def test_a_record_in_the_making_is_read_when_it_is_whole():
    followed, ring = track(), Ring()
    ring.write(2)
    ring.write(1, finish=False)
    ring.write(1)
    read(followed, ring)
    assert [event.id for event in followed.events] == [0, 1]
    ring.begun = 2
    ring.write(2)
    read(followed, ring)
    assert [event.id for event in followed.events] == [0, 1, 2, 3]
    assert followed.torn == 0


def test_a_record_whose_writer_died_over_it_is_torn_and_those_behind_it_are_read():
    followed, ring = track(), Ring()
    ring.write(1, finish=False)
    ring.write(2)
    read(followed, ring, final=True)
    assert (followed.torn, [event.id for event in followed.events]) == (1, [1, 2])
    assert not followed.spoiled


def test_a_record_that_was_begun_over_an_old_one_and_never_written_is_torn_and_not_the_old_one_again():
    followed, ring = track(), Ring()
    ring.write(TRACE_RECORDS)
    read(followed, ring, final=True)
    ring.begun += 1
    read(followed, ring, final=True)
    assert (followed.torn, len(followed.events)) == (1, TRACE_RECORDS)


def test_nobody_waits_for_ever_for_one_record_of_a_domain_that_goes_on():
    followed, ring = track(), Ring()
    ring.write(1, finish=False)
    ring.write(IN_FLIGHT_MAX)
    read(followed, ring)
    assert (followed.torn, len(followed.events)) == (1, IN_FLIGHT_MAX)


@pytest.mark.parametrize("record", [{"kind": 0}, {"kind": 255}, {"ticks": NOW + 1}])
def test_a_whole_record_that_cannot_be_is_not_shown_and_counts_against_its_domain(record):
    followed, ring = track(), Ring()
    ring.write(1, **record)
    ring.write(1)
    read(followed, ring)
    assert (followed.senseless, len(followed.events), followed.spoiled) == (1, 1, True)


def test_a_record_older_than_the_trace_is_senseless():
    followed, ring = Track(DomId(1), Incarnation(1), "guest", 100), Ring()
    ring.write(1, ticks=99)
    ring.write(1, ticks=100)
    read(followed, ring)
    assert (followed.senseless, [event.ticks for event in followed.events]) == (1, [100])


@pytest.mark.parametrize("head", [0, JUMP_MAX * 3, 2**64 - 1])
def test_a_head_that_goes_back_or_beyond_all_counting_is_noticed(head):
    followed, ring = track(), Ring()
    ring.write(5)
    read(followed, ring)
    assert followed.first_wanted(head, final=False) is None
    assert followed.spoiled
    assert followed.next < 2**63
    assert followed.lost == 0


def test_random_bytes_are_survived():
    source = random.Random(20261125)
    followed = track()
    for _ in range(200):
        head = source.choice([source.randrange(2**64), source.randrange(1 << 20)])
        first = followed.first_wanted(head, final=source.random() < 0.5)
        if first is not None:
            data = source.randbytes(RECORD.size * source.randrange(100))
            followed.take(Slots(head, first, data, source.randrange(2**64)), NOW, final=source.random() < 0.5)
        assert followed.next < 2**63
    assert followed.spoiled


def test_a_track_keeps_the_newest_records_and_counts_the_others():
    followed, ring = track(), Ring()
    for _ in range(0, KEPT_MAX + 4096, 4096):
        ring.write(4096)
        read(followed, ring)
    assert len(followed.events) == KEPT_MAX
    assert followed.events[-1].id == KEPT_MAX + 4095
    assert followed.lost == 4096
