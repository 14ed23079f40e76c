"""Our rings against C compiled from Xen's own public/io/ring.h: the same steps, and after each the same bytes.

Four pairs take every step side by side, each in its own memory: C with C, ours with ours, our front with C's back, and
C's front with our back. They must give the same answers and leave the same bytes, slots included.
"""

import ctypes
import random
import struct
from pathlib import Path
from typing import Any

import pytest

from hvd.transport.errors import PeerFault
from hvd.transport.pages import PAGE_SIZE
from hvd.transport.rings import BackRing, FrontRing, ring_size

HEADER = Path("/usr/include/xen/io/ring.h")
SOURCE = Path(__file__).with_name("xen_ring.c")
SHAPES = {"blkif": (112, 16, 112), "netif_tx": (12, 4, 12), "lines": (64, 64, 64), "odd": (7, 13, 13)}
STEPS = 600


@pytest.fixture(scope="module")
def xen(compile_native):
    if not HEADER.exists():
        pytest.skip(f"{HEADER} is absent: install libxen-dev for the differential test against Xen's own macros")
    # Xen's headers are not written for -Wextra and -Wconversion.
    flags = ("-O2", "-shared", "-fPIC", "-Wno-conversion", "-Wno-sign-conversion", "-Wno-extra", "-Wno-unused")
    return ctypes.CDLL(str(compile_native(SOURCE, "gcc", *flags)))


