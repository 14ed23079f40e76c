"""Our netif structs against Xen's own, as the C compiler lays them out: what one writes the other reads, byte for byte."""

import ctypes
import random
from pathlib import Path

import pytest

from hvd.transport.protocols import net

HEADER = Path("/usr/include/xen/io/netif.h")
SLOT_BYTES = 12
CONSTANTS = 28
U8, U16, U32, S = ctypes.c_uint8, ctypes.c_uint16, ctypes.c_uint32, ctypes.c_int16
STRUCTS = {
    "tx_request": (U32, U16, U16, U16, U16),
    "tx_response": (U16, S),
    "rx_request": (U16, U32),
    "rx_response": (U16, U16, U16, S),
    "gso": (U8, U16, U8, U16),
}


@pytest.fixture(scope="module")
def xen(compile_native):
    if not HEADER.exists():
        pytest.skip(f"{HEADER} is absent: install libxen-dev for the differential test against Xen's own structs")
    # Xen's headers are not written for -Wextra and -Wconversion.
    flags = ("-O2", "-shared", "-fPIC", "-Wno-conversion", "-Wno-sign-conversion", "-Wno-extra", "-Wno-sign-compare")
    return ctypes.CDLL(str(compile_native(Path(__file__).with_name("xen_netif.c"), "gcc", *flags)))


@pytest.fixture(scope="module")
def ours(compile_native):
    source = Path(__file__).with_name("our_netif.cpp")
    return ctypes.CDLL(str(compile_native(source, "g++", "-std=c++20", "-O2", "-shared", "-fPIC")))


def test_sizes_and_constants_are_xens(xen, ours):
    assert [ours.constant(which) for which in range(CONSTANTS)] == [xen.constant(which) for which in range(CONSTANTS)]
    sizes = [net.TX_REQUEST_SIZE, net.TX_RESPONSE_SIZE, net.RX_REQUEST_SIZE, net.RX_RESPONSE_SIZE]
    assert sizes == [xen.constant(which) for which in range(4)]


@pytest.mark.parametrize("struct", STRUCTS)
def test_what_either_writes_is_the_same_bytes_and_the_other_reads(struct, xen, ours):
    source, types = random.Random(struct), STRUCTS[struct]
    for _ in range(200):
        values = [kind(source.randrange(2**32)).value for kind in types]
        slots = []
        for writer in (xen, ours):
            slot = ctypes.create_string_buffer(SLOT_BYTES)
            getattr(writer, f"write_{struct}")(slot, *(kind(value) for kind, value in zip(types, values, strict=True)))
            slots.append(slot.raw)
        assert slots[0] == slots[1]
        for reader in (xen, ours):
            words = (ctypes.c_int64 * 8)()
            getattr(reader, f"read_{struct}")(slots[0], words)
            read = list(words)[: len(values)] if struct != "gso" else list(words)[1:5]
            assert read == values


@pytest.mark.parametrize("kind", [2, 3])
def test_a_multicast_group_is_the_same_bytes(kind, xen, ours):
    address = bytes(range(1, 7))
    slots = [ctypes.create_string_buffer(SLOT_BYTES) for _ in range(2)]
    for writer, slot in zip((xen, ours), slots, strict=True):
        writer.write_group(slot, U8(kind), U8(1), address)
    assert slots[0].raw == slots[1].raw
    words = (ctypes.c_uint64 * 8)()
    ours.read_group(slots[0], words)
    assert list(words) == [kind, 1, *address]
