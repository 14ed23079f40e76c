"""A vif from end to end: what one guest sends another receives, across queues, channels, shortages and deaths."""

import random
import struct

import pytest

from hvd.transport.errors import PeerFault

BROADCAST = b"\xff" * 6
TEST_TYPE = b"\x88\xb5"
"""Ethernet's type for local experiments."""


def frame(to, sender, payload=b"", kind=TEST_TYPE):
    return (to + sender + kind + payload).ljust(60, b"\0")


@pytest.fixture
def pair(machine):
    return machine.vif(2), machine.vif(3)


def test_a_packet_reaches_the_vif_whose_address_it_bears_and_no_other(machine, pair):
    one, two = pair
    three = machine.vif(4)
    one.front.send(frame(two.mac, one.mac, b"hello"))
    machine.run()
    assert two.front.receive_many() == [frame(two.mac, one.mac, b"hello")]
    assert one.front.receive_many() == three.front.receive_many() == []


def test_a_broadcast_reaches_everybody_else_of_its_network(machine, pair):
    one, two = pair
    three, elsewhere = machine.vif(4), machine.vif(5, bridge="other")
    one.front.send(frame(BROADCAST, one.mac))
    machine.run()
    assert two.front.receive_many() == three.front.receive_many() == [frame(BROADCAST, one.mac)]
    assert one.front.receive_many() == elsewhere.front.receive_many() == []


@pytest.mark.parametrize("queues", [1, 3])
@pytest.mark.parametrize("channels", ["split", "shared"])
def test_packets_of_every_size_arrive_as_they_were_sent(machine, queues, channels):
    keys = {"hvd-queues": str(queues), "hvd-channels": channels}
    one, two = machine.vif(2, front=keys, mtu="9000"), machine.vif(3, front=keys, mtu="9000")
    source = random.Random(1)
    for size in (14, 15, 60, 255, 256, 257, 1514, 4095, 4096, 4097, 8192, 9014):
        packet = (two.mac + one.mac + TEST_TYPE + source.randbytes(size))[:size]
        one.front.send(packet)
        machine.run()
        assert two.front.receive_many() == [packet]
    assert one.front.receive_many() == []  # which takes in answers too
    assert one.front.front.in_flight == 0


def test_flows_take_all_queues_and_each_stays_in_order(machine):
    keys = {"hvd-queues": "4"}
    one, two = machine.vif(2, front=keys), machine.vif(3, front=keys)
    packets = []
    for number in range(200):
        flow, ip = number % 8, bytearray(28)
        ip[0], ip[2:4], ip[9], ip[20:24] = 0x45, (28).to_bytes(2, "big"), 17, flow.to_bytes(2, "big") * 2
        packets.append(frame(two.mac, one.mac, bytes(ip) + number.to_bytes(2, "big"), b"\x08\x00"))
    one.front.send_many(packets)
    machine.run()
    received = two.front.receive_many()
    assert sorted(received) == sorted(packets)
    for flow in range(8):
        mark = flow.to_bytes(2, "big") * 2
        assert [p for p in received if p[34:38] == mark] == [p for p in packets if p[34:38] == mark]


def test_who_has_no_buffers_gets_what_waited_when_it_has(machine, pair):
    one, two = pair
    packets = [frame(two.mac, one.mac, number.to_bytes(2, "big")) for number in range(1000)]
    for start in range(0, 1000, 100):
        one.front.send_many(packets[start : start + 100])
        machine.run()
    received = []
    while some := two.front.receive_many():
        received += some
        machine.run()
    assert received == packets


def test_who_never_receives_loses_packets_and_delays_nobody(machine, pair):
    one, deaf = pair
    other = machine.vif(4)
    large = deaf.mac + one.mac + TEST_TYPE + bytes(1500)
    for _ in range(40):
        one.front.send_many([large] * 100)
        machine.run()
    assert deaf.back.counters()["no_buffers"] > 0
    one.front.send(frame(other.mac, one.mac, b"still"))
    machine.run()
    assert other.front.receive_many() == [frame(other.mac, one.mac, b"still")]


def test_what_a_tcp_stream_has_under_way_waits_for_whoever_is_late(machine, pair):
    """4 MB: the most that Linux lets one have (tcp_wmem)."""
    one, late = pair
    packets = [frame(late.mac, one.mac, number.to_bytes(4, "big") * 375) for number in range(2700)]
    for first in range(0, len(packets), 100):
        one.front.send_many(packets[first : first + 100])
        machine.run()
    received: list[bytes] = []
    while some := late.front.receive_many():
        received += some
        machine.run()
    assert received == packets
    assert late.back.counters()["no_buffers"] == 0


