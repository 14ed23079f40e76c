"""The switch's ports one by one: who breaks the protocol, spoofs, is too fast, and what a receiver cannot take."""

import random
import struct
import time
from ipaddress import ip_address

import pytest

from hvd.domains.net.policy import Policy, compile_policy
from hvd.transport._native import NetEnd, NetRules, NetSwitch
from hvd.transport.errors import LocalError, PeerFault
from hvd.transport.net_rules import parse_rule

from .net_ends import (
    EVERYTHING,
    FIRST_REF,
    PLAIN,
    TX_CSUM_BLANK,
    TX_EXTRA,
    TX_MORE,
    TX_VALIDATED,
    RawPort,
    gso,
    tx,
)


@pytest.fixture
def switch():
    return NetSwitch()


@pytest.fixture
def make(switch):
    made = []

    def port(number=1, post=200, **settings):
        made.append(RawPort(switch, number, **settings))
        if post:
            made[-1].post(post)
        return made[-1]

    yield port
    for each in made:
        each.port.close()


def frame(to, sender, payload=b"", kind=b"\x88\xb5"):
    return (to + sender + kind + payload).ljust(60, b"\0")


# ---- frontends that break the protocol -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slots", "said"),
    [
        ([tx(size=13)], "13 bytes"),
        ([tx(offset=4090, size=60)], "crosses its page"),
        ([tx(offset=0xFFFF, size=0xFFFF)], "crosses its page"),
        ([tx(flags=TX_MORE, size=100)], "ends before its last slot"),
        ([tx(flags=TX_EXTRA)], "ends before its last slot"),
        ([tx(flags=TX_MORE, size=100), tx(size=101)], "more than that"),
        ([tx(flags=TX_MORE, size=5000), tx(flags=TX_MORE, size=4000), tx(size=2000)], "more than that"),
        ([tx(flags=TX_MORE, size=5000), tx(size=1)], "crosses its page"),
        ([tx(flags=TX_MORE, size=4000), *[tx(flags=TX_MORE, size=1)] * 17, tx(size=1)], "more than 18 parts"),
        ([tx(flags=TX_EXTRA), gso(extra_type=0)], "of type 0"),
        ([tx(flags=TX_EXTRA), gso(extra_type=5)], "of type 5"),
        ([tx(flags=TX_EXTRA), gso(size=0)], "into 0 bytes"),
        ([tx(flags=TX_EXTRA), gso(kind=3)], "by type 3"),
        ([tx(flags=TX_EXTRA), *[gso(more=True)] * 60], "more than 4 extra infos"),
        ([tx(flags=TX_EXTRA | TX_MORE), gso(extra_type=2), tx()], "has more data"),
    ],
)  # fmt: skip
def test_a_malformed_chain_is_the_frontends_fault_and_costs_others_nothing(make, slots, said):
    liar, other = make(1), make(2)
    good = frame(other.mac, liar.mac, b"before")
    liar.pool[4096 : 4096 + 60] = good
    liar.tx.push(tx(FIRST_REF + 1, id=7))
    for slot in slots:
        liar.tx.push(slot)
    with pytest.raises(PeerFault, match=said):
        liar.port.serve(0)
    assert other.received() == [(good, 0, 0)], "what came before it was delivered"
    assert liar.tx.pop() == struct.pack("<Hh", 7, 0)
    other.send(frame(liar.mac, other.mac))
    assert liar.received()


@pytest.mark.parametrize("jump", [257, 0x8000_0000])
def test_a_tx_index_that_jumps_is_the_frontends_fault(make, jump):
    liar = make()
    liar.memories[0][0:4] = jump.to_bytes(4, "little")
    with pytest.raises(PeerFault, match="req_prod"):
        liar.port.serve(0)


def test_an_rx_index_that_jumps_is_its_own_frontends_fault_and_not_the_senders(make, switch):
    sender, liar, other = make(1), make(2, post=0), make(3)
    liar.memories[1][0:4] = (1000).to_bytes(4, "little")
    sender.send(frame(b"\xff" * 6, sender.mac))
    assert "req_prod 1000" in liar.port.fault and not sender.port.fault
    assert switch.take_attention() == liar.port.number and switch.take_attention() is None
    assert len(other.received()) == 1
    for _ in range(3):  # more for it is dropped, and told once
        sender.send(frame(b"\xff" * 6, sender.mac))
    assert switch.take_attention() is None and len(other.received()) == 3


