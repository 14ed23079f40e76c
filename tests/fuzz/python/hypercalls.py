"""Hypercalls of domains that are up, one after the other, while processes start and die, time passes and the host
refuses.

What must hold: whatever is asked is answered, by a value or an errno, in a reply of bounded size that the wire can
carry; a guest's hypercall changes no other domain's life, ports, extents or watches; no table outgrows its bound; and
a broker that starts from the journal holds what this one holds.
"""

from __future__ import annotations

import errno
import os
from typing import Any

from hvd.broker.dispatch import is_journaled
from hvd.broker.domain import ACTING, ALIVE, Domain, Life
from hvd.broker.hardware import NoHardware
from hvd.broker.hypervisor import Hypervisor
from hvd.broker.sessions import Reply, Sessions, domain_session
from hvd.broker.state import State
from hvd.transport import messages as m
from hvd.transport.codec import BadMessage, pack_reply, pack_request, unpack_request
from hvd.transport.errors import LocalError, PeerFault
from hvd.transport.fault_notice import NOTICE, FaultNotice
from hvd.transport.ids import DOM0, DomId
from hvd.transport.limits import EVENTS_PENDING_MAX, EXTENTS_MAX, MAPTRACK_MAX, PORTS_MAX
from tests.fuzz.python.any_message import any_message
from tests.fuzz.python.choices import Choices

STEPS_MAX = 48
REPLY_BYTES_MAX = 1 << 20
"""Far above what a multicall's reads may bring, and what msgpack puts around them."""
TOOLSTACK = "t:aa"
REFUSABLE = ("channel", "extent", "seal", "domain", "start", "trace", "medium")
DISK = m.DeviceConfig("vbd", 51712, "drv", {"params": "/dev/null", "mode": "w"}, {"virtual-device": "51712"})


class FlakyHardware(NoHardware):
    """A host that refuses what `broken` names, and says so, as the real one does."""

    def __init__(self) -> None:
        super().__init__()
        self.broken: set[str] = set()

    def _ask(self, what: str, number: int) -> None:
        if what in self.broken:
            self.refusals.append([what, number, errno.EMFILE])
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


class Broker:
    """A broker without sockets: commands change its state and go into a journal."""

    def __init__(self, records: list[bytes], now_ns: int) -> None:
        self.state = State.restore(records)
        self.records = records.copy()
        self.now_ns = now_ns
        self.hardware = FlakyHardware()
        self.state.hypervisor.attach(self.hardware)
        self.sequences: dict[str, int] = {}

    @property
    def domains(self) -> list[Domain]:
        return list(self.state.hypervisor.domains.values())

    def command(self, *command: Any) -> None:
        self.state.apply(list(command))
        self.records.append(self.state.record(list(command)))

    def hypercall(self, caller: DomId, session: str, asked: Any) -> None:
        """As the loop carries it out: what the bytes say, repeated ones answered from memory."""
        self.sequences[session] = self.sequences.get(session, 0) + 1
        try:
            body = pack_request(asked, self.sequences[session], 0, 0)
            sequence, _, _, message = unpack_request(body)
        except (LocalError, BadMessage):
            return  # a domain that sends this is told so before any table is touched
        if is_journaled(message):
            self.command("call", self.now_ns, session, caller, body)
            reply = self.state.repeated(session, sequence)
        else:
            reply = self.state.call(session, caller, sequence, message, self.now_ns)
        if reply is not None:  # else its sender's session is over
            _check_reply(reply)


def _check_reply(reply: Reply) -> None:
    packed = pack_reply(reply.sequence, reply.errno, reply.value, len(reply.descriptors))
    assert len(packed) <= REPLY_BYTES_MAX, f"a reply of {len(packed)} bytes"


def _booted() -> tuple[list[bytes], int]:
    """Domain-0, a driver domain and a guest with a disk, all ready."""
    hypervisor = Hypervisor(b"secret", 0)
    hypervisor.create(m.DomainConfig("Domain-0", "hvd:dom0"), 1)
    for number, config in enumerate((
        m.DomainConfig("drv", "hvd:driver_domain", driver_domain=True),
        m.DomainConfig("ivi", "hvd:idle", on_crash="coredump-restart", devices=[DISK]),
    )):  # fmt: skip
        hypervisor.started(DomId(number), hypervisor.domains[DomId(number)].incarnation, 100 + number, 1)
        hypervisor.domain_ready(DomId(number), 1)
        hypervisor.create(config, 1)
    hypervisor.started(DomId(2), hypervisor.domains[DomId(2)].incarnation, 102, 1)
    hypervisor.domain_ready(DomId(2), 1)
    assert all(domain.life is Life.RUNNING for domain in hypervisor.domains.values())
    return [State(hypervisor, Sessions()).snapshot()], 2


