"""Replay: after any commands, a broker that starts from the journal holds what the dead one held."""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from itertools import islice
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hvd.broker import multicall, spares
from hvd.broker.dispatch import is_journaled
from hvd.broker.domain import ALIVE, Life
from hvd.broker.grant_tables import Table
from hvd.broker.groups import Groups
from hvd.broker.hardware import Hardware, NoHardware
from hvd.broker.hypervisor import Hypervisor
from hvd.broker.networks import Networks
from hvd.broker.sessions import Sessions, domain_session
from hvd.broker.state import State
from hvd.broker.store import StoreError
from hvd.broker.store.watches import Watches
from hvd.broker.upcalls import UpcallQueue
from hvd.transport import messages as m
from hvd.transport.codec import pack_call, pack_request, unpack_request
from hvd.transport.ids import DOM0, DomId, ExtentId, GrantRef, Handle, Port
from hvd.transport.multicall import BRINGS
from hvd.transport.packed_rules import unpack_rules
from hvd.transport.sandbox import LAYERS
from hvd.transport.xs_wire import Type
from hvd.transport.xsm import EVERY_SECURITY, EVERYTHING, LABELS, OPEN_POLICY, vector

NAMES = ["drv", "ivi", "ic"]
ACTIONS = ["destroy", "restart", "rename-restart", "preserve", "coredump-restart"]
GROUPS = [
    m.GroupConfig("inner", ["drv", "ivi"], strategy="rest_for_one", limit=1, escalate="parent"),
    m.GroupConfig("outer", ["inner", "ic"], strategy="one_for_all", limit=2),
]
NETWORKS = [
    m.NetworkConfig("cabin", "drv", 9000, antispoof=True, allow_by_default=False, rules=["allow from=ivi"]),
    m.NetworkConfig("lan", "Domain-0", 1500, antispoof=False, allow_by_default=True, rules=[]),
]
PATHS = ["data/a", "data/a/b", "/local/domain/1/data", "/tool/x", "name", "no//path", "@releaseDomain"]
TOOLSTACK = "t:aa"
REFUSABLE = ["channel", "extent", "seal", "domain", "start", "endpoint", "spare", "start spare", "trace"]


class FlakyHardware(NoHardware):
    """A host that refuses what `broken` names, and says so, as the real one does."""

    def __init__(self) -> None:
        super().__init__()
        self.broken: set[str] = set()

    def _ask(self, what: str, number: int) -> None:
        if what in self.broken:
            self.refusals.append([what, number, errno.EMFILE])
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


# ---- random hypercalls -----------------------------------------------------------------------------------------------

BY_ID: dict[Any, st.SearchStrategy[Any]] = {
    DomId: st.sampled_from([0, 1, 2, 3, 4, 0x7FF0, 99]),
    Port: st.integers(1, 7),
    GrantRef: st.sampled_from([0, *range(8, 24)]),
    ExtentId: st.integers(1, 12),
    Handle: st.integers(1, 12),
    bool: st.booleans(),
    int: st.sampled_from([0, 1, 2, 3, 8]),
    str: st.sampled_from(PATHS),
    bytes: st.sampled_from([b"", b"1", b"4"]),
}


def values(hint: Any) -> st.SearchStrategy[Any]:
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if get_origin(hint) is dict:
        return st.dictionaries(st.sampled_from([*LAYERS, "bogus"]), st.sampled_from(["refused", ""]), max_size=2)
    if get_origin(hint) is list:
        return st.lists(values(get_args(hint)[0]), max_size=3)
    if is_dataclass(hint):
        return records(hint)
    return BY_ID[hint]


def records(kind: Any) -> st.SearchStrategy[Any]:
    hints = get_type_hints(kind, include_extras=True)
    return st.builds(kind, **{field.name: values(hints[field.name]) for field in fields(kind)})