def test_pages_that_are_not_mapped_are_asked_for_and_not_touched(make, switch):
    sender, other = make(1, mapped=False, post=0), make(2, post=0, mapped=False)
    sender.tx.push(tx(FIRST_REF + 3, id=9))
    turn = sender.port.serve(0)
    assert (turn.end, turn.missing) == (NetEnd.UNMAPPED, FIRST_REF + 3)
    sender.pool[3 * 4096 : 3 * 4096 + 60] = frame(other.mac, sender.mac)
    sender.port.add(FIRST_REF, sender.pool, True)
    other.rx.push(struct.pack("<HxxI", 5, FIRST_REF + 261))
    assert sender.port.serve(0).end is NetEnd.DONE
    assert switch.take_attention() == other.port.number
    turn = other.port.drain()
    assert (turn.end, turn.missing) == (NetEnd.UNMAPPED, FIRST_REF + 261)
    other.port.add(FIRST_REF, other.pool, True)
    assert other.port.drain().end is NetEnd.DONE
    assert other.received() == [(frame(other.mac, sender.mac), 0, 0)]


def test_a_buffer_that_may_only_be_read_is_the_frontends_fault(make):
    sender, liar = make(1), make(2, post=0, mapped=False)
    liar.port.add(FIRST_REF, bytes(liar.pool), False)
    liar.rx.push(struct.pack("<HxxI", 0, FIRST_REF))
    sender.send(frame(liar.mac, sender.mac))
    assert "may only be read" in liar.port.fault


def test_a_turn_is_64_packets_and_the_rest_has_the_next(make):
    one, two = make(1), make(2)
    packet = frame(two.mac, one.mac)
    one.pool[:60] = packet
    for number in range(100):
        one.tx.push(tx(id=number))
    assert one.port.serve(0).end is NetEnd.MORE
    assert len(two.received()) == 64
    assert one.port.serve(0).end is NetEnd.DONE
    assert len(two.received()) == 36


def test_a_switch_has_1024_ports_and_no_more(make, switch):
    ports = [RawPort(switch, 0, mac=b"\x02" + number.to_bytes(5, "big"), network=number % 7) for number in range(1024)]
    with pytest.raises(LocalError, match="at most 1024 ports"):
        RawPort(switch, 0, mac=b"\x06" * 6)
    ports.pop().port.close()
    ports.append(RawPort(switch, 0, mac=b"\x06" * 6))
    for each in ports:
        each.port.close()


def test_who_invents_addresses_takes_no_others_place(make):
    flooder, one, two = make(1), make(2), make(3)
    for number in range(200):
        flooder.send(frame(b"\xff" * 6, b"\x02" + number.to_bytes(5, "big")))
    flooder.send(frame(b"\xff" * 6, one.mac))  # an address of a vif's is its own, whoever sends from it
    for each in (one, two):
        each.received()
        each.post()
        each.received()
    two.send(frame(one.mac, two.mac))
    assert len(one.received()) == 1 and flooder.received() == []
    two.send(frame(b"\x02" + (3).to_bytes(5, "big"), two.mac))  # learned: to it alone
    assert len(flooder.received()) == 1 and one.received() == []
    two.send(frame(b"\x02" + (150).to_bytes(5, "big"), two.mac))  # the 65th and later were not
    assert len(flooder.received()) == 1 and len(one.received()) == 1


# ---- guards ----------------------------------------------------------------------------------------------------------

V4, V6 = ip_address("10.0.0.1").packed, ip_address("fd00::1").packed
LINK_LOCAL = ip_address("fe80::216:3eff:fe00:1").packed


ARP_HEAD = bytes.fromhex("0001080006040001")


def arp(mac, address, head=ARP_HEAD):
    return head + mac + address + bytes(6) + ip_address("10.0.0.9").packed


