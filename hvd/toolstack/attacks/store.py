"""Attacks on XenStore and what hangs on it: disks' images, the consoles' logs."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from pathlib import Path

from hvd.toolstack.attacks.arena import ENDED, Arena, harm, harmless, home
from hvd.toolstack.attacks.attack import Attack, Attempt, Seen
from hvd.toolstack.attacks.broker import against_broker, memory_kib, resident_kib, undefended
from hvd.toolstack.cli.console import terminal_path
from hvd.toolstack.cluster import Domain, DomainState, NotReached
from hvd.transport import messages as m
from hvd.transport.hypercalls import HypercallError
from hvd.transport.multicall import ask_all

GROWTH_MAX_KIB = 4096
"""What a domain may make the broker grow by."""
REWRITES = 12_800
LOG_BYTES = 6 << 20
LOGS_MAX = 3 << 20
"""Two files of 1 MiB, and what was on its way."""
DOM0_NODES = 8_000
NODES_QUOTA, NODES_TRIED = 1_000, 1_500
"""What a guest may have, and what it tries to."""
VISITORS, LEAVES = 3, 3
REFUSED = (
    r"did StoreWatch None, StoreWrite ENOSPC, (Store\w+ EINVAL, ){4}StoreMkdir EACCES, (StoreMkdir EINVAL, ){3}"
    r"StoreWatch None, (Store\w+ ENOENT, ){2}(StoreSetPerms EINVAL, ){2}StoreSetPerms ENOSPC, "
    r".*Multicall EINVAL, Multicall EBADMSG$"
)
"""What became of each request of `store.send_oversize`."""
TYPED_BYTES, TYPES_S = 4 << 20, 1.0


def _victim(arena: Arena) -> tuple[Domain, str]:
    """A domain with a secret in a node of its own."""
    domain, secret = arena.add(m.DomainConfig("victim", "hvd:idle")), secrets.token_hex(16)
    arena.write(domain, "data/secret", secret)
    return domain, secret


def _permit(arena: Arena, domain: Domain, path: str, *entries: str) -> None:
    arena.cluster.call(m.StoreSetPerms(0, f"{home(domain)}/{path}", [f"n{domain.domid}", *entries]))


def reach_another(permitted: str) -> Attempt:
    """Its nodes are as they were, and the attacker does not know what is in them; or it is `permitted` to."""

    def attempt(arena: Arena) -> Seen:
        victim, secret = _victim(arena)
        attacker = arena.domain("store.reach_another", victim.domid, paused=True)
        if permitted:
            for path in ("data", "data/secret"):
                _permit(arena, victim, path, f"{permitted}{attacker.domid}")
        attacker.unpause()
        told = arena.outcome(attacker)
        if secret in told:
            return harm("it knows what is in the victim's node")
        if arena.read(victim, "data/secret") != secret:
            return harm("the victim's node was changed")
        return harmless(told)

    return attempt


def _reach_root(arena: Arena) -> Seen:
    victim, secret = _victim(arena)
    told = arena.attack("store.reach_root")
    planted = [path for path in ("/planted", "/tool/planted") if _exists(arena, path)]
    if planted or arena.read(victim, "data/secret") != secret:
        return harm(f"{told}; {' '.join(planted) or 'nodes of others are gone'}")
    return harmless(told)


def _reach_root_permitted(arena: Arena) -> Seen:
    before = list(arena.cluster.call(m.StoreGetPerms(0, "/")))
    attacker = arena.domain("store.reach_root", paused=True)
    arena.cluster.call(m.StoreSetPerms(0, "/", [*before, f"b{attacker.domid}"]))
    attacker.unpause()
    arena.outcome(attacker)
    planted = _exists(arena, "/planted")
    arena.cluster.call(m.StoreSetPerms(0, "/", before))
    with contextlib.suppress(HypercallError):
        arena.cluster.call(m.StoreRm(0, "/planted"))
    return Seen(planted, "a node stands below the root" if planted else "there is no such node")


def _exists(arena: Arena, path: str) -> bool:
    with contextlib.suppress(HypercallError):
        arena.cluster.call(m.StoreRead(0, path))
        return True
    return False


def _listen(permitted: bool) -> Attempt:
    def attempt(arena: Arena) -> Seen:
        victim, _ = _victim(arena)
        name = f"n{secrets.token_hex(8)}"
        attacker = arena.domain("store.listen", f"{home(victim)}/data")
        arena.node(attacker, "data/listening")
        if permitted:
            _permit(arena, victim, "data", f"r{attacker.domid}")
        arena.write(victim, f"data/{name}", "1")
        arena.write(attacker, "data/go", 1)
        told = arena.outcome(attacker)
        return harm("it heard of a node that only its owner is to know") if name in told else harmless(told)

    return attempt


def _reused_id(same: bool) -> Attempt:
    """A node that a domain is permitted to read, and a domain that comes when that one is gone."""

    def attempt(arena: Arena) -> Seen:
        victim, secret = _victim(arena)
        first = arena.add(m.DomainConfig("first", "hvd:idle"))
        _permit(arena, victim, "data/secret", f"r{first.domid}")
        first.destroy()
        second = arena.domain("store.reach_another", victim.domid, paused=True)
        if same:
            _permit(arena, victim, "data/secret", f"r{second.domid}")
        second.unpause()
        told = arena.outcome(second)
        what = f"the dead one was domain {first.domid}, its successor is {second.domid}"
        return harm("the successor reads what the dead one might") if secret in told else harmless(what)

    return attempt


def _give_away(arena: Arena) -> Seen:
    victim, _ = _victim(arena)
    attacker = arena.domain("store.give_away", victim.domid)
    told = arena.outcome(attacker)
    (owner, *_) = arena.cluster.call(m.StoreGetPerms(0, f"{home(attacker)}/data/gift"))
    return harmless(told) if owner == f"n{attacker.domid}" else harm(f"the node is domain {owner[1:]}'s")


def _given_by_domain_0(arena: Arena) -> Seen:
    victim, _ = _victim(arena)
    attacker = arena.domain("store.give_away", victim.domid)
    arena.outcome(attacker)
    path = f"{home(attacker)}/data/gift"
    arena.cluster.call(m.StoreSetPerms(0, path, [f"n{victim.domid}"]))
    (owner, *_) = arena.cluster.call(m.StoreGetPerms(0, path))
    return Seen(owner == f"n{victim.domid}", f"the node is domain {owner[1:]}'s")


def _fill(arena: Arena) -> Seen:
    before, broker = resident_kib(arena), arena.broker_pid()
    domain = arena.domain("store.fill", wait=False)
    arena.until(lambda: bool(_filled(arena, domain)) or domain.state in ENDED, "XenStore to be full")
    told = _filled(arena, domain) or domain.last_death
    grown = resident_kib(arena) - before
    victim, secret = _victim(arena)
    served = arena.read(victim, "data/secret") == secret and arena.broker_pid() == broker
    what = f"{told}; the broker has {grown:,} KiB more, and others write"
    return harm(what) if grown > GROWTH_MAX_KIB or not served else harmless(what)


def _filled(arena: Arena, domain: Domain) -> str:
    """The line on the hypervisor's console; "" while there is none."""
    lines = [line for line in arena.cluster.dmesg() if line.startswith(f"(d{domain.domid}) XenStore is full")]
    return lines[-1] if lines else ""