VIFS = st.builds(
    m.DeviceConfig,
    kind=st.just("vif"),
    devid=st.integers(0, 1),
    backend=st.sampled_from(["drv", "Domain-0"]),
    backend_keys=st.fixed_dictionaries(
        {"bridge": st.sampled_from(["cabin", "lan", "lan", "none"])},
        optional={"hvd-default": st.just("allow 0"), "hvd-rules0": st.just("allow"), "mac": st.just("0:16:3e:0:0:1")},
    ),
)
CONFIGS = st.builds(
    m.DomainConfig,
    name=st.sampled_from(NAMES),
    kernel=st.just("hvd:idle"),
    on_poweroff=st.sampled_from(ACTIONS),
    on_crash=st.sampled_from(ACTIONS),
    on_watchdog=st.sampled_from(ACTIONS),
    restart=st.builds(m.RestartPolicy, limit=st.sampled_from([0, 1, 5]), delay_ms=st.sampled_from([0, 10])),
    after=st.lists(st.sampled_from(NAMES), max_size=1),
    devices=st.lists(
        st.builds(m.DeviceConfig, kind=st.sampled_from(["vbd", "bad//kind"]), devid=st.integers(0, 1),
                  backend=st.sampled_from(["Domain-0", "drv"])) | VIFS,
        max_size=2,
    ),
    paused=st.booleans(),
    spare=st.booleans(),
    driver_domain=st.booleans(),
    service=st.sampled_from(["", "gate", "gate"]),
    seclabel=st.sampled_from(["", "", "safety_t", "lost_t"]),
    sandbox_require=st.lists(st.sampled_from(["root", "seccomp"]), max_size=1),
)
VECTORS = st.sampled_from([0, EVERYTHING, vector("store", "read"), vector("event"), vector("grant", "map_read")])
POLICIES = st.builds(
    m.Policy,
    name=st.just("random"),
    labels=st.just(list(LABELS)),
    dom0=st.just("dom0_t"),
    driver_domain=st.just("driver_t"),
    guest=st.sampled_from(["domU_t", "safety_t"]),
    vectors=st.lists(VECTORS, min_size=len(LABELS) ** 2, max_size=len(LABELS) ** 2),
    security=st.lists(st.just(EVERY_SECURITY), min_size=len(LABELS), max_size=len(LABELS)),
)
WIRE_PATHS = st.sampled_from([b"data/a", b"data/b", b"data", b"/local/domain/1/data", b"/tool"])
WIRE = st.one_of(
    st.tuples(st.just(Type.TRANSACTION_START), st.just(0), st.just(b"\0")),
    st.tuples(st.just(Type.TRANSACTION_END), st.integers(1, 3), st.sampled_from([b"T\0", b"T\0", b"F\0"])),
    st.tuples(st.just(Type.WRITE), st.integers(0, 3), WIRE_PATHS.map(lambda path: path + b"\0value")),
    st.tuples(
        st.sampled_from([Type.READ, Type.DIRECTORY, Type.MKDIR, Type.RM]), st.integers(0, 3),
        WIRE_PATHS.map(lambda path: path + b"\0"),
    ),
    st.tuples(
        st.sampled_from([Type.WATCH, Type.UNWATCH]), st.just(0), WIRE_PATHS.map(lambda path: path + b"\0token\0")
    ),
    st.tuples(st.just(Type.RESET_WATCHES), st.just(0), st.just(b"\0")),
)  # fmt: skip
"""Requests by XenStore's protocol: type, transaction, payload."""
PERMS = st.lists(st.sampled_from(["n0", "n1", "r2", "b1", "w99", "x"]), min_size=1, max_size=3)
PARTS = [kind for kind in m.HYPERCALLS.values() if kind.__name__.startswith("Store") or kind in BRINGS]
"""What a multicall may hold, and one kind that it may not."""
SPECIAL: dict[type, st.SearchStrategy[Any]] = {
    m.DomctlCreate: st.builds(m.DomctlCreate, CONFIGS),
    m.DomctlAttach: records(m.DomctlAttach) | st.builds(m.DomctlAttach, BY_ID[DomId], VIFS),
    m.DomctlRename: records(m.DomctlRename) | st.builds(m.DomctlRename, BY_ID[DomId], st.sampled_from([*NAMES, "new"])),
    m.XsmLoad: st.builds(m.XsmLoad, POLICIES | st.just(OPEN_POLICY) | records(m.Policy)),
    m.StoreSetPerms: st.builds(m.StoreSetPerms, st.sampled_from([0, 1]), st.sampled_from(PATHS), PERMS),
    m.SetTimer: st.builds(m.SetTimer, st.sampled_from([0, 10**6, 10**9])),
}