def ipv4(source, protocol=17, ports=(1, 2), payload=b"x", fragment=0):
    body = struct.pack(">HHHH", *ports, 8 + len(payload), 0) + payload
    return struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 0, fragment, 64, protocol, 0) + source + V4 + body


def ipv6(source, kind=17, body=b"\0\1\0\2\0\x08\0\0", to=V6):
    return struct.pack(">IHBB", 6 << 28, len(body), kind, 255) + source + to + body


def advertisement(target, mac, option=2, kind=136):
    return ipv6(LINK_LOCAL, 58, struct.pack(">BBHI", kind, 0, 0, 0) + target + bytes((option, 1)) + mac)


OTHER_MAC, OTHER_V4, OTHER_V6 = bytes(range(2, 14, 2)), ip_address("10.0.0.2").packed, ip_address("fd00::2").packed
MAC = bytes.fromhex("00163e000001")


@pytest.mark.parametrize(
    ("kind", "payload", "passes"),
    [
        (0x88B5, b"", True),
        (0x0806, arp(MAC, V4), True), (0x0806, arp(MAC, bytes(4)), True),
        (0x0806, arp(OTHER_MAC, V4), False), (0x0806, arp(MAC, OTHER_V4), False),
        (0x0806, arp(MAC, V4, bytes.fromhex("0006080006040001")), False),
        (0x0800, ipv4(V4), True), (0x0800, ipv4(OTHER_V4), False),
        (0x0800, ipv4(bytes(4), ports=(68, 67)), True), (0x0800, ipv4(bytes(4), ports=(68, 53)), False),
        (0x0800, ipv4(bytes(4), ports=(68, 67), fragment=5), False), (0x0800, b"\x45", False),
        (0x86DD, ipv6(V6), True), (0x86DD, ipv6(LINK_LOCAL), True), (0x86DD, ipv6(OTHER_V6), False),
        (0x86DD, ipv6(bytes(16)), False), (0x86DD, ipv6(ip_address("fe80::1").packed), False),
        (0x86DD, advertisement(V6, MAC), True), (0x86DD, advertisement(LINK_LOCAL, MAC), True),
        (0x86DD, advertisement(OTHER_V6, MAC), False), (0x86DD, advertisement(V6, OTHER_MAC), False),
        (0x86DD, advertisement(OTHER_V6, MAC, 1, 135), True),
        (0x86DD, advertisement(OTHER_V6, OTHER_MAC, 1, 135), False),
        (0x86DD, advertisement(V6, MAC)[:-8] + b"\2\0" + MAC, False),
        (0x86DD, advertisement(V6, MAC, kind=134), False), (0x86DD, advertisement(V6, MAC, kind=137), False),
        (0x86DD, ipv6(bytes(16), 58, struct.pack(">BBHI", 135, 0, 0, 0) + V6), True),
        (0x86DD, ipv6(bytes(16), 58, struct.pack(">BBHI", 136, 0, 0, 0) + V6), False),
        (0x86DD, ipv6(LINK_LOCAL, 44, struct.pack(">BBHIBBHI", 58, 0, 1, 1, 136, 0, 0, 0) + V6), False),
    ],
)  # fmt: skip
def test_a_guarded_vif_speaks_for_itself_alone(make, kind, payload, passes):
    one, two = make(1, guarded=True, addresses=[V4, V6]), make(2)
    one.send(frame(two.mac, one.mac, payload, kind.to_bytes(2, "big")))
    assert bool(two.received()) is passes
    assert one.port.counters()["spoofed"] == (not passes)


def test_without_addresses_of_its_own_a_guarded_vif_may_use_any_but_no_others_mac(make):
    one, two = make(1, guarded=True), make(2)
    packets = (b"\x08\x00", ipv4(OTHER_V4)), (b"\x86\xdd", ipv6(OTHER_V6)), (b"\x08\x06", arp(MAC, OTHER_V4))
    for kind, payload in packets:
        one.send(frame(two.mac, one.mac, payload, kind))
    assert len(two.received()) == 3
    one.send(frame(two.mac, OTHER_MAC))
    one.send(frame(two.mac, one.mac, arp(OTHER_MAC, V4), b"\x08\x06"))
    assert two.received() == []


