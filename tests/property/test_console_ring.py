"""Console rings against a plain model: any interleaving of both ends, and any words a hostile peer may write."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvd.transport.errors import LocalError, PeerFault
from hvd.transport.protocols.console import IN_SIZE, INTERFACE_SIZE, OUT_SIZE, ConsoleBack, ConsoleFront

INDICES_AT = 3072
INDEX = st.integers(0, 2**32 - 1)
# Near the wrap, or anywhere.
START = st.one_of(st.integers(2**32 - 3000, 2**32 - 1), INDEX)
STEPS = st.lists(
    st.tuples(st.sampled_from(["print", "take", "look", "type", "read"]), st.integers(0, 3000)), max_size=60
)


def console_at(start_in, start_out):
    memory = bytearray(INTERFACE_SIZE)
    struct.pack_into("<4I", memory, INDICES_AT, start_in, start_in, start_out, start_out)
    return memory, ConsoleFront(memory), ConsoleBack(memory)


class Stream:
    """One direction as a plain queue of numbered bytes."""

    def __init__(self, size):
        self.size = size
        self.queue = b""
        self.written = 0

    def offer(self, count):
        """The bytes to write, and how many of them have room."""
        data = bytes((self.written + n) % 251 for n in range(count))
        fits = min(count, self.size - len(self.queue))
        self.queue += data[:fits]
        self.written += fits
        return data, fits

    def take(self, limit):
        taken, self.queue = self.queue[:limit], self.queue[limit:]
        return taken


@given(START, START, STEPS)
@settings(max_examples=300)
def test_a_console_is_two_byte_queues_whatever_the_interleaving(start_in, start_out, steps):
    _, front, back = console_at(start_in, start_out)
    printed, typed = Stream(OUT_SIZE), Stream(IN_SIZE)
    for verb, count in steps:
        match verb:
            case "print":
                data, fits = printed.offer(count)
                assert front.write(data) == fits
            case "take":
                assert back.read(count) == printed.take(count)
            case "look":
                assert back.peek() == printed.queue
                back.consume(min(count, len(printed.queue)))
                printed.take(count)
            case "type":
                data, fits = typed.offer(count)
                assert back.write(data) == fits
            case "read":
                assert front.read(count) == typed.take(count)
        assert front.in_flight == back.unconsumed == len(printed.queue)
        assert back.in_flight == front.unconsumed == len(typed.queue)
        assert (front.free, back.free) == (OUT_SIZE - len(printed.queue), IN_SIZE - len(typed.queue))
        assert front.undelivered() == printed.queue


@given(START, st.integers(0, OUT_SIZE), st.integers(0, OUT_SIZE))
def test_a_back_that_attaches_later_goes_on_where_its_predecessor_stopped(start, printed, taken):
    memory, front, old = console_at(0, start)
    text = bytes(n % 251 for n in range(printed))
    front.write(text)
    old.read(taken)
    assert ConsoleBack(memory).read(OUT_SIZE) == text[taken:]


@given(START, START, st.tuples(INDEX, INDEX, INDEX, INDEX), st.binary(max_size=50))
@settings(max_examples=300)
def test_hostile_words_are_the_peers_fault_or_bounded(start_in, start_out, words, data):
    """PeerFault for an index that leaves the protocol, and never more bytes than a ring holds."""
    for end, other_size in ((ConsoleFront, IN_SIZE), (ConsoleBack, OUT_SIZE)):
        memory, front, back = console_at(start_in, start_out)
        ring = front if end is ConsoleFront else back
        ring.write(data)
        struct.pack_into("<4I", memory, INDICES_AT, *words)
        try:
            assert len(ring.peek()) <= other_size
            ring.write(data)
            assert ring.in_flight <= (OUT_SIZE if end is ConsoleFront else IN_SIZE)
        except PeerFault:
            with pytest.raises(PeerFault):
                ring.peek()


@pytest.mark.parametrize("ahead", [OUT_SIZE + 1, 2**31, 2**32 - 1])
def test_a_producer_that_jumps_ahead_is_refused_from_then_on(ahead):
    memory, _, back = console_at(0, 7)
    struct.pack_into("<I", memory, INDICES_AT + 12, (7 + ahead) % 2**32)
    with pytest.raises(PeerFault, match="produced up to index"):
        back.peek()
    struct.pack_into("<I", memory, INDICES_AT + 12, 7)
    with pytest.raises(PeerFault):
        back.write(b"x")


@pytest.mark.parametrize("consumed", [4, 11, 2**31, 2**32 - OUT_SIZE + 2])
def test_a_consumer_that_takes_what_was_never_written_is_refused(consumed):
    memory, front, _ = console_at(0, 7)
    front.write(b"abc")
    struct.pack_into("<I", memory, INDICES_AT + 8, (7 + consumed) % 2**32)
    with pytest.raises(PeerFault, match="consumed up to index"):
        front.write(b"d")


@given(st.tuples(START, START), st.integers(0, 31), st.integers(0, 3), st.integers(0, OUT_SIZE))
@settings(max_examples=300)
def test_any_bit_of_any_index_is_found_by_whose_it_is_though_nothing_is_to_be_moved(starts, bit, number, count):
    memory, front, back = console_at(*starts)
    front.write(bytes(count))
    back.write(bytes(count))
    for end in (front, back):
        end.check()
    memory[INDICES_AT + 4 * number + bit // 8] ^= 1 << bit % 8
    owner = front if number in (0, 3) else back
    with pytest.raises(PeerFault, match="was changed into"):
        owner.check()
    with pytest.raises(PeerFault):
        owner.write(b"x")


@pytest.mark.parametrize("change", ["in_flight", "unconsumed", "consume"])
def test_an_index_of_ours_is_looked_at_before_it_is_relied_on_and_before_it_is_written_anew(change):
    memory, front, back = console_at(0, 0)
    front.write(b"four")
    assert back.peek() == b"four"
    struct.pack_into("<4I", memory, INDICES_AT, 0, 1, 1, 4)
    with pytest.raises(PeerFault, match="was changed into 1"):
        back.consume(4) if change == "consume" else getattr(back, change)


def test_what_was_seen_can_be_consumed_though_the_peer_takes_it_back():
    memory, front, back = console_at(0, 0)
    front.write(b"seen")
    assert back.peek() == b"seen"
    struct.pack_into("<I", memory, INDICES_AT + 12, 0)
    back.consume(4)
    with pytest.raises(PeerFault):
        back.peek()


def test_nobody_consumes_what_was_not_seen():
    _, front, back = console_at(0, 0)
    front.write(b"four")
    with pytest.raises(LocalError, match="0 were seen"):
        back.consume(1)
    back.peek()
    with pytest.raises(LocalError, match="4 were seen"):
        back.consume(5)


@pytest.mark.parametrize("memory", [bytearray(INTERFACE_SIZE - 1), memoryview(bytearray(5000))[1:], bytes(5000)])
def test_memory_that_holds_no_console_is_refused(memory):
    with pytest.raises(LocalError):
        ConsoleFront(memory)


def test_a_closed_ring_is_ours_to_blame_and_lets_go_of_its_memory():
    memory, front, back = console_at(0, 0)
    front.close()
    back.close()
    memory.extend(b"resizable again")
    with pytest.raises(LocalError, match="is closed"):
        front.write(b"x")
