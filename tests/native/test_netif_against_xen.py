"""Our netif against Xen's own structs, as the C compiler lays them out: what one writes the other reads."""

import ctypes
import itertools
import mmap
import random
import struct
from pathlib import Path

import pytest

from hvd.transport._native import BackRing, Endpoint, FrontRing, NetEnd, NetFront, NetPort, NetSwitch
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


PAGES, FIRST_REF = 512, 1000
TO, FROM = bytes.fromhex("00163e000001"), bytes.fromhex("00163e000002")


class FrontEnds:
    """Our frontend's queue: its rings as Xen's backend would find them."""

    def __init__(self):
        self.pool = bytearray(PAGES * 4096)
        self.memories = [bytearray(4096) for _ in range(2)]
        sizes = (net.TX_REQUEST_SIZE, net.TX_RESPONSE_SIZE), (net.RX_REQUEST_SIZE, net.RX_RESPONSE_SIZE)
        self.fronts = [FrontRing(memory, *size) for memory, size in zip(self.memories, sizes, strict=True)]
        for ring in self.fronts:
            ring.init()
        self.backs = [BackRing(memory, *size) for memory, size in zip(self.memories, sizes, strict=True)]
        self.endpoints = [Endpoint(mmap.mmap(-1, 4096), 0, -1, -1) for _ in range(2)]
        self.front = NetFront([memoryview(self.pool)], [FIRST_REF])
        tx, rx = self.fronts
        self.front.attach([(tx, rx, self.endpoints[0], self.endpoints[1])])


def words_of(reader, slot, count=5):
    words = (ctypes.c_int64 * 8)()
    reader(slot.ljust(SLOT_BYTES, b"\0"), words)
    return list(words)[:count]


