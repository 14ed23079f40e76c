"""Attacks on the other end of a grant or a ring: a domain that keeps to the rules, and (the controls') a naive one."""

from __future__ import annotations

import secrets
import time

from hvd.toolstack.attacks.arena import Arena, harm, harmless
from hvd.toolstack.attacks.attack import Attack, Attempt, Seen
from hvd.toolstack.attacks.broker import against_broker, undefended
from hvd.toolstack.attacks.layers import attacks_on
from hvd.toolstack.cluster import Domain, DomainState
from hvd.transport.limits import COPY_SEGMENTS_MAX, MAPTRACK_MAX

ORIGINAL = "original"
RING_SLOTS = 32
FULL = r"did has \{'extents': [1-9]\d*, 'grants': [1-9]\d*, 'ports': [1-9]\d*\}"
"""Of whom was refused one more."""
STORM = 100_000
HARMLESS_WAKES = 10
DEFENDED, NAIVE = "defended", "naive"
LOOKS, LOOK_AGAIN_S = 10, 0.05
RACES, RACE_S = 30, 60.0


def granted(arena: Arena, mode: str, attacker: Domain, secret: str = "") -> Domain:
    """A victim that grants the attacker a page, which the attacker has been told of."""
    owner = arena.domain("victims.grant", mode, secret)
    arena.write(owner, "data/peer", attacker.domid)
    arena.write(attacker, "data/owner", owner.domid)
    arena.write(attacker, "data/ref", arena.node(owner, "data/ref"))
    return owner


def write_granted(mode: str, off: tuple[str, ...]) -> Attempt:
    def attempt(arena: Arena) -> Seen:
        attacker = arena.domain("grants.write_granted", mode, off=off)
        owner = granted(arena, mode, attacker)
        told = arena.outcome(attacker)
        content = (arena.ask(owner) or {}).get("content")
        return harmless(f"15 ways: {told}") if content == ORIGINAL else harm(f"the owner finds {content!r} in its page")

    return attempt


def _keep_mapping(mode: str, function: str = "keep_mapping") -> Attempt:
    def attempt(arena: Arena) -> Seen:
        secret = secrets.token_hex(16)
        attacker = arena.domain(f"grants.{function}")
        owner = granted(arena, mode, attacker, secret)
        arena.node(attacker, "data/mapped")
        arena.write(owner, "data/revoke", 1)
        revoked = (arena.ask(owner) or {}).get("revoked")
        arena.write(attacker, "data/go", 1)
        told = arena.outcome(attacker)
        what = "it reads what the owner put there since"
        return harm(what) if secret in told else harmless(f"revoking was {revoked}")

    return attempt


def _outlive(arena: Arena, off: tuple[str, ...]) -> Seen:
    """The owner's page must not change any more when the attacker is known to be dead."""
    attacker = arena.domain("grants.outlive", off=off, sandbox="program")
    arena.note_sandbox(attacker)
    owner = granted(arena, "writable", attacker)
    arena.node(attacker, "data/mapped")
    arena.write(attacker, "data/go", 1)
    attacker.wait_state(DomainState.PRESERVED)
    return still(arena, owner)


def still(arena: Arena, owner: Domain) -> Seen:
    """Nobody writes to the owner's page any more."""
    first = (arena.ask(owner) or {}).get("content")
    for _ in range(LOOKS):  # a writer that waits for a CPU has not stopped
        time.sleep(LOOK_AGAIN_S)
        if (arena.ask(owner) or {}).get("content") != first:
            return harm("a dead domain goes on writing")
    return harmless("the page stays as it is")


def _read_beyond(mode: str) -> Attempt:
    def attempt(arena: Arena) -> Seen:
        secret = secrets.token_hex(16)
        attacker = arena.domain("grants.read_beyond")
        granted(arena, mode, attacker, secret)
        told = arena.outcome(attacker)
        return harm("it reads what lies in the next page") if secret in told else harmless(told)

    return attempt


def _unmap_twice(arena: Arena) -> Seen:
    """Another domain's mapping of another page must be there still: its owner cannot take that back."""
    neighbour, attacker = arena.domain("grants.keep_mapping"), arena.domain("grants.unmap_twice")
    owner = granted(arena, "writable", neighbour)
    arena.node(neighbour, "data/mapped")
    granted(arena, "writable", attacker)
    told = arena.outcome(attacker)
    arena.write(owner, "data/revoke", 1)
    revoked = str((arena.ask(owner) or {}).get("revoked"))
    what = f"{told}; taking another's page back is {revoked}"
    return harmless(what) if revoked.startswith("refused") else harm(what)


