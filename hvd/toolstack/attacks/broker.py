"""Attacks on the broker by messages. It is the same process afterwards, and goes on making domains."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import msgpack
import psutil

from hvd.toolstack.attacks import naive
from hvd.toolstack.attacks.arena import ENDED, PATIENCE_S, Arena, carried_out, harm, harmless
from hvd.toolstack.attacks.attack import Attack, Attempt, Seen
from hvd.toolstack.attacks.layers import IS_ROOT
from hvd.toolstack.cluster import Domain, DomainState
from hvd.transport import messages as m
from hvd.transport.codec import pack_request
from hvd.transport.ids import Port
from hvd.transport.run_dir import DOMAINS, ENDPOINT, LOG
from hvd.transport.xs_wire import Type, pack, strings

REPLAYS = 100
POISONED_MAX = 600
LONG_WATCHES = 2000
"""Of one node, so that a write takes 4 ms: more than a domain may have."""
LOADED_S = 2.0
FORGED = 300
UNREAD, UNREAD_CONNECTIONS = 60, 2
SEND_WITHOUT_END: tuple[str, *tuple[object, ...]] = ("messages.send_without_end", 16, 12_000)
ENDLESS_S, ENDLESS_MAX_KIB = 60.0, 1 << 20
LOOK_AGAIN_S = 0.01
FLOOD_DESCRIPTORS, FLOODERS_MAX = 4000, 8
KILLED = "failed: killed by SIGKILL"
FLOODS, HOARDS = "it has connected more than", "it sends messages that have no end"
"""What the broker's log says of whom it kills for that."""
REACHES_SOCKETS = ("root", "landlock", *(("uid",) if IS_ROOT else ("user", "mount")))
IDENTITY = "c0123456789abcdef"
"""A routing id as a toolstack program has one, which speaks in domain 0's name."""


def against_broker(attack: Callable[[Arena], str], as_told: str) -> Attempt:
    """It is harmed where it is another process than before, or makes no domain any more.

    `as_told`: how what is told of the attack begins, as a pattern, where it was carried out to its end: with what was
    refused, or with whom the broker has killed for it. Of any other nothing is said (`arena.carried_out`).
    """

    def attempt(arena: Arena) -> Seen:
        before = arena.cluster.info()
        told = carried_out(attack(arena), as_told)
        arena.add(m.DomainConfig("afterwards", "hvd:idle")).wait_ready()
        after = arena.cluster.info()
        if (after["broker_pid"], after["broker_restarts"]) != (before["broker_pid"], before["broker_restarts"]):
            return harm(f"the broker died: {told}")
        return harmless(f"{told}; the broker is the same and made a domain")

    return attempt


def undefended(peer: str, *arguments: object) -> Attempt:
    """The same against one without the check."""

    def control(arena: Arena) -> Seen:
        harmed, what = naive.run(peer, *arguments)
        return Seen(harmed, what)

    return control


def _on_another(arena: Arena) -> Seen:
    victim = _bystander(arena)
    ports = arena.cluster.info()["ports"]
    told = arena.attack("messages.on_another", victim.domid)
    info = victim.info()
    if info.state is not DomainState.RUNNING or info.incarnation != 1 or "carried out: nothing" not in told:
        return harm(f"{told}; the victim is {info.state}")
    return harmless(f"{told}; the victim runs, {arena.cluster.info()['ports'] - ports} ports more, its attacker's")


def _by_domain_0(arena: Arena) -> Seen:
    victim = _bystander(arena)
    arena.cluster.call(m.DomctlPause(victim.domid))
    paused = victim.state is DomainState.PAUSED
    arena.cluster.call(m.DomctlDestroy(victim.domid))
    return Seen(paused, f"the victim was {'paused' if paused else 'not paused'} and destroyed")


def _bystander(arena: Arena) -> Domain:
    domain = arena.add(m.DomainConfig("bystander", "hvd:idle"))
    arena.write(domain, "data/secret", "original")
    return domain


def _endpoint(arena: Arena, domain: Domain) -> str:
    return f"ipc://{arena.cluster.run_dir}/{DOMAINS}/{domain.domid}.1/{ENDPOINT}"


def _speak_as(*, own_endpoint: bool, key: bool, off: tuple[str, ...] = ()) -> Attempt:
    """The victim's store has what it never wrote, or has not."""

    def attempt(arena: Arena) -> Seen:
        victim = arena.domain("messages.tell_key")
        theirs = arena.node(victim, "data/key")
        address = "" if own_endpoint else _endpoint(arena, victim)
        told = arena.attack("messages.speak_as", address, theirs if key else "", IDENTITY, off=off)
        forged = arena.read(victim, "data/forged") is not None
        return harm("the victim's store was written in its name") if forged else harmless(told)

    return attempt