BOOTED = _booted()


def play(data: bytes) -> None:
    choices = Choices(data)
    broker = Broker(*BOOTED)
    for _ in range(STEPS_MAX):
        if not choices.more() or DOM0 not in broker.state.hypervisor.domains:
            break
        _step(choices, broker)
        _check_bounds(broker)
    assert _holdings(State.restore(broker.records)) == _holdings(broker.state)


def _step(choices: Choices, broker: Broker) -> None:
    match choices.below(16):
        case 0:
            broker.hypercall(DOM0, TOOLSTACK, any_message(choices))
        case 1:
            _process_starts(choices, broker)
        case 2:
            _process_ends(choices, broker)
        case 3:
            _time_passes(choices, broker)
        case 4:
            _domain_faults(choices, broker)
        case 5:
            broker.hardware.broken = {choices.pick(REFUSABLE)} if choices.flag() else set()
        case 6:
            domain = choices.pick(broker.domains)
            broker.command(
                "found open", broker.now_ns, domain_session(domain.domid, domain.incarnation), 1 + choices.below(9),
                choices.flag(),
            )
        case _:
            _domain_asks(choices, broker)


def _domain_asks(choices: Choices, broker: Broker) -> None:
    domain = choices.pick(broker.domains)
    asked = any_message(choices)
    if domain.life not in ACTING:
        return
    before = _of_others(broker, domain)
    broker.hypercall(domain.domid, domain_session(domain.domid, domain.incarnation), asked)
    if domain.domid != DOM0 and not isinstance(asked, m.DomainReady):  # which starts those that come after it
        assert _of_others(broker, domain) == before


def _of_others(broker: Broker, domain: Domain) -> list[Any]:
    """What a guest's hypercall cannot change."""
    h = broker.state.hypervisor
    watches = {domid: share.watches for domid, share in h.store.statistics().domains.items()}
    extents = {domid: len(table.extents) for domid, table in h.grants.tables.items()}
    ports = {domid: len(bound) for domid, bound in h.channels.ports.items()}
    return [
        (d.domid, d.life, d.incarnation, ports.get(d.domid), extents.get(d.domid), watches.get(d.domid))
        for d in h.domains.values()
        if d is not domain
    ]


def _process_starts(choices: Choices, broker: Broker) -> None:
    domain = choices.pick(broker.domains)
    broker.command(
        "started", broker.now_ns, domain.domid, domain.incarnation - choices.below(2), 200 + choices.below(50)
    )


def _process_ends(choices: Choices, broker: Broker) -> None:
    domain = choices.pick(broker.domains)
    if domain.life in ALIVE:
        core = choices.pick(("", "core: x"))
        broker.command(
            "died", broker.now_ns, domain.domid, domain.incarnation - choices.below(2), "killed by SIGKILL", core
        )


def _time_passes(choices: Choices, broker: Broker) -> None:
    broker.now_ns += choices.number(2) * 1_000_000
    due = broker.state.hypervisor.next_deadline_ns()
    if due is not None and due <= broker.now_ns:
        broker.command("tick", broker.now_ns)


def _domain_faults(choices: Choices, broker: Broker) -> None:
    domain = choices.pick(broker.domains)
    untrusted = choices.take(NOTICE.size + choices.below(2))
    try:
        notice = FaultNotice.parse(untrusted).as_list()
    except PeerFault:
        notice = []
    broker.command("faulted", broker.now_ns, domain.domid, domain.incarnation, notice)


def _check_bounds(broker: Broker) -> None:
    h = broker.state.hypervisor
    for domid, ports in h.channels.ports.items():
        assert len(ports) <= PORTS_MAX, domid
    for domid, table in h.grants.tables.items():
        assert len(table.extents) <= EXTENTS_MAX and len(table.mappings) <= MAPTRACK_MAX, domid
    for domid, queue in h.upcalls.items():
        assert len(queue.unsent) + len(queue.unacknowledged) <= EVENTS_PENDING_MAX, domid


def _holdings(state: State) -> list[Any]:
    """What a restart of the broker may not change, in short."""
    h = state.hypervisor
    return [
        [(d.domid, d.name, d.life, d.incarnation, d.pid, d.ready, d.last_death) for d in h.domains.values()],
        {domid: sorted(ports) for domid, ports in h.channels.ports.items()},
        {domid: (sorted(t.extents), sorted(t.refs), sorted(t.mappings)) for domid, t in h.grants.tables.items()},
        h.store.statistics(),
        list(h.console),
    ]