def _race_unmaps(arena: Arena) -> Seen:
    """While the attacker has it mapped once its owner cannot have its page back, and then he can: each is counted."""
    attacker = arena.domain("races.race_unmaps", RACES)
    owner = granted(arena, "writable", attacker)
    arena.node(attacker, "data/kept", RACE_S)
    arena.write(owner, "data/revoke", 1)
    if not str((arena.ask(owner) or {}).get("revoked")).startswith("refused"):
        return harm("the owner has a page back that is mapped")
    arena.write(attacker, "data/go", 1)
    return _taken_back(arena, owner, arena.outcome(attacker))


def _map_partly(arena: Arena) -> Seen:
    """When every batch was refused nothing of the owner's is mapped: it can have its page back."""
    attacker = arena.domain("grants.map_partly")
    owner = granted(arena, "writable", attacker)
    told = arena.outcome(attacker)
    return _taken_back(arena, owner, told)


def _die_mapping(dies: bool) -> Attempt:
    """What a dead domain had mapped its owner can have back; what one that lives has, not."""

    def attempt(arena: Arena) -> Seen:
        attacker = arena.domain("grants.die_mapping", int(dies))
        owner = granted(arena, "writable", attacker)
        if dies:
            attacker.wait_state(DomainState.PRESERVED)
            return _taken_back(arena, owner, "it died with 20 mappings")
        return _taken_back(arena, owner, arena.outcome(attacker))

    return attempt


def _die_owning(arena: Arena) -> Seen:
    """Whoever has mapped a dead owner's page reads what was there, and when it has gone too the page goes."""
    before = arena.cluster.info()["extents"]
    owner = arena.domain("grants.die_owning")
    mapper = arena.domain("grants.keep_mapping")
    arena.write(owner, "data/peer", mapper.domid)
    arena.write(mapper, "data/owner", owner.domid)
    arena.write(mapper, "data/ref", arena.node(owner, "data/ref"))
    arena.node(mapper, "data/mapped")
    arena.write(owner, "data/go", 1)
    owner.wait_state(DomainState.PRESERVED)
    arena.write(mapper, "data/go", 1)
    told = arena.outcome(mapper)
    if ORIGINAL not in told:
        return harm(f"whoever had mapped its page: {told}")
    for domain in (owner, mapper):
        domain.destroy()
        domain.wait_gone()
    try:
        arena.until(lambda: arena.cluster.info()["extents"] <= before, "the page to go with who had mapped it last")
    except TimeoutError as error:
        return harm(str(error))
    return harmless(f"{told[:40]}; it went with whoever had mapped it")


def _taken_back(arena: Arena, owner: Domain, told: str) -> Seen:
    arena.write(owner, "data/revoke", 1)
    revoked = str((arena.ask(owner) or {}).get("revoked"))
    what = f"{told}; taking the page back is {revoked}"
    return harmless(what) if revoked == "taken back" else harm(what)


def _fill_maptrack(arena: Arena) -> Seen:
    """Its own table is full, and nobody else's: another maps the same owner's page."""
    attacker, other = arena.domain("grants.fill_maptrack", 2 * MAPTRACK_MAX), arena.domain("grants.keep_mapping")
    granted(arena, "writable", attacker)
    told = arena.outcome(attacker)
    granted(arena, "writable", other)
    arena.node(other, "data/mapped")
    return harm(told) if told == f"did mapped it {2 * MAPTRACK_MAX} times" else harmless(f"{told}; another maps too")


def _lose_leader(arena: Arena) -> Seen:
    """While a thread of it writes it is not dead, and when it is dead no thread of it writes."""
    attacker = arena.domain("grants.lose_leader")
    owner = granted(arena, "writable", attacker)
    arena.node(attacker, "data/mapped")
    arena.write(attacker, "data/go", 1)
    arena.until(lambda: (arena.ask(owner) or {}).get("content") != ORIGINAL, "the attacker's thread to write")
    if attacker.state is not DomainState.RUNNING:
        return harm(f"it counts as {attacker.state}, and writes")
    attacker.kill()
    attacker.wait_state(DomainState.PRESERVED)
    return still(arena, owner)


