"""The switch against a model in plain Python: each packet reaches just those that it may, whole and in order."""

from __future__ import annotations

import mmap
import socket
import struct
from dataclasses import dataclass, field
from ipaddress import ip_address

from hypothesis import given, settings
from hypothesis import strategies as st

from hvd.domains.net.policy import Policy, compile_policy
from hvd.transport._native import (
    BackRing,
    Endpoint,
    FrontRing,
    NetEnd,
    NetFront,
    NetPort,
    NetRules,
    NetSwitch,
    NetUplink,
)
from hvd.transport.net_rules import Rule, parse_rule

REFS, PAGES = 512, 512
NAMES = ("a", "b", "c", "d")
MACS = {name: bytes((0, 0x16, 0x3E, 0, 0, number)) for number, name in enumerate(NAMES)}
OTHERS = [b"\xff" * 6, bytes.fromhex("01005e000001"), bytes.fromhex("020000000099"), bytes.fromhex("020000000098")]
V4 = ["10.0.0.1", "10.0.0.2", "10.1.0.1", "192.168.7.9"]
V6 = ["fd00::1", "fd00::2", "fd01::1"]
PORTS = [22, 80, 8080]


# ---- the model -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Packet:
    """What a packet is made of, and so what rules see of it."""

    source: bytes
    destination: bytes
    vlan: int | None = None
    ether: int = 0x88B5
    ip: str = ""
    to_ip: str = ""
    protocol: int = 0
    port: int = 0
    to_port: int = 0
    later_fragment: bool = False
    payload: bytes = b""

    def bytes_with(self, vlan: int | None) -> bytes:
        tag = b"" if vlan is None else struct.pack(">HH", 0x8100, vlan)
        return self.destination + self.source + tag + struct.pack(">H", self.ether) + self.network()

    def network(self) -> bytes:
        if not self.ip:
            return self.payload
        ports = struct.pack(">HH", self.port, self.to_port) if self.protocol in (6, 17) else b""
        body = (b"" if self.later_fragment else ports) + self.payload
        if self.ether == 0x0800:
            fragment = 5 if self.later_fragment else 0
            head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 0, fragment, 64, self.protocol, 0)
            return head + ip_address(self.ip).packed + ip_address(self.to_ip).packed + body
        kind = self.protocol
        if self.later_fragment:
            body, kind = struct.pack(">BBHI", kind, 0, 5 << 3, 1) + body, 44
        head = struct.pack(">IHBB", 6 << 28, len(body), kind, 64)
        return head + ip_address(self.ip).packed + ip_address(self.to_ip).packed + body

    @property
    def has_ports(self) -> bool:
        return self.protocol in (6, 17) and not self.later_fragment and bool(self.ip)


def fits(rule: Rule, packet: Packet, sender: str, receiver: str) -> bool:
    return all([
        rule.from_party in (None, sender),
        rule.to_party in (None, receiver),
        rule.mac in (None, packet.source),
        rule.to_mac in (None, packet.destination),
        rule.ether in (None, packet.ether),
        rule.ip is None or (bool(packet.ip) and ip_address(packet.ip) in rule.ip),
        rule.to_ip is None or (bool(packet.ip) and ip_address(packet.to_ip) in rule.to_ip),
        rule.protocol is None or (bool(packet.ip) and packet.protocol == rule.protocol),
        rule.port is None or (packet.has_ports and rule.port[0] <= packet.port <= rule.port[1]),
        rule.to_port is None or (packet.has_ports and rule.to_port[0] <= packet.to_port <= rule.to_port[1]),
    ])


@dataclass
class Vif:
    name: str
    network: int
    vlan: int
    trunk: list[int]
    up: bool = True
    mtu: int = 1500
    is_uplink: bool = False
    received: list[bytes] = field(default_factory=list)

    def member(self, vlan: int) -> bool:
        return vlan == self.vlan or vlan in self.trunk


