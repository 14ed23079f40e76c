"""Attacks on event channels and on what domains that were forked from one zygote might know of each other."""

from __future__ import annotations

from hvd.toolstack.attacks.arena import DEADLINE_S, Arena, harm, harmless
from hvd.toolstack.attacks.attack import Attack, Attempt, Seen
from hvd.toolstack.attacks.broker import against_broker, undefended
from hvd.toolstack.cluster import Domain
from hvd.transport import messages as m
from hvd.transport.ids import DOM0, Port

FLIPS = 150
KNOWN = 12
"""Characters of a key that its seeker is told."""
OWN_MEMORY = ("root", "landlock", "opaque", "seccomp", "uid", "user", "mount")


def bind_all(offered: bool) -> Attempt:
    """No port of the victim's is bound to the attacker; the control's victim offers one."""

    def attempt(arena: Arena) -> Seen:
        victim = arena.add(m.DomainConfig("victim", "hvd:idle"))
        attacker = arena.domain("channels.bind_all", victim.domid, paused=True)
        arena.cluster.call(m.EvtchnAllocUnbound(victim.domid, attacker.domid if offered else DOM0))
        attacker.unpause()
        told = arena.outcome(attacker)
        statuses = [arena.cluster.call(m.EvtchnStatus(victim.domid, Port(port))) for port in range(1, 20)]
        taken = any(status["remote_dom"] == attacker.domid and status["remote_port"] for status in statuses)
        return harm("a port of the victim's is bound to it") if taken else harmless(told)

    return attempt


def _ports_at_rest(arena: Arena) -> int:
    """How many there are when domain 0 has closed its ends of the consoles of those that are gone."""

    def are_closed() -> bool:
        there = arena.cluster.infos().keys()
        rows = [row for row in arena.cluster.event_channels() if row["domid"] == DOM0]
        return all(row["remote_domid"] is None or row["remote_domid"] in there for row in rows)

    arena.until(are_closed, "the consoles of the dead to be closed")
    return int(arena.cluster.info()["ports"])


def _flip(arena: Arena) -> Seen:
    """Two that bind each other's ports while they are closed; in the end there are as many ports as before."""
    broker, ports = arena.broker_pid(), _ports_at_rest(arena)
    pair = [arena.domain("channels.flip", FLIPS), arena.domain("channels.flip", FLIPS)]
    for one, other in (pair, reversed(pair)):
        arena.write(one, "data/peer", other.domid)
    told = [arena.outcome(one) for one in pair]
    for one in pair:
        one.destroy()
        one.wait_gone(DEADLINE_S)
    left = _ports_at_rest(arena) - ports
    what = f"{told[0]}; {left} ports are left"
    return harm(what) if left or arena.broker_pid() != broker else harmless(what)


def _bind_virqs(arena: Arena) -> Seen:
    """What was refused has changed nothing: as many ports, the same virq at the same port, and one more can be."""
    broker, attacker = arena.broker_pid(), arena.domain("channels.bind_virqs")
    arena.node(attacker, "data/full")
    before = _ports(arena, attacker)
    arena.write(attacker, "data/go", 1)
    refused = arena.node(attacker, "data/refused")
    changed = before != _ports(arena, attacker)
    arena.write(attacker, "data/free", 1)
    told = arena.outcome(attacker)
    what = f"{refused} of 40 were refused, {'its ports changed' if changed else 'no port changed'}; it {told}"
    harmed = changed or refused != "40" or "lost" in told or arena.broker_pid() != broker
    return harm(what) if harmed else harmless(what)


def _ports(arena: Arena, domain: Domain) -> list[object]:
    """How many there are, and what the first of this domain's are."""
    first = [arena.cluster.call(m.EvtchnStatus(domain.domid, Port(port))) for port in range(1, 20)]
    return [arena.cluster.info()["ports"], *first]


def _stuff(arena: Arena) -> Seen:
    victim = arena.domain("victims.serve_ring", "defended", "")
    attacker = arena.domain("channels.stuff")
    arena.write(attacker, "data/peer", victim.domid)
    for node in ("ref", "port"):
        arena.write(victim, f"data/{node}", arena.node(attacker, f"data/{node}"))
    arena.write(victim, "data/peer", attacker.domid)
    arena.node(victim, "data/serving")
    arena.write(attacker, "data/go", 1)
    told = arena.outcome(attacker)
    return harm("the victim does not answer any more") if arena.ask(victim) is None else harmless(
        f"{told}; the victim answers"
    )


def _find_key(own: bool) -> Attempt:
    """A domain that is forked when another has its key; or the one whose key it is."""

    def attempt(arena: Arena) -> Seen:
        victim = arena.domain("messages.tell_key")
        key = arena.node(victim, "data/key")
        if own:
            told = arena.attack("channels.find_own_key", off=OWN_MEMORY)
            return Seen("found its own" in told, told)
        told = arena.attack("channels.find_key", key[:KNOWN], off=OWN_MEMORY)
        return harm("it has the key of another domain") if key in told else harmless(told.partition(":")[0])

    return attempt


def _inherited(arena: Arena) -> Seen:
    """Nothing that one domain has open another has, though both are forks of one process."""
    first, second = (arena.attack("channels.list_descriptors").split()[1:] for _ in range(2))
    both = set(first) & set(second)
    what = f"{len(second)} files are open, {len(both)} of another domain's"
    return harm(what) if both or not second else harmless(what)


ATTACKS: list[Attack] = [
    Attack("XSA-342 ports of others and out of range", "event channels: a port is bound by whom it is held open for",
           bind_all(False), bind_all(True), "with a port that is held open for it"),
    Attack("XSA-496 virqs that cannot be bound", "event channels: nothing is changed before all is checked",
           _bind_virqs, undefended("notes_before_it_looks", 1), "against one that notes a virq before it has a port"),
    Attack("XSA-343 resets that race", "event channels: one loop decides",
           against_broker(lambda arena: arena.attack("channels.race_resets"), "did reset 60 times"),
           undefended("lets_go_of_what_is_in_use", 60), "against one that frees a port while it is used"),
    Attack("XSA-338 a port that is closed while it is bound", "event channels: one loop decides", _flip,
           undefended("lets_go_of_what_is_in_use", FLIPS), "against one that frees a port while it is used"),
    Attack("a channel's pipe filled, its flags changed", "event channels: a description for each end", _stuff,
           undefended("shares_a_description"), "against two that write one description"),
    Attack("another domain's descriptors in a fork", "zygote: it holds none", _inherited,
           undefended("closes_nothing", 16), "in a fork that closes nothing"),
    Attack("another domain's key in a fork", "zygote: it holds no key", _find_key(False), _find_key(True),
           "in the domain whose key it is"),
]  # fmt: skip