def test_packets_that_no_backend_answered_are_sent_by_the_next_in_order(machine, pair):
    one, two = pair
    one.kill_backend()
    packets = [frame(two.mac, one.mac, bytes([number])) for number in range(100)]
    one.front.send_many(packets)
    assert one.front.front.in_flight == 100
    one.connect()
    machine.run()
    assert two.front.receive_many() == packets
    assert one.front.receive_many() == []
    assert one.front.front.in_flight == 0


def test_a_receivers_backend_may_be_another_and_what_had_arrived_is_kept(machine, pair):
    one, two = pair
    packets = [frame(two.mac, one.mac, bytes([number])) for number in range(3)]
    one.front.send(packets[0])
    machine.run()
    two.kill_backend()
    two.connect()
    for _ in range(3):  # more than there are buffers, unless every one came back
        one.front.send_many([packets[1]] * 255)
        machine.run()
        received = two.front.receive_many()
        machine.run()
    assert received[-1] == packets[1]
    assert not one.faults and not two.faults


def test_while_no_backend_lives_a_ring_is_all_there_is_room_for(machine, pair):
    one, two = pair
    one.kill_backend()
    packet = two.mac + one.mac + TEST_TYPE + bytes(5000)
    assert one.front.try_send_many([packet] * 200) == 128
    assert not one.front.try_send(packet)
    assert one.front.try_send_run(packet[:64] * 10, 64) == 0
    one.connect()
    machine.run()
    assert one.front.try_send(packet)


def test_what_is_no_packet_is_refused_at_once(pair):
    one, _ = pair
    for size in (0, 13, 65536):
        with pytest.raises(Exception, match="14 to 65535 bytes"):
            one.front.send(bytes(size))


def test_the_loopback_assistant_sends_a_station_its_own_packets(machine, pair):
    one, two = pair
    mine = frame(bytes.fromhex("cf0000000000"), one.mac, b"me", b"\x90\x00")
    one.front.send(mine)
    machine.run()
    assert one.front.receive_many() == [mine] and two.front.receive_many() == []


def test_a_vif_that_was_taken_away_says_so(machine, pair):
    one, _ = pair
    one.back.detach()
    one.front.close()
    with pytest.raises(OSError, match="was detached"):
        one.front.try_send(bytes(60))
    with pytest.raises(OSError, match="was detached"):
        one.front.receive_many()


def test_two_vifs_of_a_network_do_not_have_one_address(machine, pair):
    with pytest.raises(Exception, match="the same MAC address"):
        machine.vif(6, mac="00:16:3e:80:02:00")
    machine.vif(7, mac="00:16:3e:80:02:00", bridge="other")


def test_groups_that_a_vif_did_not_join_do_not_reach_it(machine, pair):
    one, _ = pair
    chosen = machine.vif(4, front={"hvd-multicast-control": "1"})
    group, other = bytes.fromhex("01005e000001"), bytes.fromhex("01005e000002")
    chosen.front.join(group)
    machine.run()
    for to in (group, other, BROADCAST):
        one.front.send(frame(to, one.mac))
    machine.run()
    assert [packet[:6] for packet in chosen.front.receive_many()] == [group, BROADCAST]
    chosen.kill_backend()
    chosen.connect()  # groups are joined anew
    chosen.front.leave(other)
    machine.run()
    one.front.send(frame(group, one.mac))
    machine.run()
    assert len(chosen.front.receive_many()) == 1
    chosen.front.leave(group)
    machine.run()
    one.front.send(frame(group, one.mac))
    machine.run()
    assert chosen.front.receive_many() == []


@pytest.mark.parametrize(
    ("keys", "error"),
    [({"request-rx-copy": "0"}, "request-rx-copy"), ({"tx-ring-ref": "x"}, "tx-ring-ref"),
     ({"event-channel-tx": "-1"}, "event-channel-tx"), ({"multi-queue-num-queues": "0"}, "is 0"),
     ({"multi-queue-num-queues": "5"}, "multi-queue-num-queues"), ({"multi-queue-num-queues": "2"}, "tx-ring-ref")],
)  # fmt: skip
def test_keys_that_make_no_sense_are_the_frontends_fault(machine, keys, error):
    vif = machine.vif(2, connect=False)
    good = vif.front.publish(vif.features)
    with pytest.raises(PeerFault, match=error):
        vif.back.attach(good | keys)
    vif.back.detach()