def _fill_as_domain_0(arena: Arena) -> Seen:
    before = resident_kib(arena)
    for start in range(0, DOM0_NODES, 32):
        ask_all(arena.cluster.call, [m.StoreWrite(0, f"/attack/{start}/{n}", b"x" * 1900) for n in range(32)])
    grown = resident_kib(arena) - before
    arena.cluster.call(m.StoreRm(0, "/attack"))
    return Seen(grown > 2 * GROWTH_MAX_KIB, f"{DOM0_NODES:,} nodes, and the broker has {grown:,} KiB more")


def _dodge(by_domain_0: bool) -> Attempt:
    """The nodes that there are in the end; the control's are made by domain 0, which has no quota."""

    def attempt(arena: Arena) -> Seen:
        attacker = arena.domain("store.dodge_quota", 0 if by_domain_0 else NODES_TRIED)
        told = arena.outcome(attacker)
        for start in range(0, NODES_TRIED if by_domain_0 else 0, 50):
            nodes = [f"{home(attacker)}/data/many/{n // 100}/{n}" for n in range(start, start + 50)]
            ask_all(arena.cluster.call, [m.StoreMkdir(0, node) for node in nodes])
        count = _count(arena, f"{home(attacker)}/data")
        what = f"{told}; it has {count:,} nodes"
        return harm(what) if count > NODES_QUOTA else harmless(what)

    return attempt


def _count(arena: Arena, path: str) -> int:
    names: list[str] = arena.cluster.call(m.StoreDirectory(0, path))
    return len(names) + sum(_count(arena, f"{path}/{name}") for name in names)


def _break_transactions(arena: Arena) -> Seen:
    """The broker is the same, counts the victim's nodes as before, and nothing of the dead domain is left."""
    broker = arena.broker_pid()
    victim, secret = _victim(arena)
    attacker = arena.domain("store.break_transactions", wait=False)
    told = arena.outcome(attacker)
    attacker.destroy()
    attacker.wait_gone()
    left = _exists(arena, home(attacker))
    served = arena.broker_pid() == broker and arena.read(victim, "data/secret") == secret
    what = f"{told}; {'nodes are' if left else 'nothing of it is'} left"
    return harm(what) if left or not served else harmless(what)


