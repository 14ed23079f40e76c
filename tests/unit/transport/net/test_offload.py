"""What a receiver cannot take is made for it, checksums and segments, or it gets none."""

import random

import pytest

from hvd.transport._native import NetEnd

from .ends import EVERYTHING, FIRST_REF, PLAIN, TX_CSUM_BLANK, TX_EXTRA, TX_MORE, TX_VALIDATED, gso, tx
from .packets import checksum, frame, tcp, transport_is_right


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("size", [1, 2, 1000, 1459, 1460])
def test_a_blank_checksum_is_filled_in_for_who_takes_none(make, version, size):
    one, two, plain = make(1, mtu=9000), make(2), make(3, accepts=PLAIN)
    payload = random.Random(size).randbytes(size)
    for receiver in (two, plain):
        packet = tcp(one, receiver, version, payload[:1400])
        one.send(packet, TX_CSUM_BLANK | TX_VALIDATED)
        ((got, flags, _),) = receiver.received()
        if receiver is two:
            assert got == packet and flags == 3
        else:
            assert transport_is_right(got, version) and flags == 1
            assert got[:36] == packet[:36] and got[-len(payload[:1400]) :] == payload[:1400]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(("size", "segment"), [(20000, 1448), (60000, 8900), (1448, 1448), (2896, 1448), (2897, 1448)])
def test_tcp_is_cut_up_for_who_takes_no_segments_as_a_card_would(make, version, size, segment):
    one, plain = make(1, mtu=9000), make(2, accepts=PLAIN)
    payload = random.Random(size).randbytes(size)
    kind = 1 if version == 4 else 2
    one.send(tcp(one, plain, version, payload, 0x99), TX_CSUM_BLANK | TX_VALIDATED, gso(segment, kind))
    packets = [packet for packet, _, _ in plain.received()]
    tcp_at = 34 if version == 4 else 54
    assert b"".join(packet[tcp_at + 20 :] for packet in packets) == payload
    assert [len(packet) - tcp_at - 20 for packet in packets[:-1]] == [segment] * ((size - 1) // segment)
    for number, packet in enumerate(packets):
        assert transport_is_right(packet, version)
        assert int.from_bytes(packet[tcp_at + 4 : tcp_at + 8], "big") == (0xFFFF_FF00 + number * segment) % 2**32
        last = number == len(packets) - 1
        assert packet[tcp_at + 13] == 0x10 | (0x09 if last else 0) | (0x80 if number == 0 else 0)
        if version == 4:
            assert checksum(packet[14:34]) == 0
            assert int.from_bytes(packet[18:20], "big") == 77 + number
            assert int.from_bytes(packet[16:18], "big") == len(packet) - 14


def test_who_takes_segments_gets_them_whole(make):
    one, two = make(1, mtu=9000), make(2)
    packet = tcp(one, two, 4, bytes(30000))
    one.send(packet, TX_CSUM_BLANK | TX_VALIDATED, gso(1448))
    assert two.received() == [(packet, 3, 1448)]


@pytest.mark.parametrize(
    ("change", "flags", "extra"),
    [
        (lambda packet: packet[:23] + b"\x01" + packet[24:], TX_CSUM_BLANK, b""),
        (lambda packet: packet[:20] + b"\x20\x00" + packet[22:], TX_CSUM_BLANK, b""),
        (lambda packet: packet, 0, gso(1000)),
        (lambda packet: packet, TX_CSUM_BLANK, gso(1000, 2)),
        (lambda packet: packet[:23] + b"\x11" + packet[24:], TX_CSUM_BLANK, gso(1000)),
        (lambda packet: packet[:16] + b"\xff\xff" + packet[18:], TX_CSUM_BLANK, b""),
    ],
)
def test_what_cannot_be_checksummed_or_cut_up_is_delivered_to_nobody(make, change, flags, extra):
    one, two, plain = make(1), make(2), make(3, accepts=PLAIN)
    for receiver in (two, plain):
        one.send(change(tcp(one, receiver, 4, bytes(100))), flags, extra)
        assert receiver.received() == []
    assert one.port.counters()["malformed"] == 2


def test_packets_of_more_than_the_mtu_are_delivered_to_nobody(make):
    one, two = make(1), make(2)
    one.send(frame(two.mac, one.mac, bytes(1500)))
    assert len(two.received()) == 1
    one.send(frame(two.mac, one.mac, bytes(1501)))
    one.send(tcp(one, two, 4, bytes(5000)), TX_CSUM_BLANK, gso(1461))
    assert two.received() == [] and one.port.counters()["oversize"] == 2
    one.send(tcp(one, two, 4, bytes(5000)), TX_CSUM_BLANK, gso(1460))
    assert len(two.received()) == 1


@pytest.mark.parametrize("words", range(5, 16))
def test_a_segment_counts_with_its_tcp_options(make, words):
    one, two = make(1), make(2)
    options = 4 * words - 20
    packet = bytearray(tcp(one, two, 4, bytes(5000)))
    packet[46] = words << 4
    one.send(bytes(packet), TX_CSUM_BLANK, gso(1461 - options))
    assert two.received() == [] and one.port.counters()["oversize"] == 1
    one.send(bytes(packet), TX_CSUM_BLANK, gso(1460 - options))
    assert len(two.received()) == 1


@pytest.mark.parametrize(("words", "payload"), [(0, 100), (4, 100), (6, 0), (15, 39)])
def test_what_has_no_whole_tcp_header_is_cut_up_for_nobody(make, words, payload):
    one, two, plain = make(1), make(2), make(3, accepts=PLAIN)
    for receiver in (two, plain):
        packet = bytearray(tcp(one, receiver, 4, bytes(payload)))
        packet[46] = words << 4
        one.send(bytes(packet), TX_CSUM_BLANK, gso(1000))
        assert receiver.received() == []
    assert one.port.counters()["malformed"] == 2


def test_packets_that_cannot_be_cut_up_use_up_a_turn_as_others_do(make):
    one = make(1)
    plain = [make(number, post=0, accepts=PLAIN) for number in range(2, 7)]
    packet = tcp(one, plain[0], 4, bytes(65000)).replace(plain[0].mac, b"\xff" * 6, 1)
    pieces = [packet[at : at + 4096] for at in range(0, len(packet), 4096)]
    for index, piece in enumerate(pieces):
        one.pool[index * 4096 : index * 4096 + len(piece)] = piece
    for _ in range(4):
        for index, piece in enumerate(pieces):
            first, last = index == 0, index == len(pieces) - 1
            flags = (0 if last else TX_MORE) | (TX_CSUM_BLANK | TX_EXTRA if first else 0)
            one.tx.push(tx(FIRST_REF + index, flags=flags, size=len(packet) if first else len(piece)))
            if first:
                one.tx.push(gso(1))
    assert one.port.serve(0).end is NetEnd.MORE
    assert one.port.counters()["received"] == 1 and all(each.port.counters()["malformed"] == 1 for each in plain)


def test_cut_too_small_it_is_delivered_to_nobody(make):
    one, plain = make(1), make(2, accepts=PLAIN)
    one.send(tcp(one, plain, 4, bytes(60000)), TX_CSUM_BLANK, gso(100))
    assert plain.received() == [] and plain.port.counters()["malformed"] == 1


def test_who_takes_no_scattered_packets_gets_none(make):
    one, simple = make(1, mtu=9000), make(2, accepts=[False, *EVERYTHING[1:]])
    one.send(frame(simple.mac, one.mac, bytes(4082)))
    one.send(frame(simple.mac, one.mac, bytes(4083)))
    assert [len(packet) for packet, _, _ in simple.received()] == [4096]