FRAGMENT = bytes.fromhex("3c00000100000007")  # the first of more, of what begins with destination options
OPTIONS, PAST_IT = bytes.fromhex("3a00010400000000"), bytes.fromhex("3b00010400000000")
ECHO = bytes.fromhex("80000000")


@pytest.mark.parametrize(
    ("fragment", "behind_it"),
    [
        # Options that another fragment goes on with; what the frame has behind the packet says that nothing follows.
        (FRAGMENT + bytes.fromhex("3c00010400000000"), PAST_IT),
        (FRAGMENT + bytes.fromhex("3c01010400000000"), bytes(8) + PAST_IT),
        # ICMPv6 that is wholly in the next fragment, and an echo behind the packet.
        (FRAGMENT + OPTIONS, ECHO),
    ],
)  # fmt: skip
def test_what_lies_behind_an_ipv6_packet_says_nothing_of_it(make, fragment, behind_it):
    one, two = make(1, guarded=True, addresses=[V6]), make(2)
    packet = ipv6(V6, 44, fragment)
    one.send(frame(two.mac, one.mac, packet + behind_it, b"\x86\xdd"))
    assert two.received() == []
    whole = ipv6(V6, 44, fragment + behind_it)
    one.send(frame(two.mac, one.mac, whole, b"\x86\xdd"))
    assert len(two.received()) == 1, "the same bytes in the packet"


# ---- what a receiver cannot take -------------------------------------------------------------------------------------


