"""The switch's ports one by one: who breaks the protocol, is too fast, invents addresses, or has its link down."""

import struct
import time

import pytest

from hvd.transport._native import NetEnd
from hvd.transport.errors import LocalError, PeerFault

from .ends import EVERYTHING, FIRST_REF, TX_EXTRA, TX_MORE, RawPort, gso, tx
from .packets import frame


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



