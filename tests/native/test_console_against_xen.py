"""Our console ring against C over Xen's own public/io/console.h: the same steps, and after each the same bytes.

Four pairs take every step side by side, each in its own memory: C with C, ours with ours, our front with C's back, and
C's front with ours. They must give the same answers and leave the same bytes.
"""

import ctypes
import random
import struct
from pathlib import Path

import pytest

from hvd.transport.protocols.console import IN_SIZE, INTERFACE_SIZE, OUT_SIZE, ConsoleBack, ConsoleFront

HEADER = Path("/usr/include/xen/io/console.h")
SOURCE = Path(__file__).with_name("xen_console.c")
INDICES_AT = 3072
STEPS = 400


@pytest.fixture(scope="module")
def xen(compile_native):
    if not HEADER.exists():
        pytest.skip(f"{HEADER} is absent: install libxen-dev for the differential test against Xen's own struct")
    # Xen's headers are not written for -Wextra and -Wconversion.
    flags = ("-O2", "-shared", "-fPIC", "-Wno-conversion", "-Wno-sign-conversion", "-Wno-extra", "-Wno-sign-compare")
    return ctypes.CDLL(str(compile_native(SOURCE, "gcc", *flags)))


class XenEnd:
    def __init__(self, library, name, memory):
        self._call = lambda verb, *arguments: getattr(library, f"{name}_{verb}")(*arguments)
        self._page = (ctypes.c_char * len(memory)).from_buffer(memory)

    def write(self, data):
        return self._call("write", self._page, data, len(data))

    def read(self, limit):
        taken = ctypes.create_string_buffer(max(1, limit))
        count = self._call("read", self._page, taken, limit)
        return taken.raw[:count]


class Pair:
    def __init__(self, library, front, back, starts):
        self.memory = bytearray(INTERFACE_SIZE)
        struct.pack_into("<4I", self.memory, INDICES_AT, starts[0], starts[0], starts[1], starts[1])
        self.name = f"{front} front, {back} back"
        self.front = XenEnd(library, "front", self.memory) if front == "C" else ConsoleFront(self.memory)
        self.back = XenEnd(library, "back", self.memory) if back == "C" else ConsoleBack(self.memory)


def pairs_of(library, starts):
    return [Pair(library, *ends, starts) for ends in (("C", "C"), ("our", "our"), ("our", "C"), ("C", "our"))]


def test_the_layout_is_that_of_the_c_compiler(xen):
    assert (xen.interface_size(), xen.in_size(), xen.out_size()) == (INTERFACE_SIZE, IN_SIZE, OUT_SIZE)
    offsets = tuple(getattr(xen, f"{name}_at")() for name in ("in_cons", "in_prod", "out_cons", "out_prod"))
    assert offsets == (INDICES_AT, INDICES_AT + 4, INDICES_AT + 8, INDICES_AT + 12)


@pytest.mark.parametrize("starts", [(0, 0), (0xFFFF_FF00, 0xFFFF_F900), (0x7FFF_FFF0, 1)], ids=str)
def test_every_step_leaves_the_same_bytes(xen, starts):
    reference, *others = pairs_of(xen, starts)
    source = random.Random(f"{starts}")
    moved = 0
    for number in range(STEPS):
        end, verb = source.choice(("front", "back")), source.choice(("write", "read"))
        argument = source.randbytes(source.randint(0, 1500)) if verb == "write" else source.randint(0, 3000)
        expected = getattr(getattr(reference, end), verb)(argument)
        moved += expected if verb == "write" else 0
        for pair in others:
            assert getattr(getattr(pair, end), verb)(argument) == expected, (number, end, verb, pair.name)
            assert pair.memory == reference.memory, (number, end, verb, pair.name)
    assert moved > 4 * (IN_SIZE + OUT_SIZE), "both rings went round, the indices past their wrap"


def test_a_back_that_attaches_to_cs_ring_goes_on_where_it_stands(xen):
    pair = Pair(xen, "C", "C", (0xFFFF_FFFE, 0xFFFF_FFFE))
    pair.front.write(b"printed, and taken in part")
    assert pair.back.read(9) == b"printed, "
    back = ConsoleBack(pair.memory)
    assert back.read(100) == b"and taken in part"
    back.write(b"typed")
    assert pair.front.read(100) == b"typed"