def message(kind: Any) -> st.SearchStrategy[Any]:
    return SPECIAL[kind] if kind in SPECIAL else records(kind)


@pytest.fixture(autouse=True)
def little_is_much(monkeypatch):
    """So that multicalls are preempted."""
    monkeypatch.setattr(multicall, "MULTICALL_WORK_MAX", 15)
    monkeypatch.setattr(multicall, "MULTICALL_REPLY_BYTES_MAX", 2 * multicall.ITEM_BYTES_LEAST)


ENTRIES = st.sampled_from(PARTS).flatmap(message).map(pack_call)
SPECIAL[m.Multicall] = st.lists(ENTRIES, max_size=4).map(m.Multicall)
MESSAGES = st.sampled_from(sorted(m.HYPERCALLS.values(), key=str)).flatmap(message)


GUESTS = st.integers(0, 4)
"""Which domain, of those there are."""


# ---- comparing -------------------------------------------------------------------------------------------------------


def dump(value: Any, seen: dict[int, tuple[int, Any]]) -> Any:
    """Everything that an object holds, as plain data; what can change and is held twice is named the second time.

    `seen` keeps all of it alive, so that no two have one id.
    """
    if value is None or isinstance(value, int | str | bytes | Enum):
        return value
    if isinstance(value, UpcallQueue):
        pending = {(path, token): number for number, path, token in value.unacknowledged} | value.unsent
        return sorted(pending.items()), value.last, value.descriptors_sent
    if isinstance(value, NoHardware):
        return "hardware"
    if isinstance(value, Table):  # a dictionary of its refs says more than how they are kept
        refs: Any = {ref: value.refs[ref] for ref in value.refs}
        value = replace(value, refs=refs)
    if isinstance(value, Watches):
        value = set_again(value)
    if isinstance(value, tuple):
        return [dump(entry, seen) for entry in value]
    if id(value) in seen:
        return f"object {seen[id(value)][0]}"
    seen[id(value)] = len(seen), value
    if isinstance(value, dict):
        return [(dump(key, seen), dump(entry, seen)) for key, entry in value.items()]
    if isinstance(value, list | deque):
        return [dump(entry, seen) for entry in value]
    if isinstance(value, set | frozenset):
        return sorted((dump(entry, seen) for entry in value), key=repr)
    state = value.__getstate__() if hasattr(value, "__getstate__") else vars(value)
    if isinstance(state, dict):  # in no order that means anything
        state = dict(sorted(state.items()))
    return type(value).__name__, dump(state, seen)


def set_again(watches: Watches) -> Watches:
    """As a successor has them: nothing depends on what came first but within one path, or how often they changed."""
    made = Watches()
    for watch in watches.in_order():
        made.add(watch)
    assert {path: list(some) for path, some in made.by_path.items()} == {
        path: list(some) for path, some in watches.by_path.items()
    }
    for name in ("by_name", "_of", "_counts", "_bytes"):
        assert getattr(made, name) == getattr(watches, name), name
    return made


def contents(state: State) -> Any:
    """What a restart of the broker may not change: not when the last command was, each tells its own time."""
    state.hypervisor.events.now_ns = 0
    return dump(vars(state.hypervisor), {}), dump([state.sessions.last, state.sessions.suspects], {})


# ---- the machine -----------------------------------------------------------------------------------------------------