def checksum(data):
    total = sum(struct.unpack(f">{len(data) // 2}H", data[: len(data) // 2 * 2]))
    total += data[-1] << 8 if len(data) % 2 else 0
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def transport_is_right(packet, version):
    """Whether the checksum over the pseudo header and all behind it is."""
    at = 34 if version == 4 else 54
    addresses, protocol = (packet[26:34], packet[23]) if version == 4 else (packet[22:54], packet[20])
    end = 14 + (int.from_bytes(packet[16:18], "big") if version == 4 else 40 + int.from_bytes(packet[18:20], "big"))
    body = packet[at:end]
    return checksum(addresses + struct.pack(">HH", protocol, len(body)) + body) == 0


def tcp(one, two, version, payload, flags=0x19):
    """A TCP segment with a blank checksum."""
    body = struct.pack(">HHIIBBHHH", 7, 8, 0xFFFF_FF00, 5, 0x50, flags, 100, 0, 0) + payload
    if version == 4:
        head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 77, 0x4000, 64, 6, 0) + V4 + OTHER_V4
        return two.mac + one.mac + b"\x08\x00" + head + body
    return two.mac + one.mac + b"\x86\xdd" + struct.pack(">IHBB", 6 << 28, len(body), 6, 64) + V6 + OTHER_V6 + body


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


def test_packets_that_rules_keep_from_many_use_up_a_turn_as_others_do(make):
    table = compile_policy(Policy((), False), lambda name: 0)
    one = make(1, rules=table)
    for number in range(2, 102):
        make(number, post=0)
    one.pool[:60] = frame(b"\xff" * 6, one.mac)
    for _ in range(64):
        one.tx.push(tx())
    assert one.port.serve(0).end is NetEnd.MORE
    assert one.port.counters()["received"] <= 16


def test_cut_too_small_it_is_delivered_to_nobody(make):
    one, plain = make(1), make(2, accepts=PLAIN)
    one.send(tcp(one, plain, 4, bytes(60000)), TX_CSUM_BLANK, gso(100))
    assert plain.received() == [] and plain.port.counters()["malformed"] == 1


def test_who_takes_no_scattered_packets_gets_none(make):
    one, simple = make(1, mtu=9000), make(2, accepts=[False, *EVERYTHING[1:]])
    one.send(frame(simple.mac, one.mac, bytes(4082)))
    one.send(frame(simple.mac, one.mac, bytes(4083)))
    assert [len(packet) for packet, _, _ in simple.received()] == [4096]


# ---- rates and links -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mbits", [1, 100, 1000])
def test_a_rate_lets_through_what_it_says(make, mbits):
    bytes_per_s = mbits * 125_000
    one, two = make(1, rate_bytes=bytes_per_s // 20, rate_interval_us=50_000), make(2)
    packet = frame(two.mac, one.mac, bytes(1486))
    one.pool[: len(packet)] = packet
    passed, waited_ns, begin = 0, 0, time.monotonic_ns()
    while passed < bytes_per_s // 20 + bytes_per_s // 10:  # the first interval's at once, then a tenth of a second
        while one.tx.free:
            one.tx.push(tx(size=len(packet)))
        turn = one.port.serve(0)
        if turn.end is NetEnd.THROTTLED:
            waited_ns += turn.ready_in_ns
            time.sleep(turn.ready_in_ns / 1e9)
        one.tx.pop_many()
        arrived = len(two.received())
        passed += arrived * len(packet)
        two.post(arrived)
    took_s = (time.monotonic_ns() - begin) / 1e9
    assert passed <= bytes_per_s // 20 + took_s * bytes_per_s + 2 * len(packet), "never faster than that"
    assert waited_ns <= 0.2e9 + 0.02e9, "nor is it told to wait for more than there is"


def test_a_link_that_is_down_carries_nothing_either_way(make):
    one, two = make(1), make(2)
    two.port.link_up = False
    one.send(frame(two.mac, one.mac))
    two.send(frame(one.mac, two.mac))
    assert two.received() == [] and one.received() == []
    assert two.port.counters()["link_down"] == 2
    two.port.link_up = True
    one.send(frame(two.mac, one.mac))
    assert len(two.received()) == 1


def test_a_table_has_256_rules_and_no_more():
    NetRules(bytes(66 * 256), True)
    with pytest.raises(LocalError, match="at most 256 rules of 66 bytes"):
        NetRules(bytes(66 * 257), True)
    with pytest.raises(LocalError, match="not 65 bytes"):
        NetRules(bytes(65), True)


def test_groups_that_a_frontend_joins_have_an_end(make):
    one, choosy = make(1), make(2, accepts=[*EVERYTHING[:5], True])
    for number in range(80):
        choosy.tx.push(tx(flags=TX_EXTRA, size=0, id=number))
        choosy.tx.push(struct.pack("<BB6s4x", 2, 0, b"\x01\0\0\0\0" + bytes([number])))
    while choosy.port.serve(0).end is NetEnd.MORE:
        continue
    answers = choosy.tx.pop_many()
    assert [answers[at : at + 4] for at in (0, 4)] == [struct.pack("<Hh", 0, 0), struct.pack("<Hh", 0, 1)]
    for number in (0, 63, 64, 79):
        one.send(frame(b"\x01\0\0\0\0" + bytes([number]), one.mac))
    assert [packet[5] for packet, _, _ in choosy.received()] == [0, 63]



# ---- rules, at their edges -------------------------------------------------------------------------------------------


def ip(text):
    return ip_address(text).packed


def udp4(source="10.0.0.1", to="10.0.0.2", ports=(1000, 2000), protocol=17, fragment=0):
    head = ipv4(ip(source), protocol, ports, fragment=fragment)
    return b"\x08\x00", head[:16] + ip(to) + head[20:]


def udp6(source="fd00::1", to="fd00::2", ports=(1000, 2000)):
    return b"\x86\xdd", ipv6(ip(source), 17, struct.pack(">HHHH", *ports, 8, 0), ip(to))


OTHER = (b"\x88\xcc", b"")
EDGES = [
    ("", OTHER, True),
    ("ether=0x88cc", OTHER, True), ("ether=0x88cd", OTHER, False),
    ("ether=ipv4", udp4(), True), ("ether=ipv4", udp6(), False),
    ("ip=10.0.0.0/8", udp4("10.255.255.255"), True), ("ip=10.0.0.0/8", udp4("11.0.0.0"), False),
    ("ip=10.0.0.0/9", udp4("10.127.0.0"), True), ("ip=10.0.0.0/9", udp4("10.128.0.0"), False),
    ("ip=10.0.0.1", udp4("10.0.0.1"), True), ("ip=10.0.0.1", udp4("10.0.0.0"), False),
    ("to-ip=10.0.0.2/31", udp4(to="10.0.0.3"), True), ("to-ip=10.0.0.2/31", udp4(to="10.0.0.4"), False),
    ("to-ip=10.0.0.2/31", udp4(to="10.0.0.1"), False),
    ("ip=0.0.0.0/0", udp4(), True), ("ip=0.0.0.0/0", udp6(), False),
    ("ip=0.0.0.0/0", OTHER, False),
    ("to-ip=fd00::/127", udp6(to="fd00::1"), True), ("to-ip=fd00::/127", udp6(to="fd00::2"), False),
    ("ip=fd00::/15", udp6("fd01::"), True), ("ip=fd00::/15", udp6("fd02::"), False), ("ip=fd00::1", udp6(), True),
    ("proto=udp", udp4(), True), ("proto=tcp", udp4(), False), ("proto=udp", udp6(), True),
    ("proto=17", OTHER, False),
    ("proto=udp port=1000", udp4(), True), ("proto=udp port=999", udp4(), False),
    ("proto=udp port=1001", udp4(), False),
    ("proto=udp port=1000-1001", udp4(), True), ("proto=udp port=999-1000", udp4(), True),
    ("proto=udp to-port=2000-3000", udp4(), True), ("proto=udp to-port=1000-2000", udp4(), True),
    ("proto=udp to-port=1000-1999", udp4(), False), ("proto=udp to-port=2001-3000", udp4(), False),
    ("proto=udp port=1000 to-port=2001", udp4(), False), ("proto=udp port=1001 to-port=2000", udp4(), False),
    ("proto=udp to-port=2000", udp6(), True), ("proto=udp port=1-65535", udp4(fragment=5), False),
    ("proto=udp", udp4(fragment=5), True), ("proto=udp port=1000", udp4(fragment=0x2000), True),
    ("mac=00:16:3e:00:00:01", OTHER, True), ("mac=00:16:3e:00:00:02", OTHER, False),
    ("to-mac=00:16:3e:00:00:02", OTHER, True), ("to-mac=00:16:3e:00:00:03", OTHER, False),
    ("from=one", OTHER, True), ("from=two", OTHER, False), ("to=two", OTHER, True), ("to=one", OTHER, False),
    ("from=one to=two mac=00:16:3e:00:00:01 proto=udp to-port=2000 ip=10.0.0.1", udp4(), True),
]  # fmt: skip


@pytest.mark.parametrize(("words", "packet", "fits"), EDGES)
def test_a_rule_fits_what_it_says_and_nothing_beside_it(make, words, packet, fits):
    parties = {"one": 1, "two": 2}
    table = compile_policy(Policy((parse_rule(f"allow {words}"),), False), parties.__getitem__)
    one, two = make(1, rules=table), make(2, rules=table)
    one.send(frame(two.mac, one.mac, packet[1], packet[0]))
    assert bool(two.received()) is fits


def test_the_first_rule_that_fits_decides_and_both_ends_must_let_it(make):
    def table(*lines, allow):
        return compile_policy(Policy(tuple(map(parse_rule, lines)), allow), lambda name: 0)

    first = table("deny ether=0x88cc", "allow", allow=False)
    open_, closed = table(allow=True), table(allow=False)
    cases = [(first, first, False), (open_, closed, False), (closed, open_, False), (open_, open_, True),
             (None, closed, False), (None, None, True)]  # fmt: skip
    for number, (own, others, passes) in enumerate(cases):
        one, two = make(1, rules=own, network=number), make(2, rules=others, network=number)
        one.send(frame(two.mac, one.mac, *OTHER[::-1]))
        assert bool(two.received()) is passes
        one.send(frame(two.mac, one.mac))
        assert bool(two.received()) is (passes or own is first)


@pytest.mark.parametrize("tags", ["8100 0000 8100 0000", "88a8 0000", "8100 0001 88a8 0000", "8100 0000 8100 0001"])
def test_what_hides_behind_a_second_tag_is_delivered_to_nobody(make, tags):
    one, two = make(1, trunk=[1]), make(2, trunk=[1])
    kind, packet = udp4()
    one.send(frame(two.mac, one.mac, kind + packet, bytes.fromhex(tags)))
    assert two.received() == [] and one.port.counters()["malformed"] == 1