def _rewrite(arena: Arena) -> Seen:
    """The one who watches does not take its events: it is stopped."""
    attacker = arena.domain("store.rewrite", REWRITES, wait=False)
    watcher = arena.domain("store.listen", f"{home(attacker)}/data")
    arena.node(watcher, "data/listening")
    _permit(arena, attacker, "data", f"r{watcher.domid}")
    watcher.pause()
    before, broker = resident_kib(arena), arena.broker_pid()
    arena.write(attacker, "data/go", 1)
    told = arena.outcome(attacker)
    grown = resident_kib(arena) - before
    what = f"{told}; the broker has {grown:,} KiB more"
    return harm(what) if grown > GROWTH_MAX_KIB or arena.broker_pid() != broker else harmless(what)


def _medium(hosts: bool) -> Attempt:
    """Another's image: its backend is a driver domain, or (the control) the attacker itself."""

    def attempt(arena: Arena) -> Seen:
        secret = secrets.token_hex(16)
        image = arena.home / "image"
        image.write_bytes(secret.encode() + bytes(512 - len(secret)))
        driver = arena.add(m.DomainConfig("driver", "hvd:driver_domain", driver_domain=True))
        attacker = arena.domain("store.take_medium", driver.domid + 2, paused=True, driver_domain=hosts)
        keys = {"params": str(image), "mode": "r", "dev": "xvda"}
        disk = m.DeviceConfig("vbd", 51712, attacker.name if hosts else driver.name, keys)
        arena.add(m.DomainConfig("victim", "hvd:idle", devices=[disk]), wait=not hosts)
        attacker.unpause()
        told = arena.outcome(attacker)
        return harm("it reads the image of another's disk") if secret in told else harmless(told)

    return attempt


def _forge_console(permitted: bool) -> Attempt:
    """Where `hvd console` attaches, and what else stands in the domain's home; or the domain is let write there."""

    def attempt(arena: Arena) -> Seen:
        forged = str(arena.home / "forged-terminal")
        attacker = arena.domain("store.forge_console", forged, paused=True)
        right = arena.node(attacker, "console/tty")
        facts = ("console/tty", "console/port", "console/limit", "domid", "name", "memory/target")
        before = [arena.read(attacker, fact) for fact in facts]
        if permitted:
            _permit_all(arena, attacker, "console/tty")
        attacker.unpause()
        told = arena.outcome(attacker)
        try:
            attached = terminal_path(arena.cluster, attacker)
        except NotReached as error:
            return harm(f"`hvd console` would attach to nothing: {error}")
        if attached != right:
            return harm(f"`hvd console` would attach to {Path(attached).name}")
        same = before == [arena.read(attacker, fact) for fact in facts]
        return harmless(told) if same else harm(f"what the toolstack reads of it is changed: {told}")

    return attempt


def _permit_all(arena: Arena, domain: Domain, path: str) -> None:
    """The node, which is domain 0's, may be written by this domain."""
    arena.cluster.call(m.StoreSetPerms(0, f"{home(domain)}/{path}", ["n0", f"b{domain.domid}"]))


def _visit(arena: Arena, host: Domain, *, dies: bool) -> tuple[Domain, int]:
    """A domain that makes all the nodes that it may in another's home, and how many that was."""
    visitor = arena.domain("store.leave_nodes", host.domid, NODES_QUOTA, int(dies), wait=False)
    arena.until(lambda: (arena.read(visitor, "data/made") or "none") != "none", "it to have all that it may")
    made = int(arena.node(visitor, "data/made"))
    arena.write(visitor, "data/go", 1)
    return visitor, made


def _leave_together(arena: Arena) -> str:
    """Home and visitors go at once: what is below the one is also the others'."""
    least = NODES_QUOTA
    for _ in range(LEAVES):
        host = arena.domain("store.let_all_in")
        arena.outcome(host)
        made = [_visit(arena, host, dies=False)[1] for _ in range(VISITORS)]
        least = min(least, *made)
        arena.clear()
    return f"{LEAVES} times {VISITORS} visitors, of {least:,} nodes or more, went together with whose guests they were"


def _leave_nodes(dies: bool) -> Attempt:
    """What the dead made in another's home is not there; of those that live each has its own quota."""

    def attempt(arena: Arena) -> Seen:
        host = arena.domain("store.let_all_in")
        arena.outcome(host)
        made = 0
        for _ in range(VISITORS):
            visitor, more = _visit(arena, host, dies=dies)
            made += more
            if dies:
                visitor.wait_state(DomainState.PRESERVED)
                visitor.destroy()
                visitor.wait_gone()
        count = _count(arena, f"{home(host)}/data")
        what = f"{VISITORS} made {made:,} nodes; {count:,} are there"
        return harm(what) if count > NODES_QUOTA else harmless(what)

    return attempt


