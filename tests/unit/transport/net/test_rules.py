"""Rules at their edges: what fits one, which decides, and that a table of them costs a turn what it should."""

import pytest

from hvd.domains.net.policy import Policy, compile_policy
from hvd.transport._native import NetEnd, NetRules
from hvd.transport.errors import LocalError
from hvd.transport.net_rules import parse_rule

from .ends import tx
from .packets import frame, udp4, udp6

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


def test_a_table_has_256_rules_and_no_more():
    NetRules(bytes(66 * 256), True)
    with pytest.raises(LocalError, match="at most 256 rules of 66 bytes"):
        NetRules(bytes(66 * 257), True)
    with pytest.raises(LocalError, match="not 65 bytes"):
        NetRules(bytes(65), True)


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