class Model:
    """What a switch should do."""

    def __init__(self, vifs: list[Vif], policy: Policy | None) -> None:
        self.vifs, self.policy = vifs, policy
        self.learned: dict[tuple[int, bytes, int], str] = {}

    def send(self, sender: Vif, packet: Packet) -> None:
        vlan = packet.vlan or sender.vlan
        size = len(packet.bytes_with(None))
        if not sender.up or packet.source[0] & 1 or not sender.member(vlan) or size > 14 + sender.mtu:
            return
        pinned = {(vif.network, MACS[vif.name]): vif.name for vif in self.vifs if not vif.is_uplink}
        if (sender.network, packet.source) not in pinned:
            self.learned[sender.network, packet.source, vlan] = sender.name
        known = pinned.get((sender.network, packet.destination)) or self.learned.get(
            (sender.network, packet.destination, vlan)
        )
        for vif in self.vifs:
            wanted = known in (None, vif.name) or bool(packet.destination[0] & 1)
            near = vif is not sender and vif.network == sender.network and vif.member(vlan) and vif.up
            if near and wanted and self.allows(packet, sender.name, vif.name):
                vif.received.append(packet.bytes_with(None if vlan == vif.vlan else vlan))

    def allows(self, packet: Packet, sender: str, receiver: str) -> bool:
        if self.policy is None:
            return True
        for rule in self.policy.rules:
            if fits(rule, packet, sender, receiver):
                return rule.allow
        return self.policy.allow_by_default


# ---- the switch ------------------------------------------------------------------------------------------------------


class Real:
    """A vif of the native switch, with both of its ends."""

    def __init__(self, switch: NetSwitch, vif: Vif, parties: dict[str, int], rules: NetRules | None) -> None:
        self.pool = bytearray(PAGES * 4096)
        memories = [bytearray(4096) for _ in range(2)]
        tx, rx = FrontRing(memories[0], 12, 4), FrontRing(memories[1], 8, 8)
        for ring in (tx, rx):
            ring.init()
        back_tx, back_rx = BackRing(memories[0], 12, 4), BackRing(memories[1], 8, 8)
        ends = [Endpoint(mmap.mmap(-1, 4096), 0, -1, -1) for _ in range(4)]
        self.front = NetFront([memoryview(self.pool)], [REFS])
        self.front.attach([(tx, rx, ends[0], ends[1])])
        self.port = NetPort(
            switch=switch, ends=[(back_tx, back_rx, ends[2], ends[3])], network=vif.network,
            party=parties[vif.name], mac=MACS[vif.name], mtu=vif.mtu, vlan=vif.vlan, trunk=vif.trunk, rate_bytes=0,
            rate_interval_us=0, guarded=False, addresses=[], rules=rules, accepts=[True] * 5 + [False],
        )  # fmt: skip
        self.port.add(REFS, self.pool, True)
        self.port.link_up = vif.up

    def send(self, packet: bytes) -> None:
        assert self.front.send(packet)
        while self.port.serve(0).end is not NetEnd.DONE:
            continue

    def received(self) -> list[bytes]:
        packets: list[bytes] = []
        while True:
            self.front.collect()
            some = self.front.receive_many(1000)
            packets += some
            self.port.drain()
            if not some and not self.port.waits(0):
                return packets

    def close(self) -> None:
        self.port.close()


class RealUplink:
    """An uplink of the native switch, whose device is a socket."""

    def __init__(self, switch: NetSwitch, vif: Vif, parties: dict[str, int], rules: NetRules | None) -> None:
        self.device, self.host = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        self.uplink = NetUplink(
            switch=switch, fd=self.device.fileno(), network=vif.network, party=parties[vif.name], mtu=vif.mtu,
            rules=rules,
        )  # fmt: skip

    def send(self, packet: bytes) -> None:
        self.host.send(bytes(10) + packet)
        self.uplink.serve()

    def received(self) -> list[bytes]:
        packets: list[bytes] = []
        while True:
            try:
                packets.append(self.host.recv(1 << 16)[10:])
            except BlockingIOError:
                return packets

    def close(self) -> None:
        self.uplink.close()
        self.device.close()
        self.host.close()


vlans = st.sampled_from([0, 1, 2])
vifs = st.builds(Vif, st.just(""), st.sampled_from([0, 0, 0, 1]), vlans, st.lists(st.sampled_from([1, 2]), max_size=2),
                 st.sampled_from([True, True, True, False]), st.sampled_from([1500, 100]))  # fmt: skip
stations = st.sampled_from([*MACS.values(), *OTHERS])
payloads = st.binary(max_size=40) | st.integers(200, 1400).map(lambda size: bytes(i & 0xFF for i in range(size)))
plain = st.builds(Packet, stations, stations, st.sampled_from([None, 0, 1, 2, 3]),
                  st.sampled_from([0x88B5, 0x0806]), payload=payloads)  # fmt: skip