@pytest.mark.parametrize("size", [60, 4096, 4097, 9014, 65535])
def test_c_reads_the_packets_that_our_frontend_sends(xen, size):
    ends = FrontEnds()
    packet = random.Random(size).randbytes(size)
    assert ends.front.send(packet)
    slots = ends.backs[0].pop_many()
    found, parts = b"", -(-size // 4096)
    for number in range(parts):
        ref, offset, flags, _, length = words_of(xen.read_tx_request, slots[number * 12 : number * 12 + 12])
        assert flags == (4 if number < parts - 1 else 0), "more data, but for the last"
        if number == 0:
            assert length == size, "the first has the packet's size"
            length = size - sum(words_of(xen.read_tx_request, slots[n * 12 : n * 12 + 12])[4] for n in range(1, parts))
        at = (ref - FIRST_REF) * 4096 + offset
        found += ends.pool[at : at + length]
    assert found == packet and len(slots) == 12 * parts


def test_our_frontend_takes_cs_answers_and_reads_cs_packets(xen):
    ends = FrontEnds()
    ends.front.send(bytes(60))
    (*_, request_id, _) = words_of(xen.read_tx_request, ends.backs[0].pop())
    answer = ctypes.create_string_buffer(net.TX_RESPONSE_SIZE)
    xen.write_tx_response(answer, U16(request_id), 0)
    ends.backs[0].push(answer.raw)
    ends.front.collect()
    assert ends.front.in_flight == 0
    packet = random.Random(2).randbytes(5000)
    for number, (part, flags) in enumerate(((packet[:4000], 4 | 8), (None, 0), (packet[4000:], 0))):
        buffer, ref = words_of(xen.read_rx_request, ends.backs[1].pop(), 2)
        slot = ctypes.create_string_buffer(net.RX_RESPONSE_SIZE)
        if part is None:
            xen.write_gso(slot, U8(0), U16(1448), U8(1), U16(0))
        else:
            at = (ref - FIRST_REF) * 4096 + 96
            ends.pool[at : at + len(part)] = part
            xen.write_rx_response(slot, U16(buffer), U16(96), U16(flags), len(part))
        ends.backs[1].push(slot.raw)
        assert number == 2 or not ends.front.has_arrived
        if number < 2:
            continue
        ends.front.collect()
    assert ends.front.receive_many(10) == [packet]


class BackEnds:
    """Our backend's port in a switch, with rings as Xen's frontend would make them."""

    def __init__(self, switch=None, mac=FROM):
        self.pool = bytearray(PAGES * 4096)
        sizes = (net.TX_REQUEST_SIZE, net.TX_RESPONSE_SIZE), (net.RX_REQUEST_SIZE, net.RX_RESPONSE_SIZE)
        self.memories = [bytearray(4096) for _ in range(2)]
        self.fronts = [FrontRing(memory, *size) for memory, size in zip(self.memories, sizes, strict=True)]
        for ring in self.fronts:
            ring.init()
        tx, rx = (BackRing(memory, *size) for memory, size in zip(self.memories, sizes, strict=True))
        endpoints = [Endpoint(mmap.mmap(-1, 4096), 0, -1, -1) for _ in range(2)]
        self.switch = switch or NetSwitch()
        self.port = NetPort(
            switch=self.switch, ends=[(tx, rx, endpoints[0], endpoints[1])], network=0, party=1, mac=mac, mtu=9000,
            vlan=0, trunk=[],
            rate_bytes=0, rate_interval_us=0, guarded=False, addresses=[], rules=None, accepts=[True] * 5 + [False],
        )  # fmt: skip
        self.port.add(FIRST_REF, self.pool, True)

    def post(self, xen, buffers):
        slot = ctypes.create_string_buffer(net.RX_REQUEST_SIZE)
        for buffer in buffers:
            xen.write_rx_request(slot, U16(buffer), U32(FIRST_REF + 256 + buffer))
            self.fronts[1].push(slot.raw)


LOOPBACK = bytes.fromhex("cf0000000000") + FROM + b"\x90\x00"


def test_our_backend_reads_cs_packets_and_c_reads_what_it_delivers(xen):
    ends, source = BackEnds(), random.Random(3)
    for number in range(100):
        size, slot = source.randint(60, 9000), ctypes.create_string_buffer(SLOT_BYTES)
        packet = LOOPBACK + source.randbytes(size - len(LOOPBACK))
        cuts = sorted({0, size, *(source.randrange(size) for _ in range(source.randint(0, 4)))})
        pieces = [packet[a:b] for a, b in itertools.pairwise(cuts)]
        pieces = [piece[at : at + 2000] for piece in pieces for at in range(0, len(piece), 2000)]
        ids = source.sample(range(256), len(pieces))
        for index, (piece, request_id) in enumerate(zip(pieces, ids, strict=True)):
            offset = source.randint(0, 4096 - len(piece))
            ends.pool[request_id * 4096 + offset : request_id * 4096 + offset + len(piece)] = piece
            flags = 4 if index < len(pieces) - 1 else 0
            xen.write_tx_request(slot, U32(FIRST_REF + request_id), U16(offset), U16(flags), U16(request_id),
                                 U16(size if index == 0 else len(piece)))  # fmt: skip
            ends.fronts[0].push(slot.raw)
        buffers = source.sample(range(256), -(-size // 4096))
        ends.post(xen, buffers)
        assert ends.port.serve(0).end is NetEnd.DONE
        answers = ends.fronts[0].pop_many()
        assert [words_of(xen.read_tx_response, answers[at : at + 4], 2) for at in range(0, len(answers), 4)] == [
            [request_id, 0] for request_id in ids
        ], number
        found, responses = b"", ends.fronts[1].pop_many()
        for index, buffer in enumerate(buffers):
            response = words_of(xen.read_rx_response, responses[index * 8 : index * 8 + 8], 4)
            assert response[0] == buffer and response[2] == (4 if index < len(buffers) - 1 else 0)
            at = (256 + buffer) * 4096 + response[1]
            found += ends.pool[at : at + response[3]]
        assert found == packet


def test_our_backend_reads_cs_extra_infos_and_c_reads_ours(xen):
    ends, slot = BackEnds(), ctypes.create_string_buffer(SLOT_BYTES)
    other = BackEnds(ends.switch, TO)
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 3040, 0, 0, 64, 6, 0, b"\x0a\0\0\1", b"\x0a\0\0\2")
    packet = TO + FROM + b"\x08\x00" + ip + struct.pack(">HHIIBBHHH", 1, 2, 0, 0, 0x50, 16, 0, 0, 0) + bytes(3000)
    ends.pool[: len(packet)] = packet
    xen.write_tx_request(slot, U32(FIRST_REF), U16(0), U16(1 | 2 | 8), U16(7), U16(len(packet)))
    ends.fronts[0].push(slot.raw)
    xen.write_gso(slot, U8(0), U16(1000), U8(1), U16(0))
    ends.fronts[0].push(slot.raw)
    other.post(xen, [3, 9])
    assert ends.port.serve(0).end is NetEnd.DONE
    responses = other.fronts[1].pop_many()
    assert words_of(xen.read_rx_response, responses[:8], 4) == [3, 0, 1 | 2 | 8, len(packet)]
    assert words_of(xen.read_gso, responses[8:]) == [1, 0, 1000, 1, 0]
    answers = ends.fronts[0].pop_many()
    assert [words_of(xen.read_tx_response, answers[at : at + 4], 2) for at in (0, 4)] == [[7, 0], [0, 1]]