def test_a_link_goes_down_and_up_and_its_guest_hears_of_it(machine, pair):
    one, two = pair
    for value, up in (("down", False), ("down", False), ("up", True), ("", True)):
        two.back.changed("hvd-link", value)
        assert two.front.link_up is up and one.front.link_up
        one.front.send(frame(two.mac, one.mac))
        machine.run()
        assert len(two.front.receive_many()) == up
    two.back.changed("hvd-link", "down")
    two.back_keys["hvd-link"] = "down"
    two.kill_backend()  # its successor finds it in the keys
    two.connect()
    one.front.send(frame(two.mac, one.mac))
    machine.run()
    assert two.front.receive_many() == [] and two.features["carrier"] == "0"


@pytest.mark.parametrize("channels", ["split", "shared"])
def test_who_has_to_wait_for_its_rate_loses_nothing_and_receives_meanwhile(machine, channels):
    slow = machine.vif(2, front={"hvd-channels": channels}, rate="2000,10000")
    two = machine.vif(3)
    packets = [two.mac + slow.mac + TEST_TYPE + bytes([number]) * 1000 for number in range(10)]
    slow.front.send_many(packets)
    machine.run()
    assert len(two.front.receive_many()) < 10
    sent = [frame(slow.mac, two.mac, number.to_bytes(2, "big")) for number in range(600)]  # more than it has buffers
    for start in range(0, 600, 200):
        two.front.send_many(sent[start : start + 200])
        machine.run()
    received = []
    while some := slow.front.receive_many():
        received += some
        machine.run()
    assert received == sent
    arrived = two.front.receive_many()
    while slow.back.counters()["received"] < 10:
        machine.driver.wait(0.1)
        machine.run()
    arrived += two.front.receive_many()
    assert arrived == packets[-len(arrived) :] and slow.back.counters()["throttled"] > 0


def test_rings_that_a_backend_has_let_go_of_are_not_used_again(machine, pair):
    one, two = pair
    one.front.send(frame(two.mac, one.mac))
    one.front.backend_gone()
    one.front.connected(one.features)  # a backend that changes its mind, and the rings are as it left them
    assert not one.front.front.attached
    one.back.detach()
    one.offer()
    one.connect()
    machine.run()
    assert two.front.receive_many()[-1:] == [frame(two.mac, one.mac)]


def test_once_its_pages_are_mapped_a_packet_goes_on_without_a_handler(machine, pair):
    one, two = pair
    packets = [frame(two.mac, one.mac, bytes([number])) for number in range(10)]
    one.front.send(packets[0])
    machine.run()
    called: list[int] = []
    machine.driver.deliver = called.extend
    for packet in packets[1:]:
        one.front.send(packet)
        machine.run()
    assert not called
    assert two.front.receive_many() == packets


def test_what_a_native_turn_finds_wrong_closes_that_vif_alone(machine, pair):
    one, liar = pair
    three = machine.vif(4)
    queue = liar.front.queues[0]
    queue.tx.push(struct.pack("<IHHHH", queue.ref + 2, 4000, 0, 0, 200))
    queue.tx_endpoint.notify()
    one.front.send(frame(three.mac, one.mac))
    machine.run()
    assert [str(fault) for fault in liar.faults] == ["a part of a packet of 200 bytes from 4000 on crosses its page"]
    assert not one.faults and three.front.receive_many() == [frame(three.mac, one.mac)]


@pytest.mark.parametrize("channels", ["split", "shared"])
def test_another_rate_holds_at_once_for_what_waits_and_for_who_attaches_again(machine, channels):
    slow, two = machine.vif(2, front={"hvd-channels": channels}, rate="1000,1000000000"), machine.vif(3)
    packets = [two.mac + slow.mac + TEST_TYPE + bytes([number]) * 1000 for number in range(10)]
    slow.front.send_many(packets)
    machine.run()
    assert len(two.front.receive_many()) == 1  # a quarter of an hour for the next
    slow.back.changed("rate", "3000,1000000000")
    machine.run()
    assert len(two.front.receive_many()) == 3
    for nonsense in ("", "much"):  # no limit; and what is none changes nothing
        slow.back.changed("rate", nonsense)
        machine.run()
    assert len(two.front.receive_many()) == 6
    for rate, passed in (("3000,1000000000", 3), ("2000,1000000000", 2)):  # behind the first it owes something
        slow.front.backend_gone()
        slow.back.detach()
        slow.back.changed("rate", rate)
        slow.connect()
        slow.front.send_many(packets)
        machine.run()
        assert len(two.front.receive_many()) == passed


def test_who_attaches_again_has_the_rate_that_he_had(machine):
    slow, two = machine.vif(2, rate="3000,1000000000"), machine.vif(3)
    packet = two.mac + slow.mac + TEST_TYPE + bytes(1000)
    for _ in range(5):
        slow.front.send_many([packet] * 5)
        machine.run()
        slow.front.backend_gone()
        slow.back.detach()
        slow.connect()
    machine.run()
    assert len(two.front.receive_many()) == 3
