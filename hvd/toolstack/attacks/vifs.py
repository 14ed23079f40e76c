"""Attacks through a vif: packets that may not reach another guest, and rings that may not harm the driver domain."""

from __future__ import annotations

from hvd.toolstack.attacks.arena import DEADLINE_S, Arena, harm, harmless
from hvd.toolstack.attacks.attack import Attack, Attempt, Seen
from hvd.toolstack.attacks.broker import memory_kib, undefended
from hvd.toolstack.attacks.pairs import NAIVE, on_ring
from hvd.transport.messages import DeviceConfig, DomainConfig, RestartPolicy
from hvd.transport.packed_rules import pack_rules

FOREVER = RestartPolicy(limit=0)
DENIED = pack_rules(["deny ether=0x88b6"], allow_by_default=True)
FLOOD, WAITING_MAX_KIB = 20_000, 6144
"""Packets of 1,400 bytes, 28 MB; and what a vif's queue of 4 MiB may make its driver domain grow by."""
UNGUARDED = {"hvd-guard": "0"}


def _vif(number: int, keys: dict[str, str] | None = None) -> DeviceConfig:
    mac = f"00:16:3e:00:00:0{number}"
    return DeviceConfig("vif", 0, "switch", {"mac": mac, "bridge": "attacks", **(keys or {})}, {"mac": mac})


def _packet(
    kind: str, attacker: dict[str, str], victim: dict[str, str] | None = None, function: str = "vif.send"
) -> Attempt:
    """The victim hears of a packet that it is not to, if anything; and of an honest one behind it."""

    def attempt(arena: Arena) -> Seen:
        arena.add(DomainConfig("switch", "hvd:driver_domain", driver_domain=True, restart=FOREVER))
        listener = arena.domain("vif.listen", wait=False, devices=[_vif(1, victim)])
        arena.node(listener, "data/listens")
        arena.domain(function, *kind.split(), wait=False, devices=[_vif(2, attacker)])
        told = arena.outcome(listener)
        if told == "did heard nothing":
            return harmless("the victim heard the honest packet alone")
        return harm(f"the victim {told.removeprefix('did ')}")

    return attempt


def _chains(arena: Arena) -> Seen:
    """The driver domain must be the one it was, and carry others' packets."""
    driver = arena.add(DomainConfig("switch", "hvd:driver_domain", driver_domain=True, restart=FOREVER))
    told = arena.outcome(arena.domain("vif.break_ring", wait=False, devices=[_vif(3)]), 4 * DEADLINE_S)
    carried = _packet_again(arena)
    if driver.incarnation != 1:
        return harm(f"the driver domain died: {driver.last_death}")
    return harmless(f"{told}; others' packets are carried") if carried else harm("others' packets are not carried")


def _take_nothing(arena: Arena) -> Seen:
    """Others hear what it does not take, and the driver domain keeps no more of it than a queue's bound."""
    driver = arena.add(DomainConfig("switch", "hvd:driver_domain", driver_domain=True, restart=FOREVER))
    arena.node(arena.domain("vif.take_nothing", wait=False, devices=[_vif(3)]), "data/listens")
    before = memory_kib(driver.pid or 0)
    told = arena.outcome(arena.domain("vif.flood", FLOOD, wait=False, devices=[_vif(4)]), 4 * DEADLINE_S)
    grown = memory_kib(driver.pid or 0) - before
    carried = _packet_again(arena)
    what = f"{told}; the driver domain has {grown:,} KiB more, others' packets are {'' if carried else 'not '}carried"
    return harm(what) if driver.incarnation != 1 or grown > WAITING_MAX_KIB or not carried else harmless(what)


def _packet_again(arena: Arena) -> bool:
    listener = arena.domain("vif.listen", wait=False, devices=[_vif(1)])
    arena.node(listener, "data/listens")
    arena.domain("vif.send", "plain", wait=False, devices=[_vif(2)])
    return arena.outcome(listener) == "did heard the forged packet"


ATTACKS: list[Attack] = [
    Attack("a gateway's address claimed in ARP", "switch: vifs are guarded", _packet("spoofed-arp", {}),
           _packet("spoofed-arp", UNGUARDED), "from a vif that is not guarded"),
    Attack("another's MAC address as sender", "switch: vifs are guarded", _packet("spoofed-mac", {}),
           _packet("spoofed-mac", UNGUARDED), "from a vif that is not guarded"),
    Attack("a packet that a rule forbids", "switch: rules", _packet("plain", DENIED, DENIED), _packet("plain", {}),
           "on a network without rules"),
    Attack("a packet past the rules, by a vif without any", "switch: both ends' rules", _packet("plain", {}, DENIED),
           _packet("plain", {}), "to a vif without rules either"),
    Attack("a tag of a VLAN that it is not in", "switch: VLANs", _packet("tagged", {}, {"hvd-trunk": "2"}),
           _packet("tagged", {"hvd-trunk": "2"}, {"hvd-trunk": "2"}), "from a vif that is in it"),
    Attack("XSA-423 XSA-432 a forbidden packet in splinters", "netback: what decides is copied together, and once",
           _packet("", DENIED, DENIED, "vif.send_splinters"), _packet("", {}, None, "vif.send_splinters"),
           "on a network without rules"),
    Attack("XSA-392 XSA-424 a vif that takes no packets", "netback: what waits is bounded", _take_nothing,
           undefended("queues_without_end", FLOOD), "against a peer that keeps what is not taken"),
    Attack("XSA-39 XSA-90 XSA-216 XSA-448 a vif's chains and indices", "netback: slots are copied and checked",
           _chains, on_ring(NAIVE, "rings.jump", 1000), "an index too far ahead, against a backend that believes it"),
]  # fmt: skip
