"""A network's uplink in a driver domain: opened for the first vif, there for all, under the network's rules."""

from hvd.transport.packed_rules import pack_rules

HOST = bytes.fromhex("020000000001")
BROADCAST = b"\xff" * 6
VNET = bytes(10)
FREE = {"hvd_uplink": "tap0", "bridge": "lan"}


def frame(to, sender):
    return (to + sender + b"\x88\xb5").ljust(60, b"\0")


def host(machine, network="lan"):
    ((_, end),) = machine.uplinks[network]
    return end


def received(machine, end):
    machine.run()
    found = []
    while True:
        try:
            found.append(end.recv(1 << 16)[len(VNET) :])
        except BlockingIOError:
            return found


def test_it_is_opened_for_the_first_vif_of_its_network_and_once(machine):
    machine.vif(2, bridge="other")
    assert machine.uplinks == {}
    machine.vif(3, **FREE)
    machine.vif(4, **FREE)
    assert len(machine.uplinks["lan"]) == 1


def test_vifs_and_host_reach_each_other_through_it(machine):
    one, two = machine.vif(2, **FREE), machine.vif(3, **FREE)
    one.front.send(frame(BROADCAST, one.mac))
    assert received(machine, host(machine)) == [frame(BROADCAST, one.mac)]
    host(machine).send(VNET + frame(one.mac, HOST))
    machine.run()
    assert one.front.receive_many() == [frame(one.mac, HOST)]
    assert two.front.receive_many() == [frame(BROADCAST, one.mac)]


def test_more_than_a_turn_of_the_hosts_packets_arrives(machine):
    one = machine.vif(2, **FREE)
    for _ in range(100):
        host(machine).send(VNET + frame(one.mac, HOST))
    machine.run()
    assert len(one.front.receive_many()) == 100


def test_the_rules_of_the_network_are_its_rules_and_name_it(machine):
    rules = pack_rules(["deny from=uplink to=guest2", "deny from=guest3 to=uplink"], allow_by_default=True)
    one, two = machine.vif(2, **FREE, **rules), machine.vif(3, **FREE, **rules)
    host(machine).send(VNET + frame(BROADCAST, HOST))
    machine.run()
    two.front.send(frame(HOST, two.mac))
    one.front.send(frame(HOST, one.mac))
    assert received(machine, host(machine)) == [frame(HOST, one.mac)]
    assert one.front.receive_many() == []
    assert two.front.receive_many() == [frame(BROADCAST, HOST)]


def test_its_rules_hold_for_a_vif_that_has_none(machine):
    machine.vif(2, **FREE, **pack_rules([], allow_by_default=False))
    two = machine.vif(3, **FREE)
    host(machine).send(VNET + frame(two.mac, HOST))
    two.front.send(frame(HOST, two.mac))
    assert received(machine, host(machine)) == [] and two.front.receive_many() == []


def test_it_stays_when_vifs_go_and_come(machine):
    one = machine.vif(2, **FREE)
    one.kill_backend()
    host(machine).send(VNET + frame(one.mac, HOST))
    machine.run()
    one.connect()
    one.front.send(frame(HOST, one.mac))
    assert received(machine, host(machine)) == [frame(HOST, one.mac)]
    assert len(machine.uplinks["lan"]) == 1