def _copy(mode: str) -> Attempt:
    """Grant copies into a page, read-only or writable."""

    def attempt(arena: Arena) -> Seen:
        attacker = arena.domain("grants.copy_out_of_range")
        owner = granted(arena, mode, attacker)
        told = arena.outcome(attacker)
        content = (arena.ask(owner) or {}).get("content")
        return harmless(told) if content == ORIGINAL else harm(f"{told}; the owner finds {content!r} in its page")

    return attempt


def _copy_batches(*counts: int) -> Attempt:
    """None of a batch that is too long is carried out."""

    def attempt(arena: Arena) -> Seen:
        attacker = arena.domain("grants.copy_batches", *counts)
        owner = granted(arena, "writable", attacker)
        told = arena.outcome(attacker)
        content = (arena.ask(owner) or {}).get("content")
        return harmless(told) if content == ORIGINAL else harm(f"{told}; the owner finds {content!r} in its page")

    return attempt


def ring(arena: Arena, mode: str, function: str, *arguments: object, go: bool = True) -> tuple[Domain, Domain, str]:
    """A victim that serves the attacker's ring, the attacker, and the victim's secret."""
    secret = secrets.token_hex(16)
    victim = arena.domain("victims.serve_ring", mode, secret)
    attacker = arena.domain(function, *arguments)
    arena.write(attacker, "data/peer", victim.domid)
    for node in ("ref", "port"):
        arena.write(victim, f"data/{node}", arena.node(attacker, f"data/{node}"))
    arena.write(victim, "data/peer", attacker.domid)
    arena.node(victim, "data/serving")
    if go:
        arena.write(attacker, "data/go", 1)
    return victim, attacker, secret


def on_ring(mode: str, function: str, *arguments: object) -> Attempt:
    """The victim is harmed where it does not answer, served more than there are slots, or memory was overwritten."""

    def attempt(arena: Arena) -> Seen:
        victim, attacker, _ = ring(arena, mode, function, *arguments)
        told = arena.outcome(attacker)
        state = arena.ask(victim) and arena.ask(victim)  # it may have heard of the first question before the ring
        if state is None:
            return harm("the victim does not answer any more")
        if not state["intact"]:
            return harm("what lies behind the victim's buffer was overwritten")
        if not state["fault"] and "double" not in function and state["served"] > RING_SLOTS:
            return harm(f"the victim served {state['served']:,} requests of a ring of {RING_SLOTS}")
        fault = f", then: {state['fault']}" if state["fault"] else ""
        return harmless(f"{told}; the victim served {state['served']:,}{fault}")

    return attempt


def _for_ever(mode: str) -> Attempt:
    """The victim must do something else now and then."""

    def attempt(arena: Arena) -> Seen:
        victim, attacker, _ = ring(arena, mode, "rings.produce_for_ever")
        arena.outcome(attacker)
        state = arena.ask(victim)
        if state is None:
            return harm("the victim does not answer any more")
        what = f"the victim served {state['served']:,}, at most {state['most']:,} a wake-up"
        return harm(what) if state["most"] > RING_SLOTS else harmless(what)

    return attempt


def _padding(mode: str) -> Attempt:
    def attempt(arena: Arena) -> Seen:
        _, attacker, secret = ring(arena, mode, "rings.read_padding")
        told = arena.outcome(attacker)
        return harm("it reads what was on the victim's stack") if secret in told else harmless(told)

    return attempt


def _storm(arena: Arena) -> Seen:
    """For a victim that is stopped meanwhile: what it finds when it goes on."""
    victim, attacker, _ = ring(arena, DEFENDED, "rings.storm", STORM, go=False)
    before = (arena.ask(victim) or {}).get("wakes", 0)
    victim.pause()
    arena.write(attacker, "data/go", 1)
    told = arena.outcome(attacker)
    victim.unpause()
    state = arena.ask(victim)
    if state is None:
        return harm("the victim does not answer any more")
    wakes = state["wakes"] - before
    what = f"{told} to a victim that was paused; it found {wakes:,}"
    return harm(what) if wakes > HARMLESS_WAKES else harmless(what)


def _mapped_only(told: str) -> str:
    return f"{told}; the tables are full and nobody else's are"