def _dead_key(*, dead: bool) -> Attempt:
    """The key of an incarnation that is dead, at the endpoint of the one that lives."""

    def attempt(arena: Arena) -> Seen:
        victim = arena.domain("messages.tell_key")
        key, address = arena.node(victim, "data/key"), _endpoint(arena, victim)
        if dead:
            victim.kill()
            victim.wait_state(DomainState.PRESERVED)
            victim.reboot()
            victim.wait_ready()
            address = address.replace(f"/{victim.domid}.1/", f"/{victim.domid}.2/")
        told = arena.attack("messages.speak_as", address, key, IDENTITY, off=REACHES_SOCKETS)
        forged = arena.read(victim, "data/forged") is not None
        return harm("the victim's store was written in its name") if forged else harmless(told)

    return attempt


def _replay(step: int) -> Attempt:
    def attempt(arena: Arena) -> Seen:
        domain = arena.domain("messages.replay", REPLAYS, step, wait=False)
        told = arena.outcome(domain)
        ports = [n for n in range(1, 1024) if _status(arena, domain, n)]
        made = len(ports) - 2  # the upcall port and the console's
        what = f"{told}, {made} ports were made"
        return harm(what) if made > 1 else harmless(what)

    return attempt


def _status(arena: Arena, domain: Domain, port: int) -> int:
    return int(arena.cluster.call(m.EvtchnStatus(domain.domid, Port(port)))["status"])


def _nonsense() -> list[str]:
    """Broken in every way that a message can be, in hexadecimal."""
    good = pack_request(m.StoreMkdir(0, "data/made"), 10**6, 0, 0)
    nested = b"\x91" * 900 + b"\xc0"
    bad = [
        b"", b"\xc1", good[:-1], good + b"x", nested, b"\x96\x01\x05\x00\x00\xcd\x11\x00" + nested,
        bytes([0x96, 1, 6, 0, 0, 0xCD, 0xFF, 0xFF, 0x90]), b"x" * 2_000, good.replace(b"data/made", b"data\x00made"),
        msgpack.packb([1, 2**63, 0, 0, 0x8002, [0, 1]]), msgpack.packb({}), msgpack.packb([1] * 6),
    ]  # fmt: skip
    return [one.hex() for one in bad]


NONSENSE = _nonsense()


def _forged_descriptors(arena: Arena) -> Seen:
    broker = arena.broker_pid()
    domain = arena.domain("messages.send_descriptors", FORGED)
    before = _open_descriptors(broker)
    told = arena.outcome(domain)
    arena.add(m.DomainConfig("afterwards", "hvd:idle")).wait_ready()
    domain.destroy()
    gained = _open_descriptors(broker) - before
    what = f"{told}; the broker, the same as before, has {gained} descriptors more"
    return harm(what) if gained > FORGED or arena.broker_pid() != broker else harmless(what)