def _log_flood(arena: Arena) -> Seen:
    domain = arena.domain("store.print_without_end", LOG_BYTES)
    told = arena.outcome(domain)
    time.sleep(0.1)  # what is on its way is written
    logs = [domain.log_path(), domain.log_path().with_suffix(".log.1")]
    size = sum(path.stat().st_size for path in logs if path.exists())
    what = f"{told}; its logs have {size:,}"
    return harm(what) if size > LOGS_MAX else harmless(what)


def _never_reads(arena: Arena) -> Seen:
    """What is typed to a domain that reads nothing waits with whoever types, and not in domain 0."""
    domain, dom0 = arena.domain("victims.be_deaf_to_input"), arena.cluster.domain("Domain-0").pid or 0
    arena.node(domain, "data/deaf")
    terminal = os.open(arena.node(domain, "console/tty"), os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    before, typed, until = memory_kib(dom0), 0, time.monotonic() + TYPES_S
    try:
        while typed < TYPED_BYTES and time.monotonic() < until:
            with contextlib.suppress(BlockingIOError):
                typed += os.write(terminal, b"x" * 1024)
    finally:
        os.close(terminal)
    grown = memory_kib(dom0) - before
    what = f"{typed:,} bytes were typed, and domain 0 has {grown:,} KiB more"
    return harm(what) if typed >= TYPED_BYTES or grown > GROWTH_MAX_KIB else harmless(what)


def _naive_log(arena: Arena) -> Seen:
    return undefended("writes_all_it_is_told", str(arena.home / "naive.log"), LOG_BYTES)(arena)


PERMISSIONS = "XenStore: permissions"
ATTACKS: list[Attack] = [
    Attack("reading another domain's store", PERMISSIONS, reach_another(""), reach_another("r"),
           "with permission to read"),
    Attack("writing another domain's store", PERMISSIONS, reach_another(""), reach_another("w"),
           "with permission to write"),
    Attack("XSA-353 the root node", PERMISSIONS, _reach_root, _reach_root_permitted, "with permission on the root"),
    Attack("XSA-115 events of nodes that it may not read", PERMISSIONS, _listen(False), _listen(True),
           "with permission to read"),
    Attack("XSA-322 XSA-417 a dead domain's rights", "broker: a domid is never used again", _reused_id(False),
           _reused_id(True), "with a permission of its own domid, as if it were the dead one's"),
    Attack("XSA-352 a node given away", "XenStore: only domain 0 gives away", _give_away, _given_by_domain_0,
           "by domain 0"),
    Attack("XSA-440 XSA-483 a quota dodged", "XenStore: quotas", _dodge(False), _dodge(True),
           "by domain 0, which has none"),
    Attack("XSA-419 nodes left in another's home", "XenStore: a domain's nodes go with it", _leave_nodes(True),
           _leave_nodes(False), "by some that live on, each with a quota of its own"),
    Attack("a home that goes with its visitors", "XenStore: accounts follow whatever goes",
           against_broker(_leave_together, f"{LEAVES} times {VISITORS} visitors, of [1-9]"),
           undefended("forgets_its_parents", 3), "against a store that looks up late"),
    Attack("XSA-414 XSA-415 transactions left half-done", "XenStore: a transaction is a tree of its own",
           _break_transactions, undefended("forgets_its_parents", 3), "against a store without them"),
    Attack("XSA-326 filling XenStore", "XenStore: quotas", _fill, _fill_as_domain_0, "under domain 0's quotas"),
    Attack("XSA-349 rewriting a watched node", "XenStore: events are bounded", _rewrite,
           undefended("queues_without_end", REWRITES), "against a queue without a bound"),
    Attack("XSA-324 XSA-323 XSA-481 oversize and malformed", "XenStore: bounds",
           against_broker(lambda arena: arena.attack("store.send_oversize"), REFUSED),
           undefended("copies_whatever_comes", 5000), "against a buffer of 4,096 bytes that takes what comes"),
    Attack("XSA-418 a path of a thousand names", "XenStore: bounds",
           against_broker(lambda arena: arena.attack("store.send_oversize"), REFUSED),
           undefended("walks_recursively", "a/" * 1400), "against a store that walks recursively"),
    Attack("XSA-175 XSA-178 another's disk image", "broker: devices are in its own tables", _medium(False),
           _medium(True), "as the backend that the toolstack made it"),
    Attack("XSA-57 a console that ends elsewhere", PERMISSIONS, _forge_console(False), _forge_console(True),
           "with permission to write where it ends"),
    Attack("XSA-392 input that is never read", "dom0: it takes what the ring has room for", _never_reads,
           undefended("queues_without_end", TYPED_BYTES // 1024), "against a peer that keeps what is not taken"),
    Attack("XSA-180 a console flood", "dom0: logs are rotated", _log_flood, _naive_log, "into a log without rotation"),
]  # fmt: skip