ATTACKS: list[Attack] = [
    Attack("writing a read-only grant", "grants: sealed extents", write_granted("readonly", ()),
           write_granted("writable", ()), "of a page that is granted writable"),
    Attack("writing a read-only grant with every system call and a /proc", "grants: sealed extents",
           write_granted("readonly", ("seccomp", "root", "landlock")),
           write_granted("writable", ("seccomp", "root", "landlock")), "of a page that is granted writable"),
    Attack("XSA-396 keeping a page that was taken back", "grants: nothing is withdrawn while it is mapped",
           _keep_mapping("writable"), _keep_mapping(NAIVE), "from an owner that reuses the page all the same"),
    Attack("a page given back and kept", "grants: no page is used again", _keep_mapping("writable", "forge_unmap"),
           _keep_mapping(NAIVE, "forge_unmap"), "from an owner that reuses the page"),
    Attack("a forged death", "broker: death is the kernel's word", _keep_mapping("writable", "forge_death"),
           _keep_mapping(NAIVE, "forge_death"), "from an owner that believes what it sees"),
    *attacks_on("a child that outlives its domain", ("pid",), _outlive, also_off=("cgroups",)),
    Attack("a domain whose first thread has gone", "broker: death is the kernel's word", _lose_leader,
           lambda arena: _outlive(arena, ("pid", "cgroups")), "by a child, without pid, cgroups", needs=("pid",)),
    Attack("XSA-361 XSA-365 a batch of which one page cannot be mapped", "grants: a batch is mapped or refused whole",
           _map_partly, undefended("maps_what_it_can", 1, 2), "against a table that maps page by page"),
    Attack("XSA-371 a mapper that dies", "broker: what a dead domain held is withdrawn", _die_mapping(True),
           _die_mapping(False), "by one that lives on"),
    Attack("XSA-371 an owner that dies", "grants: extents are sealed, and live as long as they are mapped", _die_owning,
           undefended("maps_what_is_not_sealed"), "against one that maps a file that is not sealed"),
    Attack("exhausting mappings", "broker: quotas", _fill_maptrack, undefended("queues_without_end", 2 * MAPTRACK_MAX),
           "against a table without a bound"),
    Attack("XSA-403 a neighbour's data beside a granted page", "grants: an extent for each peer",
           _read_beyond("writable"), _read_beyond("beside"), "from an owner that keeps a secret in the same extent"),
    Attack("XSA-218 XSA-224 unmapping twice", "grants: a handle for each mapping", _unmap_twice,
           undefended("counts_without_names", 2, 5), "against a table that only counts"),
    Attack("XSA-228 XSA-236 unmapping on two connections at once", "grants: one loop decides", _race_unmaps,
           undefended("takes_entries_without_a_lock", 2), "against a table without a lock"),
    Attack("XSA-318 XSA-380 a batch that is too long", "broker: a batch has a bound",
           _copy_batches(COPY_SEGMENTS_MAX + 1, 1000), _copy_batches(COPY_SEGMENTS_MAX), "of as many as there may be"),
    Attack("XSA-382 grant copies out of range, of nothing, to others", "grants: each segment is checked",
           _copy("readonly"), _copy("writable"), "into a page that is granted writable"),
    Attack("exhausting extents, grants and ports", "broker: quotas",
           against_broker(lambda arena: _mapped_only(arena.attack("grants.fill_tables")), FULL),
           undefended("queues_without_end", 40_000), "against a table without a bound"),
    Attack("XSA-155 a double fetch", "rings: a slot is copied once", on_ring(DEFENDED, "rings.double_fetch"),
           on_ring(NAIVE, "rings.double_fetch"), "against a backend that reads a slot where it lies", tries=8),
    Attack("XSA-39 a producer's index too far ahead", "rings: indices are bounded",
           on_ring(DEFENDED, "rings.jump", 1000), on_ring(NAIVE, "rings.jump", 1000),
           "against a backend that believes it"),
    Attack("XSA-86 a producer's index that goes backwards", "rings: indices are bounded",
           on_ring(DEFENDED, "rings.jump", -5), on_ring(NAIVE, "rings.jump", -5),
           "against a backend that believes it"),
    Attack("XSA-39 production without end", "rings: a batch a wake-up", _for_ever(DEFENDED), _for_ever(NAIVE),
           "against a backend that takes all there is", tries=5),
    Attack("XSA-216 what lies beside a response's fields", "rings: a slot's rest is zeroed", _padding(DEFENDED),
           _padding(NAIVE), "from a backend that sends its stack"),
    Attack("XSA-332 an event storm", "event channels: events are merged", _storm,
           undefended("reads_every_byte", STORM), "against a pipe with a byte for each event"),
]  # fmt: skip