class XenEnd:
    """One end by Xen's macros. They check nothing, so what they would overrun is asked of them before."""

    def __init__(self, library, tag, end, memory):
        self._call = lambda verb, *arguments: getattr(library, f"{tag}_{end}_{verb}")(*arguments)
        self._page = (ctypes.c_char * len(memory)).from_buffer(memory)
        self._state = ctypes.create_string_buffer(self._call("state_size"))
        sizes = getattr(library, f"{tag}_request_size")(), getattr(library, f"{tag}_response_size")()
        self._out_size, self._in_size = sizes if end == "front" else reversed(sizes)

    def init(self):
        self._call("init", self._state, self._page, ctypes.c_size_t(len(self._page)))

    def attach(self, index):
        self._call("attach", self._state, self._page, ctypes.c_uint32(index), ctypes.c_size_t(len(self._page)))

    @property
    def size(self):
        return self._call("size", self._state)

    @property
    def unconsumed(self):
        return self._call("unconsumed", self._state)

    def refuses(self):
        return bool(self._call("refuses", self._state))

    def push_many(self, messages):
        return bool(self._call("push", self._state, messages, len(messages) // self._out_size))

    def pop_many(self, limit):
        count = min(limit, self.unconsumed)
        messages = ctypes.create_string_buffer(max(1, count * self._in_size))
        self._call("pop", self._state, messages, count)
        return messages.raw[: count * self._in_size]

    def final_check(self):
        return bool(self._call("final_check", self._state))


class OurEnd:
    def __init__(self, ring):
        self._ring = ring

    def push_many(self, messages):
        return self._ring.push_many(messages)[1]

    def __getattr__(self, name):
        return getattr(self._ring, name)


class Pair:
    def __init__(self, library, tag, kinds, pages, start):
        front, back = kinds
        self.memory = bytearray(pages * PAGE_SIZE)
        ours = {"front": FrontRing, "back": BackRing}

        def end_of(kind, end):
            if kind == "C":
                return XenEnd(library, tag, end, self.memory)
            return OurEnd(ours[end](self.memory, *SHAPES[tag]))

        self.name = f"{front} front, {back} back"
        self.front, self.back = end_of(front, "front"), end_of(back, "back")
        self.front.init()
        struct.pack_into("<4I", self.memory, 0, start, (start + 1) % 2**32, start, (start + 1) % 2**32)
        self.front.attach(start)
        self.back.attach(start)


def pairs_of(library, tag, pages, start):
    kinds = [("C", "C"), ("our", "our"), ("our", "C"), ("C", "our")]
    return [Pair(library, tag, pair, pages, start) for pair in kinds]


def step(pair, verb, argument):
    return getattr(getattr(pair, verb[0]), verb[1])(*argument)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_shapes_are_those_of_the_c_compiler(xen, shape):
    sizes = tuple(getattr(xen, f"{shape}_{name}_size")() for name in ("request", "response", "slot"))
    assert sizes == SHAPES[shape]


@pytest.mark.parametrize("pages", [1, 2, 8])
@pytest.mark.parametrize("shape", SHAPES)
def test_rings_have_the_same_number_of_slots(xen, shape, pages):
    reference, *others = pairs_of(xen, shape, pages, 0)
    slots = reference.front.size
    assert slots == reference.back.size == ring_size(pages, SHAPES[shape][2])
    for pair in others:
        assert (pair.front.size, pair.back.size) == (slots, slots), pair.name


@pytest.mark.parametrize("start", [0, 0xFFFF_FFF0, 0x7FFF_FFF0], ids=hex)
@pytest.mark.parametrize("pages", [1, 4])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_step_leaves_the_same_bytes(xen, shape, pages, start):
    reference, *others = pairs = pairs_of(xen, shape, pages, start)
    assert len({bytes(pair.memory) for pair in pairs}) == 1
    request_size, response_size, _ = SHAPES[shape]
    source = random.Random(f"{shape} {pages} {start}")
    asked = served = answered = collected = 0
    for number in range(STEPS):
        argument: tuple[Any, ...]
        match source.choice(("ask", "serve", "answer", "collect", "arm front", "arm back")):
            case "ask":
                count = source.randint(0, min(40, reference.front.size - (asked - collected)))
                verb, argument = ("front", "push_many"), (source.randbytes(count * request_size),)
                asked += count
            case "serve":
                count = source.randint(0, min(40, asked - served))
                verb, argument = ("back", "pop_many"), (count,)
                served += count
            case "answer":
                count = source.randint(0, min(40, served - answered))
                verb, argument = ("back", "push_many"), (source.randbytes(count * response_size),)
                answered += count
            case "collect":
                count = source.randint(0, min(40, answered - collected))
                verb, argument = ("front", "pop_many"), (count,)
                collected += count
            case "arm front":
                verb, argument = ("front", "final_check"), ()
            case "arm back":
                verb, argument = ("back", "final_check"), ()
        if argument == (b"",):
            continue  # C's macros publish nothing for it, and ours need not
        expected = step(reference, verb, argument)
        for pair in others:
            assert step(pair, verb, argument) == expected, (number, verb, pair.name)
            assert pair.memory == reference.memory, (number, verb, pair.name)
            assert pair.front.unconsumed == reference.front.unconsumed
            assert pair.back.unconsumed == reference.back.unconsumed
    assert collected > 2 * 16, "the indices passed their wrap"


@pytest.mark.parametrize("shape", ["blkif", "odd"])
def test_a_back_attached_to_a_ring_in_use_goes_on_as_cs_does(xen, shape):
    request_size, response_size, _ = SHAPES[shape]
    pairs = pairs_of(xen, shape, 1, 0xFFFF_FFFA)
    results = []
    for pair in pairs:
        pair.front.push_many(b"q" * (8 * request_size))
        pair.back.pop_many(5)
        pair.back.push_many(b"r" * (3 * response_size))
        pair.back.attach(struct.unpack_from("<I", pair.memory, 8)[0])  # rsp_prod, as a restarted backend reads it
        seen = pair.back.pop_many(99)
        notify = pair.back.push_many(b"s" * (5 * response_size))
        results.append((seen, notify, pair.front.pop_many(99), bytes(pair.memory)))
    assert all(result == results[0] for result in results)


@pytest.mark.parametrize("ahead", [0, 1, 31, 32, 33, 2**31, 2**32 - 1])
def test_what_xen_calls_an_overflow_we_call_the_peers_fault(xen, ahead):
    c, ours, *_ = pairs_of(xen, "blkif", 1, 0xFFFF_FFF0)
    for pair in (c, ours):
        struct.pack_into("<I", pair.memory, 0, (0xFFFF_FFF0 + ahead) % 2**32)
    if c.back.refuses():
        with pytest.raises(PeerFault):
            ours.back.pop_many(99)
    else:
        assert ours.back.pop_many(99) == c.back.pop_many(99)


@pytest.mark.parametrize("ahead", [33, 2**31, 2**32 - 1])
def test_a_response_overflow_by_xens_rule_is_one_by_ours(xen, ahead):
    c, ours, *_ = pairs_of(xen, "blkif", 1, 0)
    for pair in (c, ours):
        pair.front.push_many(bytes(32 * 112))
        struct.pack_into("<I", pair.memory, 8, ahead)
    assert c.front.refuses()
    with pytest.raises(PeerFault):
        ours.front.pop_many(99)
