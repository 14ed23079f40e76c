"""Rings against a plain model: any interleaving of both ends, and any words a hostile peer may write."""

import struct
from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st

from hvd.transport.errors import PeerFault, RingFull
from hvd.transport.rings import RING_HEADER_SIZE, BackRing, FrontRing

REQUEST_SIZE, RESPONSE_SIZE, SLOTS = 6, 3, 4
INDEX = st.integers(0, 2**32 - 1)
# Near the wrap, or anywhere.
START = st.one_of(st.integers(2**32 - 8, 2**32 - 1), INDEX)
STEPS = st.lists(
    st.tuples(st.sampled_from(["ask", "serve", "answer", "collect", "arm front", "arm back"]), st.integers(0, 5)),
    max_size=60,
)


def ring_pair(start, *, checked=False):
    memory = bytearray(RING_HEADER_SIZE + SLOTS * REQUEST_SIZE)
    after, check = (start + 1) % 2**32, 2**32 - 1 - start
    struct.pack_into("<4I4x2I", memory, 0, start, after, start, after, check, check)
    front = FrontRing(memory, REQUEST_SIZE, RESPONSE_SIZE, checked=checked)
    back = BackRing(memory, REQUEST_SIZE, RESPONSE_SIZE, checked=checked)
    front.attach(start)
    back.attach(start)
    return memory, front, back


class Direction:
    """The notification rule without modular arithmetic: `armed` is the number of the message, counted from the
    beginning, at which the consumer wants to be notified."""

    def __init__(self):
        self.pushed = 0
        self.popped = 0
        self.armed = 1
        self.queue: deque[bytes] = deque()

    def push(self, messages):
        self.queue.extend(messages)
        before, self.pushed = self.pushed, self.pushed + len(messages)
        return before < self.armed <= self.pushed

    def pop(self, limit):
        taken = [self.queue.popleft() for _ in range(min(limit, len(self.queue)))]
        self.popped += len(taken)
        return taken

    def final_check(self):
        if not self.queue:
            self.armed = self.popped + 1
        return bool(self.queue)


def numbered(direction, count, size):
    return [(direction.pushed + n).to_bytes(size, "big") for n in range(count)]


@given(START, st.booleans(), STEPS)
@settings(max_examples=300)
def test_a_ring_is_two_queues_whatever_the_interleaving(start, checked, steps):
    _, front, back = ring_pair(start, checked=checked)
    requests, responses = Direction(), Direction()
    for verb, count in steps:
        match verb:
            case "ask":
                messages = numbered(requests, min(count, SLOTS - (requests.pushed - responses.popped)), REQUEST_SIZE)
                excess = numbered(requests, count, REQUEST_SIZE)
                notify = requests.push(messages)
                assert front.push_many(b"".join(excess)) == (len(messages), notify)
            case "serve":
                assert back.pop_many(count) == b"".join(requests.pop(count))
            case "answer":
                messages = numbered(responses, min(count, requests.popped - responses.pushed), RESPONSE_SIZE)
                excess = numbered(responses, count, RESPONSE_SIZE)
                notify = responses.push(messages)
                assert back.push_many(b"".join(excess)) == (len(messages), notify)
            case "collect":
                assert front.pop_many(count) == b"".join(responses.pop(count))
            case "arm front":
                assert front.final_check() is responses.final_check()
            case "arm back":
                assert back.final_check() is requests.final_check()
        assert front.free == SLOTS - (requests.pushed - responses.popped)
        assert back.free == requests.popped - responses.pushed
        assert back.unconsumed == len(requests.queue)
        assert front.unconsumed == len(responses.queue)


@given(START, st.integers(0, SLOTS), st.data())
def test_any_index_is_a_possible_one_or_the_peers_fault(start, asked, data):
    memory, front, back = ring_pair(start)
    front.push_many(bytes(asked * REQUEST_SIZE))
    served = data.draw(st.integers(0, asked))
    back.pop_many(served)
    answered = data.draw(st.integers(0, served))
    back.push_many(bytes(answered * RESPONSE_SIZE))
    near = st.integers(-2 * SLOTS, 2 * SLOTS).map(lambda step: (start + step) % 2**32)
    words = data.draw(st.tuples(*[st.one_of(near, INDEX)] * 4))
    struct.pack_into("<4I", memory, 0, *words)
    check_claim(front, (words[2] - start) % 2**32, asked, RESPONSE_SIZE)
    check_claim(back, (words[0] - start - served) % 2**32, SLOTS - (served - answered), REQUEST_SIZE)


def check_claim(ring, claimed, most, size):
    try:
        popped = ring.pop_many()
    except PeerFault:
        assert claimed > most
    else:
        assert claimed <= most
        assert len(popped) == claimed * size


HOSTILE = st.tuples(st.integers(0, RING_HEADER_SIZE + SLOTS * REQUEST_SIZE - 4), st.binary(min_size=1, max_size=4))
USES = {
    "push": lambda ring: ring.push(b"abc"),
    "push_many": lambda ring: ring.push_many(b"abcdef"),
    "pop": lambda ring: ring.pop(),
    "pop_many": lambda ring: ring.pop_many(),
    "final_check": lambda ring: ring.final_check(),
    "unconsumed": lambda ring: ring.unconsumed,
}


@given(START, st.booleans(), st.lists(st.one_of(HOSTILE, st.sampled_from(sorted(USES))), max_size=40))
@settings(max_examples=300)
def test_a_peer_that_scribbles_over_the_ring_is_at_worst_a_peer_fault(start, is_front, steps):
    memory, front, back = ring_pair(start)
    ring = front if is_front else back
    broken = False
    for step in steps:
        if isinstance(step, tuple):
            offset, scribble = step
            memory[offset : offset + len(scribble)] = scribble
            continue
        try:
            USES[step](ring)
        except RingFull:
            assert not broken
        except PeerFault:
            broken = True
        else:
            assert not broken, "what the peer broke stays closed"
