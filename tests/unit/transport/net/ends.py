"""Ports of a native switch and raw slots for them: what the tests of the switch have in common."""

import mmap
import struct

from hvd.transport._native import BackRing, Endpoint, FrontRing, NetEnd, NetPort, NetSwitch

FIRST_REF, PAGES = 1000, 512
TX_CSUM_BLANK, TX_VALIDATED, TX_MORE, TX_EXTRA = 1, 2, 4, 8
EVERYTHING = [True] * 5 + [False]
PLAIN = [True] + [False] * 5


def tx(ref=FIRST_REF, offset=0, flags=0, id=0, size=60):
    """A Tx request."""
    return struct.pack("<IHHHH", ref, offset, flags, id, size)


def gso(size=1000, kind=1, *, more=False, extra_type=1):
    """An extra info."""
    return struct.pack("<BBHBBH4x", extra_type, more, size, kind, 0, 0)


class RawPort:
    """A port whose frontend is a test: it writes slots, posts buffers, and reads what was delivered."""

    def __init__(self, switch=None, number=1, **settings):
        self.switch = switch or NetSwitch()
        self.mac = bytes((0, 0x16, 0x3E, 0, 0, number))
        self.pool = bytearray(PAGES * 4096)
        self.memories = [bytearray(4096) for _ in range(2)]
        self.tx, self.rx = FrontRing(self.memories[0], 12, 4), FrontRing(self.memories[1], 8, 8)
        for ring in (self.tx, self.rx):
            ring.init()
        ends = [Endpoint(mmap.mmap(-1, 4096), 0, -1, -1) for _ in range(2)]
        tx_back, rx_back = BackRing(self.memories[0], 12, 4), BackRing(self.memories[1], 8, 8)
        standard = {
            "network": 0, "party": number, "mac": self.mac, "mtu": 1500, "vlan": 0, "trunk": [], "rate_bytes": 0,
            "rate_interval_us": 0, "guarded": False, "addresses": [], "rules": None, "accepts": EVERYTHING,
        }  # fmt: skip
        mapped = settings.pop("mapped", True)
        self.port = NetPort(switch=self.switch, ends=[(tx_back, rx_back, ends[0], ends[1])], **(standard | settings))
        if mapped:
            self.port.add(FIRST_REF, self.pool, True)
        self.sent = self.posted = 0

    def post(self, count=200):
        """Post buffers: those behind the pages that are sent from."""
        for _ in range(count):
            buffer = self.posted % 256
            self.rx.push(struct.pack("<HxxI", buffer, FIRST_REF + 256 + buffer))
            self.posted += 1
        self.port.drain()

    def send(self, packet, flags=0, extra=b""):
        """A packet in as many pages as it takes."""
        pieces = [packet[at : at + 4096] for at in range(0, len(packet), 4096)]
        for index, piece in enumerate(pieces):
            page = self.sent % 256
            self.sent += 1
            self.pool[page * 4096 : page * 4096 + len(piece)] = piece
            more = TX_MORE if index < len(pieces) - 1 else 0
            own = flags if index == 0 else 0
            size = len(packet) if index == 0 else len(piece)
            self.tx.push(tx(FIRST_REF + page, 0, more | own | (TX_EXTRA if extra and index == 0 else 0), page, size))
            if index == 0 and extra:
                self.tx.push(extra)
        while self.port.serve(0).end is NetEnd.MORE:
            continue
        self.tx.pop_many()

    def received(self):
        """(packet, flags, GSO size) of all that was delivered since."""
        packets, found, want_extra, flags, segment = [], b"", False, 0, 0
        slots = self.rx.pop_many()
        for at in range(0, len(slots), 8):
            if want_extra:
                segment, want_extra = struct.unpack_from("<H", slots, at + 2)[0], False
                continue
            buffer, offset, part_flags, size = struct.unpack_from("<HHHh", slots, at)
            if not found:
                flags, want_extra, segment = part_flags & 3, bool(part_flags & 8), 0
            start = (256 + buffer) * 4096 + offset
            found += self.pool[start : start + size]
            if not part_flags & 4:
                packets.append((found, flags, segment))
                found = b""
                if want_extra:  # of a packet of one part the extra info comes behind it
                    segment, want_extra = struct.unpack_from("<H", slots, at + 10)[0], False
                    packets[-1] = (packets[-1][0], flags, segment)
        return packets
