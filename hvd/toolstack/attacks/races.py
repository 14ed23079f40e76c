"""Attacks on the broker's tables while they change: grants, memory and ports asked for on two connections at once."""

from __future__ import annotations

import re
import time

from hvd.toolstack.attacks.arena import Arena, harm, harmless
from hvd.toolstack.attacks.attack import Attack, Attempt, Seen
from hvd.toolstack.attacks.broker import against_broker, undefended
from hvd.toolstack.attacks.pairs import DEFENDED, NAIVE, RING_SLOTS, granted, ring, still
from hvd.transport import messages as m
from hvd.transport.ids import DOM0, Port
from hvd.transport.limits import EXTENTS_MAX, PORTS_MAX

RACE_S = 60.0
ROUNDS = 30
AGAIN_S = 0.02
BORN_WITH = 3
"""Ports and more that a domain has from birth, and may never close."""
NOWHERE = 500
"""A port that nobody has."""
LINKS = (0, 2, 1)
"""Of a queue of two ports, each the other's next."""


def _race_copies(mode: str, *, keeps: bool) -> Attempt:
    """When its owner has it back nobody writes to the page any more; the control's uses it though it is mapped."""

    def attempt(arena: Arena) -> Seen:
        extents, broker = arena.cluster.info()["extents"], arena.broker_pid()
        attacker = arena.domain("races.race_copies", int(keeps))
        owner = granted(arena, mode, attacker)
        arena.node(attacker, "data/racing", RACE_S)
        until = time.monotonic() + RACE_S
        while True:
            arena.write(owner, "data/revoke", time.monotonic_ns())
            revoked = str((arena.ask(owner) or {}).get("revoked"))
            if revoked == "taken back" or mode == NAIVE:
                break
            if time.monotonic() > until:
                return harm(f"its owner never has his page back: {revoked}")
            time.sleep(AGAIN_S)
        seen = still(arena, owner)
        arena.write(attacker, "data/go", 1)
        told = _tried(arena.outcome(attacker, RACE_S), "copied", "changed")
        if seen.harmed or arena.broker_pid() != broker:
            return harm(f"its owner has his page back, and it changes; {told}" if seen.harmed else "the broker died")
        return _gone_with(arena, extents, f"{told}; the page is {revoked}, and {seen.what}")

    return attempt


def _tried(told: str, *counted: str) -> str:
    """What an attacker says it did. TimeoutError where it did none of what it is about: nothing was stopped then."""
    done = [re.search(rf"{each}\W+[1-9]", told) for each in counted]
    if not told.startswith("did ") or not all(done):
        raise TimeoutError(f"the attack comes to nothing: {told}")
    return told


def _gone_with(arena: Arena, extents: int, what: str) -> Seen:
    """No memory is left of the domains that there are."""
    arena.clear()
    try:
        arena.until(lambda: arena.cluster.info()["extents"] <= extents, "their memory to go with them")
    except TimeoutError as error:
        return harm(f"{what}; {error}")
    return harmless(what)


def _free_twice(arena: Arena) -> Seen:
    """It gets no more than anybody may have, a neighbour's page is his and mapped, and nothing is left of it."""
    before = arena.cluster.info()["extents"]
    attacker, mapper = arena.domain("races.free_twice", ROUNDS, paused=True), arena.domain("grants.keep_mapping")
    owner = granted(arena, "writable", mapper)
    arena.node(mapper, "data/mapped")
    others = arena.cluster.info()["extents"]
    attacker.unpause()
    told = arena.outcome(attacker, RACE_S)
    freed, has = int((re.findall(r"gave back (\d+)", told) or ["0"])[0]), arena.cluster.info()["extents"] - others
    arena.write(owner, "data/revoke", 1)
    neighbour = arena.ask(owner) or {}
    its_own = neighbour.get("content") == "original" and str(neighbour.get("revoked")).startswith("refused")
    what = f"{told}, {has} more are in use; a neighbour's page is {'his' if its_own else neighbour}"
    if has > EXTENTS_MAX or not 0 < freed <= ROUNDS or not its_own:
        return harm(what)
    return _gone_with(arena, before, what)