class Replay(RuleBasedStateMachine):
    """A broker without sockets: commands go into a journal, and now and then a successor starts from it."""

    def __init__(self) -> None:
        super().__init__()
        self.hardware = FlakyHardware()
        self.now = 1
        self.sequences: dict[str, int] = {}
        self.pid = 100
        hypervisor = Hypervisor(b"secret", 0, self.hardware, groups=Groups(GROUPS), networks=Networks(NETWORKS))
        hypervisor.create(m.DomainConfig("Domain-0", "hvd:dom0"), 0)
        self.state = State(hypervisor, Sessions())
        self.records = [self.state.snapshot()]
        self.draft: tuple[list[bytes], Iterator[bytes], list[bytes]] | None = None
        """The snapshot that is being taken in parts: those written, those to be, and what was carried out meanwhile."""

    @initialize()
    def domain_0_boots(self) -> None:
        self.command("started", self.now, 0, 1, 99)
        self.hypercall(DOM0, domain_session(DOM0, self.domain(0).incarnation), m.DomainReady())

    @initialize(configs=st.lists(CONFIGS, min_size=1, max_size=3, unique_by=lambda config: config.name))
    def domains_are_created(self, configs: list[m.DomainConfig]) -> None:
        for config in configs:
            self.hypercall(DOM0, TOOLSTACK, m.DomctlCreate(config))

    def domain(self, number: int) -> Any:
        domains = list(self.state.hypervisor.domains.values())
        return domains[number % len(domains)]

    def command(self, *command: Any) -> None:
        self.state.apply(list(command))
        self.records.append(self.state.record(list(command)))
        if self.draft is not None:
            self.draft[2].append(self.records[-1])

    def hypercall(self, caller: DomId, session: str, asked: Any) -> None:
        sequence = self.sequences[session] = self.sequences.get(session, 0) + 1
        queue = self.state.hypervisor.upcalls.get(caller)
        seen = queue.unacknowledged[-1][0] if queue is not None and queue.unacknowledged else 0
        body = pack_request(asked, sequence, seen if is_journaled(asked) else 0, 0)
        asked = unpack_request(body)[3]
        if is_journaled(asked):
            self.command("call", self.now, session, caller, body)
            assert self.state.repeated(session, sequence) is not None
        else:
            self.state.call(session, caller, sequence, asked, self.now)

    @rule(questions=st.lists(MESSAGES.filter(lambda asked: not isinstance(asked, m.SchedShutdown)), max_size=6))
    def the_toolstack_asks(self, questions: list[Any]) -> None:
        for asked in questions:
            self.hypercall(DOM0, TOOLSTACK, asked)

    @rule(questions=st.lists(st.tuples(GUESTS, MESSAGES), min_size=5, max_size=25))
    def domains_ask(self, questions: list[tuple[int, Any]]) -> None:
        for number, asked in questions:
            domain = self.domain(number)
            if domain.life in (Life.STARTING, Life.RUNNING):
                self.hypercall(domain.domid, domain_session(domain.domid, domain.incarnation), asked)

    @rule(config=CONFIGS)
    def a_domain_is_created(self, config: m.DomainConfig) -> None:
        self.hypercall(DOM0, TOOLSTACK, m.DomctlCreate(config))

    @rule(number=GUESTS, vif=VIFS)
    def a_vif_is_attached(self, number: int, vif: m.DeviceConfig) -> None:
        self.hypercall(DOM0, TOOLSTACK, m.DomctlAttach(self.domain(number).domid, vif))

    @rule(ready=st.booleans())
    def processes_start(self, ready: bool) -> None:
        lives = (Life.STARTING, Life.DUMPING, Life.DYING)
        for domain in [d for d in self.state.hypervisor.domains.values() if d.life in lives]:
            self.pid += 1
            self.command("started", self.now, domain.domid, domain.incarnation, self.pid)
            if ready and domain.life is Life.RUNNING:
                self.hypercall(domain.domid, domain_session(domain.domid, domain.incarnation), m.DomainReady())

    @rule(number=GUESTS, stale=st.booleans(), dom0_too=st.integers(0, 9), core=st.sampled_from(["", "core: x"]))
    def a_process_ends(self, number: int, stale: bool, dom0_too: int, core: str) -> None:
        alive = [d for d in self.state.hypervisor.domains.values() if d.life in ALIVE and (d.domid or dom0_too == 7)]
        if alive:
            domain = alive[number % len(alive)]
            self.command("died", self.now, domain.domid, domain.incarnation - stale, "killed by SIGKILL", core)

    @rule(stands=st.booleans(), trouble=st.sampled_from(["", "", "broken"]), dies=st.integers(0, 3))
    def spares_come_and_go(self, stands: bool, trouble: str, dies: int) -> None:
        for domain in list(self.state.hypervisor.domains.values()):
            if domain.spare is None:
                continue
            self.pid += 1
            process = domain.domid, domain.spare.incarnation
            self.command("started", self.now, *process, self.pid)
            if stands:
                self.command("spare reports", self.now, *process, {"cgroup": "refused"}, trouble)
            if dies == 0:
                self.command("died", self.now, *process, "killed by SIGKILL", "")

    @rule(number=GUESTS, ready=st.booleans())
    def a_domain_dies_beside_its_spare(self, number: int, ready: bool) -> None:
        """And the spare, which has taken over, is ready or dies too."""
        with_spares = [d for d in self.state.hypervisor.domains.values() if d.spare is not None and d.life in ALIVE]
        if not with_spares:
            return
        domain = with_spares[number % len(with_spares)]
        self.command("died", self.now, domain.domid, domain.incarnation, "killed by SIGKILL", "")
        if domain.life is Life.RUNNING and ready:
            self.hypercall(domain.domid, domain_session(domain.domid, domain.incarnation), m.DomainReady())
        elif domain.life is Life.RUNNING:
            self.command("died", self.now, domain.domid, domain.incarnation, "killed by SIGKILL", "")

    @invariant()
    def a_spare_is_nobodys_but_its_own(self) -> None:
        """Its channels are no port's, its page is no grant's, its number is no other process's."""
        hypervisor = self.state.hypervisor
        bound = {b.channel for ports in hypervisor.channels.ports.values() for b in ports.values()}
        for domain in hypervisor.domains.values():
            channels, extents = spares.keys(domain)
            assert not bound & set(channels)
            assert not hypervisor.grants.extents() & set(extents)
            assert domain.spare is None or domain.incarnation < domain.spare.incarnation <= domain.incarnations
            assert domain.spare is None or domain.life in ALIVE | {Life.BACKING_OFF, Life.WAITING}
            assert domain.spare is None or domain.incarnation > 0

    @invariant()
    def a_service_has_one_that_is_active_and_others_that_stand_by(self) -> None:
        """All of them ready, each with a process that the kernel has not reported dead."""
        hypervisor = self.state.hypervisor
        for service in hypervisor.services.values():
            members = [*service.standing, *([] if service.active is None else [service.active])]
            assert len(members) == len(set(members))
            assert all(hypervisor.domains[domid].serves for domid in members)
            assert service.active is not None or not service.standing

    @invariant()
    def every_vif_stands_under_the_rules_of_its_network(self) -> None:
        """Where a driver domain finds it, whatever its domain was created with, attached, renamed or restarted as."""
        rules = {config.name: (config.rules, config.allow_by_default) for config in NETWORKS}
        for path in self.vifs():
            keys = {name: self.read(f"{path}/{name}") for name in self.names(path)}
            if "bridge" in keys:  # else what is left of it when it was removed by whoever may
                assert unpack_rules(keys) == rules[keys["bridge"]]

    def vifs(self) -> list[str]:
        """Directories that backends of vifs find."""
        found = [f"/local/domain/{dom}/backend/vif" for dom in self.state.hypervisor.domains]
        for _ in range(2):
            found = [f"{path}/{name}" for path in found for name in self.names(path)]
        return found

    def names(self, path: str) -> list[str]:
        try:
            return self.state.hypervisor.store.directory(DOM0, 0, path)
        except StoreError:
            return []

    def read(self, path: str) -> str:
        return self.state.hypervisor.store.read(DOM0, 0, path).decode()

    @rule(number=GUESTS, stale=st.booleans(), notice=st.sampled_from([[], [11, 1, 4096, 8192]]))
    def a_domain_faults(self, number: int, stale: bool, notice: list[int]) -> None:
        domain = self.domain(number)
        if domain.domid:
            self.command("faulted", self.now, domain.domid, domain.incarnation - stale, notice)

    @rule(number=GUESTS, stale=st.booleans())
    def a_domain_hangs(self, number: int, stale: bool) -> None:
        domain = self.domain(number)
        if domain.domid:
            self.command("hung", self.now, domain.domid, domain.incarnation - stale, "it hangs: stopped")

    @rule(ms=st.sampled_from([1, 40, 2000]))
    def time_passes(self, ms: int) -> None:
        self.now += ms * 1_000_000
        due = self.state.hypervisor.next_deadline_ns()
        if due is not None and due <= self.now:
            self.command("tick", self.now)

    @rule(number=GUESTS, crashed=st.booleans())
    def a_hypercall_is_found_open(self, number: int, crashed: bool) -> None:
        domain = self.domain(number)
        session = domain_session(domain.domid, domain.incarnation)
        self.command("found open", self.now, session, self.sequences.get(session, 0) + 1, crashed)

    @rule(what=st.sets(st.sampled_from(REFUSABLE), min_size=1, max_size=2))
    def the_host_refuses(self, what: set[str]) -> None:
        self.hardware.broken = what

    @precondition(lambda self: self.hardware.broken)
    @rule()
    def the_host_recovers(self) -> None:
        self.hardware.broken = set()

    @rule(number=GUESTS, most=st.integers(1, 3))
    def events_are_sent(self, number: int, most: int) -> None:
        queue = self.state.hypervisor.upcalls.get(self.domain(number).domid)
        if queue is not None:
            for _ in range(most):
                queue.take()

    @rule()
    def a_snapshot_is_taken(self) -> None:
        self.records, self.draft = [self.state.snapshot()], None

    @rule()
    def a_snapshot_in_parts_is_begun(self) -> None:
        while self.state.hypervisor.store.has_unsettled:
            self.command("store settle", self.now)
        self.draft = None  # the one before is given up before another is begun, as the ledger does
        first, rest = self.state.begin_snapshot()
        self.draft = [first], map(self.state.packed_part, rest), []

    @rule(number=GUESTS, connection=st.sampled_from([1, 2, -2]), requests=st.lists(WIRE, min_size=1, max_size=4))
    def it_asks_by_socket_or_ring(self, number: int, connection: int, requests: list[tuple[int, int, bytes]]) -> None:
        """Several doors lead to one transaction's tree, and to its end."""
        domid = DOM0 if connection < 0 else self.domain(number).domid
        for kind, tx, payload in requests:
            self.command("store call", self.now, domid, connection, int(kind), tx, payload)

    @rule(number=GUESTS, connection=st.sampled_from([1, 2, -2]))
    def a_connection_ends(self, number: int, connection: int) -> None:
        self.command("store closed", self.now, DOM0 if connection < 0 else self.domain(number).domid, connection)

    @precondition(lambda self: self.state.hypervisor.store.has_unsettled)
    @rule()
    def some_is_settled(self) -> None:
        self.command("store settle", self.now)

    @precondition(lambda self: self.draft is not None)
    @rule(most=st.sampled_from([1, 2, 100]))
    def some_of_it_is_written(self, most: int) -> None:
        assert self.draft is not None
        written, rest, since = self.draft
        some = list(islice(rest, most))
        written += some
        if len(some) < most:
            self.records, self.draft = [*written, *since], None

    @rule()
    def the_broker_dies(self) -> None:
        successor = State.restore(self.records)
        assert contents(successor) == contents(self.state)
        self.state = successor
        self.state.hypervisor.attach(self.hardware)
        for queue in self.state.hypervisor.upcalls.values():
            queue.send_again()
        self.records, self.draft = [self.state.snapshot()], None

    def teardown(self) -> None:
        assert contents(State.restore(self.records)) == contents(self.state)


def test_the_stand_in_is_one() -> None:
    stand_in: Hardware = FlakyHardware()
    assert stand_in.refusals == []


def test_watches_that_came_and_went_before_a_snapshot_in_parts_make_no_difference() -> None:
    machine = Replay()
    machine.domain_0_boots()
    for kind in (Type.WATCH, Type.UNWATCH, Type.WATCH):
        machine.command("store call", machine.now, 0, -2, int(kind), 0, b"/tool\0token\0")
    machine.a_snapshot_in_parts_is_begun()
    machine.some_of_it_is_written(100)
    machine.the_broker_dies()


TestReplay = Replay.TestCase
TestReplay.settings = settings(max_examples=200, stateful_step_count=30, report_multiple_bugs=False)