def ip_packets(ether: int, addresses: list[str]) -> st.SearchStrategy[Packet]:
    address = st.sampled_from(addresses)
    return st.builds(
        Packet, stations, stations, st.sampled_from([None, 1, 2]), st.just(ether), address, address,
        st.sampled_from([6, 17, 1, 89]), st.sampled_from(PORTS), st.sampled_from(PORTS), st.booleans(), payloads,
    )  # fmt: skip


packets = plain | ip_packets(0x0800, V4) | ip_packets(0x86DD, V6)
matches = st.lists(st.sampled_from([
    "from=a", "from=b", "to=c", "to=d", "mac=00:16:3e:00:00:00", "to-mac=ff:ff:ff:ff:ff:ff", "ether=arp", "ether=ipv6",
    "ip=10.0.0.0/8", "to-ip=10.0.0.2", "ip=fd00::/16", "to-ip=fd00::/127", "proto=tcp", "proto=udp", "proto=icmp",
    "proto=tcp port=22", "proto=tcp to-port=80-8080", "proto=udp to-port=22",
]), max_size=3, unique=True)  # fmt: skip


def rule_of(allow: bool, words: list[str]) -> Rule | None:
    try:
        return parse_rule(" ".join(["allow" if allow else "deny", *words]))
    except ValueError:
        return None  # two words that do not go together


rules = st.builds(rule_of, st.booleans(), matches).filter(lambda rule: rule is not None)
tables = st.builds(lambda found, allow: Policy(tuple(found), allow), st.lists(rules, max_size=6), st.booleans())
policies = st.none() | tables


@settings(max_examples=300, deadline=None)
@given(
    st.lists(vifs, min_size=2, max_size=4), st.none() | st.integers(0, 3), policies,
    st.lists(st.tuples(st.integers(0, 3), packets), max_size=30),
)  # fmt: skip
def test_packets_reach_whom_they_may_whole_and_in_order_and_nobody_else(some, uplink, policy, sent):
    for number, (name, vif) in enumerate(zip(NAMES, some, strict=False)):
        vif.name = name
        if number == uplink:
            vif.is_uplink, vif.vlan, vif.trunk, vif.up = True, 0, [], True
    parties = {name: number + 1 for number, name in enumerate(NAMES)}
    switch, model = NetSwitch(), Model(some, policy)
    table = None if policy is None else compile_policy(policy, parties.__getitem__)
    real = [(RealUplink if vif.is_uplink else Real)(switch, vif, parties, table) for vif in some]
    for number, packet in sent:
        at = number % len(some)
        real[at].send(packet.bytes_with(packet.vlan))
        model.send(some[at], packet)
    for vif, own in zip(some, real, strict=True):
        assert own.received() == vif.received, vif
        own.close()


# ---- any bytes at all ------------------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(min_size=14, max_size=400), max_size=10), st.booleans())
def test_whatever_bytes_are_sent_nothing_is_delivered_under_a_policy_that_denies(frames, guarded):
    switch, parties = NetSwitch(), {"a": 1, "b": 2}
    table = compile_policy(Policy((), False), parties.__getitem__)
    one, two = (Real(switch, Vif(name, 0, 0, [1, 2]), parties, table) for name in ("a", "b"))
    for frame in frames:
        one.send(MACS["b"] + MACS["a"] + frame[12:] if guarded else frame)
    assert two.received() == []
    for each in (one, two):
        each.port.close()


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=20, max_size=600), st.sampled_from([b"\x08\x00\x45", b"\x86\xdd\x60", b"\x81\x00\x00"]))
def test_bytes_that_only_look_like_ip_are_parsed_within_their_bounds(tail, kind):
    """Under rules that look at everything, and the sanitizers of tests/native, in the same parser."""
    switch, parties = NetSwitch(), {"a": 1, "b": 2}
    lines = ("deny proto=tcp port=22", "deny ip=10.0.0.0/8 proto=udp", "deny ip=fd00::/8", "deny ether=arp")
    table = compile_policy(Policy(tuple(map(parse_rule, lines)), True), parties.__getitem__)
    one, two = (Real(switch, Vif(name, 0, 0, [1, 2]), parties, table) for name in ("a", "b"))
    frame = MACS["b"] + MACS["a"] + kind + tail
    one.send(frame)
    untagged = frame[:12] + frame[16:]  # a tag of VLAN 0 is none, and comes off
    assert two.received() in ([], [frame], [untagged] if kind.startswith(b"\x81") else [])
    for each in (one, two):
        each.port.close()