def _copy_crosswise(arena: Arena) -> str:
    pair = [arena.domain("races.copy_crosswise", ROUNDS) for _ in range(2)]
    for one, other in (pair, reversed(pair)):
        arena.write(one, "data/peer", other.domid)
    for one, other in (pair, pair[::-1]):
        arena.write(one, "data/peers-ref", arena.node(other, "data/ref"))
    told = [arena.outcome(one, RACE_S) for one in pair]
    if any("did copied nothing" in one or not one.startswith("did") for one in told):
        raise TimeoutError(f"who copies crosswise comes to nothing: {told}")
    return " and ".join(told)


def _reset_while_it_grows(arena: Arena) -> Seen:
    """It has as many ports in the end as there was room for, no more than may be, and none is left of it."""
    broker, before = arena.broker_pid(), arena.cluster.info()["ports"]
    attacker = arena.domain("races.reset_while_it_grows", ROUNDS)
    told = _tried(arena.outcome(attacker, RACE_S), "made", "reset")
    found = re.search(r"(\d+) ports before, (\d+) after", told)
    room = [int(number) for number in found.groups()] if found else [PORTS_MAX, 0]
    ports = map(Port, range(1, PORTS_MAX + 1))
    kept = sum(arena.cluster.call(m.EvtchnStatus(attacker.domid, port))["status"] != 0 for port in ports)
    arena.clear()
    try:
        arena.until(lambda: arena.cluster.info()["ports"] <= before, "its ports to go with it")
    except TimeoutError as error:
        return harm(f"{told}; {error}")
    what = f"{told}; {kept} are left, which it was born with"
    lost = max(room) + kept > PORTS_MAX or room[1] < room[0] - BORN_WITH or kept > BORN_WITH
    wrong = lost or arena.broker_pid() != broker
    return harm(what) if wrong else harmless(what)


def _scribble(arena: Arena) -> Seen:
    """The victim answers, served nothing that was not asked, and whoever lists channels sees them."""
    victim, attacker, _ = ring(arena, DEFENDED, "channels.scribble")
    told = _tried(arena.outcome(attacker), "scribbled")
    state = arena.ask(victim)
    listed = arena.cluster.call(m.SysctlEvtchns(DOM0))["rows"]
    if state is None or not state["intact"] or state["served"] > RING_SLOTS or not listed:
        return harm(f"the victim of what it {told} is {state}; {len(listed)} rows list the channels")
    return harmless(f"{told}; the victim answers, and was woken {state['wakes']:,} times")


ATTACKS: list[Attack] = [
    Attack("XSA-486 XSA-500 XSA-501 copies while what they are of changes", "grants: nothing is withdrawn by halves",
           _race_copies("writable", keeps=False), _race_copies(NAIVE, keeps=True),
           "from an owner that uses his page although it is mapped"),
    Attack("XSA-26 XSA-255 memory given back twice", "grants: an extent is its owner's, and goes once", _free_twice,
           undefended("frees_twice", 3), "to a list that takes whatever is given back"),
    Attack("XSA-411 copies crosswise", "grants: one loop decides", against_broker(_copy_crosswise, "did copied [1-9]"),
           undefended("locks_one_and_then_the_other", 2), "between two tables with a lock each"),
    Attack("XSA-344 XSA-505 resets of all ports while there come more", "event channels: one loop decides",
           _reset_while_it_grows, undefended("walks_a_table_that_grows", 10), "of a table that grows meanwhile"),
    Attack("XSA-221 events for ports that are none", "event channels: a port is looked up, or refused",
           against_broker(lambda arena: arena.attack("channels.ask_of_nothing"), "did asked of 9 ports, "),
           undefended("raises_ports_without_looking", 1, NOWHERE), "against one that looks nothing up"),
    Attack("XSA-107 XSA-358 XSA-359 a channel's words scribbled over", "event channels: a word counts or not",
           _scribble, undefended("follows_links", *LINKS), "against one that follows what its sender writes"),
]  # fmt: skip