def _open_descriptors(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def _flood(arena: Arena) -> str:
    """From as many domains as it takes, were each to have all the descriptors that it may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    domains = min(hard // FLOOD_DESCRIPTORS + 2, FLOODERS_MAX)
    flooders = [arena.domain("messages.flood_connections", wait=False) for _ in range(domains)]
    ends = {flooder: arena.outcome(flooder) for flooder in flooders}
    killed = [flooder for flooder, end in ends.items() if end == KILLED and _is_killed_for(arena, flooder, FLOODS)]
    return f"{len(killed)} of {domains} domains were killed for it; the first: {ends[flooders[0]]}"


def _is_killed_for(arena: Arena, domain: Domain, what: str) -> bool:
    """Whether the broker's log says so, which it is written to a moment later."""
    log = Path(arena.cluster.run_dir) / LOG / "broker.log"

    def is_told() -> bool:
        told = [json.loads(line) for line in log.read_text().splitlines() if what in line] if log.exists() else []
        return any(line.get("domid") == domain.domid for line in told)

    with contextlib.suppress(TimeoutError):
        arena.until(is_told, f"the broker to say that {domain.name} {what}", PATIENCE_S)
        return True
    return False


def _deaf(arena: Arena) -> Seen:
    before, broker = resident_kib(arena), arena.broker_pid()
    domain = arena.domain("messages.be_deaf", wait=False)
    told = carried_out(arena.outcome(domain), KILLED)
    grown = resident_kib(arena) - before
    what = f"{told}; the broker has {grown} KiB more"
    return harm(what) if arena.broker_pid() != broker or grown > 4096 else harmless(what)


def _unread(arena: Arena) -> Seen:
    """Its own connection and two more are as many as it may have: on one more it is killed."""
    before, broker = resident_kib(arena), arena.broker_pid()
    domain = arena.domain("messages.read_no_replies", UNREAD_CONNECTIONS, UNREAD, wait=False)
    told = carried_out(arena.outcome(domain), f"did asked {UNREAD} times on each of {UNREAD_CONNECTIONS} connections")
    grown = resident_kib(arena) - before
    what = f"{told}; the broker has {grown:,} KiB more"
    return harm(what) if arena.broker_pid() != broker or grown > 4096 else harmless(what)


def endless(count: int, order: tuple[str, *tuple[object, ...]] = SEND_WITHOUT_END) -> Attempt:
    """Each is killed for it, as the broker's log says, and nobody else; what the broker had is what came in two looks.

    One who asks on and on meanwhile is answered, and each time rightly, until they have gone and then. `order`: what
    they do instead.
    """

    def attempt(arena: Arena) -> Seen:
        broker = arena.broker_pid()
        caller = arena.domain("messages.ask_on")
        hoarders = [
            arena.domain(*order, wait=False, sandbox="program", memory=1024) for _ in range(count)
        ]
        most, at, until = 0, [""], time.monotonic() + ENDLESS_S
        while going := [domain for domain in hoarders if _goes_on(arena, domain)]:
            before, at = at, [f"{domain.name} is at {arena.read(domain, 'data/sent')}" for domain in going]
            most = max(most, memory_kib(broker))
            if at != before:  # however slowly: who goes on is not waited for in vain
                until = time.monotonic() + ENDLESS_S
            if most > ENDLESS_MAX_KIB or time.monotonic() > until:
                return harm(f"the broker has {most:,} KiB; {', '.join(at)}")
            time.sleep(LOOK_AGAIN_S)
        ends = [carried_out(arena.outcome(domain), f"{KILLED}|did sent") for domain in hoarders]
        killed = [_is_killed_for(arena, domain, HOARDS) for domain, end in zip(hoarders, ends, strict=True)
                  if end == KILLED]  # fmt: skip
        answered, says = is_answered(arena, caller)
        what = f"{', '.join(ends)}; {sum(killed)} of {count} for it; the broker had {most:,} KiB at most; {says}"
        stopped = sum(killed) == count and answered and arena.broker_pid() == broker
        return harmless(what) if stopped else harm(what)

    return attempt


def is_answered(arena: Arena, caller: Domain) -> tuple[bool, str]:
    """Whether one that asks on has had no wrong answer, and has more right ones soon; and how it is."""
    first, until = arena.ask(caller), time.monotonic() + PATIENCE_S
    last = first
    while first and last and last["right"] == first["right"] and not last["wrong"] and time.monotonic() < until:
        last = arena.ask(caller)
    info = caller.info()
    if not first or not last or (info.state, info.incarnation) != (DomainState.RUNNING, 1):
        return False, f"one that asks on and on is {info.state} {info.last_death}, and does not say how it is"
    says = f"one that asks on and on has had {last['right']:,} answers{last['wrong'] and ', and a wrong one: '}"
    return last["right"] > first["right"] and not last["wrong"], f"{says}{last['wrong']}"


def _goes_on(arena: Arena, domain: Domain) -> bool:
    return domain.state not in ENDED and arena.read(domain, "data/outcome") is None


AT_WORK_S, LOOKS, IDLE_S = 0.02, 40, 3.0
"""Within how much CPU time of a broker's coming it is surely at what its attacker asked before, and in how many places
one looks whether it is, eight while it is; and when such a time does not come."""


def _poison(arena: Arena) -> Seen:
    """Whoever crashes over its hypercall is not fed it a third time. That a broker crashes is the suite's own doing.

    And so is that there is a hypercall that takes long enough to be found at it.
    """
    (before,) = re.findall(rb"watches +: +([0-9]+)", _control(arena, b"quota"))
    _control(arena, b"quota", b"set", b"watches", b"%d" % LONG_WATCHES)
    try:
        return _find_at_it(arena)
    finally:
        _control(arena, b"quota", b"set", b"watches", before)


def _control(arena: Arena, *words: bytes) -> bytes:
    """Of XenStore, as domain 0."""
    with socket.socket(socket.AF_UNIX) as xenstored:
        xenstored.settimeout(PATIENCE_S)
        xenstored.connect(arena.cluster.info()["xenstored_socket"])
        xenstored.sendall(pack(Type.CONTROL, 0, 0, strings(*words)))
        answer = xenstored.recv(4096)
    if answer[:4] != bytes([Type.CONTROL, 0, 0, 0]):
        raise RuntimeError(f"CONTROL {words} was refused: {answer!r}")
    return answer


def _find_at_it(arena: Arena) -> Seen:
    machine, broker = int(arena.cluster.info()["machine_pid"]), arena.broker_pid()
    attacker, other = arena.domain("messages.work_long", LONG_WATCHES, wait=False), _bystander(arena)
    arena.node(attacker, "data/working")
    deaths = 0
    while attacker.state is DomainState.RUNNING and deaths < POISONED_MAX:
        _let_work(arena, broker, _on_cpu_s(broker) + AT_WORK_S * (deaths % LOOKS) / LOOKS)
        os.kill(broker, signal.SIGSEGV)
        deaths += 1
        arena.until(lambda: _broker_of(machine) not in (0, broker), "the next broker")  # noqa: B023
        broker = _broker_of(machine)
    if attacker.state is not DomainState.RUNNING:
        attacker.wait_state(DomainState.PRESERVED)
    info = attacker.info()
    what = f"{deaths} brokers ended; its sender: {info.last_death or info.state}"
    spared = other.info().incarnation == 1
    return harmless(what) if "was found open by" in info.last_death and spared else harm(what)


def _let_work(arena: Arena, broker: int, seconds: float) -> None:
    """Until it has been on a CPU for so long, however many others want it; or has had nothing to do for a while."""
    until = time.monotonic() + IDLE_S
    arena.until(lambda: _on_cpu_s(broker) >= seconds or time.monotonic() > until, "the broker to be at work")


def _on_cpu_s(pid: int) -> float:
    """How long its first thread has been on a CPU; 0 where it is gone."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    return 0.0


def _broker_of(machine: int) -> int:
    """The pid of the machine's broker; 0 between two of them."""
    for pid in Path(f"/proc/{machine}/task/{machine}/children").read_text().split():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text().split(")")[0].endswith("(hvd-broker"):
                return int(pid)
    return 0


def resident_kib(arena: Arena) -> int:
    """What the broker has of memory of its own, behind what it loads for its log when it has been up for a while."""
    pid, log = arena.broker_pid(), Path(arena.cluster.run_dir) / LOG / "broker.log"
    arena.until(lambda: time.time() - psutil.Process(pid).create_time() > LOADED_S and log.exists(),
                "the broker to have loaded all")  # fmt: skip
    return memory_kib(pid)


def memory_kib(pid: int) -> int:
    """What a process has of memory of its own. Files that it maps, as a broker does its journal, are bounded anyway."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1])
    return 0


LOCKS = "with the victim's key and its endpoint's directory given away"
ATTACKS: list[Attack] = [
    Attack("hypercalls on another domid", "broker: privileges", _on_another, _by_domain_0,
           "the same hypercalls from domain 0's endpoint"),
    Attack("forged ZeroMQ identities", "broker: the endpoint is the identity", _speak_as(own_endpoint=True, key=False),
           _speak_as(own_endpoint=False, key=True, off=REACHES_SOCKETS), LOCKS),
    Attack("another domain's endpoint with its key (root)", "root", _speak_as(own_endpoint=False, key=True),
           _speak_as(own_endpoint=False, key=True, off=REACHES_SOCKETS), LOCKS, needs=("root",)),
    Attack("another domain's endpoint without its key", "broker: CURVE",
           _speak_as(own_endpoint=False, key=False, off=REACHES_SOCKETS),
           _speak_as(own_endpoint=False, key=True, off=REACHES_SOCKETS), LOCKS),
    Attack("a dead incarnation's key", "broker: a key for each incarnation", _dead_key(dead=True),
           _dead_key(dead=False), "with the key of the incarnation that lives"),
    Attack("replayed messages", "broker: sequence numbers", _replay(0), _replay(1),
           "the same request under a new number each time"),
    Attack("broken messages", "broker: the codec",
           against_broker(lambda arena: arena.attack("messages.send_nonsense", *NONSENSE),
                          f"did {len(NONSENSE)} of {len(NONSENSE)} were answered"),
           undefended("trusts_messages", *NONSENSE), "against a peer that dispatches on what it unpacks"),
    Attack("a connection flood", "broker: connections_max", against_broker(_flood, r"(\d+) of \1 domains"),
           undefended("accepts_everybody", 56), "against a bare ZeroMQ socket with 64 descriptors"),
    Attack("forged descriptors", "broker: the upcall socket's other way", _forged_descriptors,
           undefended("keeps_descriptors", FORGED), "against a peer that ignores what comes with a message"),
    Attack("a hypercall that brokers die over", "broker: poison is refused", _poison, undefended("is_fed_again", 10),
           "against a server that is started again and fed again"),
    Attack("a domain that never reads its descriptor socket", "broker: outbox_max", _deaf,
           undefended("queues_without_end", 10_000), "against a peer that keeps what is not taken"),
    Attack("replies that are never read", "broker: queued_max", _unread, undefended("keeps_replies", UNREAD),
           "against a ZeroMQ socket without a bound"),
    *(Attack(f"messages that have no end{of}", "broker: hoard_bytes", endless(count),
             undefended("awaits_the_last_part", 2000, count), "against a ZeroMQ socket alone")
      for count, of in ((1, ""), (3, ", of three at once"), (5, ", of five at once"))),
]  # fmt: skip
