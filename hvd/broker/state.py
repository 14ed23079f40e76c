"""The broker's whole memory and the commands that change it: applied, journaled, applied again by the next."""

from __future__ import annotations

import errno
import pickle
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

import msgpack

from hvd.broker import live_dumps
from hvd.broker.dispatch import handle, is_journaled
from hvd.broker.errors import Refused
from hvd.broker.hardware import NoHardware
from hvd.broker.hypervisor import Hypervisor
from hvd.broker.rows import TableRows, Taking, apart, rows_of
from hvd.broker.sessions import Reply, Sessions, domain_session, store_session
from hvd.broker.store.packing import Packing
from hvd.broker.store.parts import Collected, Part
from hvd.broker.xenstored import requests
from hvd.transport.codec import unpack_request
from hvd.transport.end_moments import EndMoments
from hvd.transport.fault_notice import FaultNotice
from hvd.transport.ids import DomId, Incarnation
from hvd.transport.xs_wire import Message

CALL, STARTED, DIED, TICK, FOUND_OPEN = "call", "started", "died", "tick", "found open"
FAULTED, HUNG, TRACE_OVER, AUDITED = "faulted", "hung", "trace over", "audited"
RECOVERED, SPARE_REPORTS, DUMPED, REAPED = "recovered", "spare reports", "dumped", "reaped"
STORE_CALL, STORE_CLOSED, STORE_LOST = "store call", "store closed", "store lost"
"""Requests by XenStore's wire protocol, the end of a connection, the end of all: their broker died."""
STORE_STREAM = "store stream"
"""Plain requests of the host's, among them a write, as they came."""
STORE_SETTLE = "store settle"
"""Accounts and watches follow a change of many nodes by some more."""
PART = b"\x80"
"""Begins a pickle, which is a part of the snapshot, and no command, which is a list in msgpack."""
_pack = msgpack.Packer().pack
"""One packer for all records: to make one takes as long as to pack."""
CRASHES_MAX = 2
"""Brokers that may crash over one hypercall before it is refused and its sender taken down."""
FOUND_OPEN_MAX = 5
"""Brokers that may be killed from outside in the middle of one hypercall before it is held to be the reason."""


class State:
    """Tables and sessions, changed by commands only. A command is a list that msgpack can carry."""

    def __init__(self, hypervisor: Hypervisor, sessions: Sessions) -> None:
        self.hypervisor = hypervisor
        self.sessions = sessions
        self.replayed = 0
        """Commands that `restore` has carried out again."""

    def snapshot(self) -> bytes:
        """Everything as bytes, for a broker of the same image: pickled, since only brokers ever hold it."""
        hardware = self.hypervisor.hardware
        self.hypervisor.attach(NoHardware())
        try:
            return pickle.dumps((self.hypervisor, self.sessions), pickle.HIGHEST_PROTOCOL)
        finally:
            self.hypervisor.attach(hardware)

    def begin_snapshot(
        self, packing: Packing | None = None, *, watches: bool = True
    ) -> tuple[bytes, Iterator[Part | TableRows]]:
        """The same in parts, as it is now: first what does not grow with domains and nodes, then the rest in turn.

        Without the rows that a packing has made before, or the watches: they are in an older snapshot.
        """
        with self.hypervisor.store.in_parts(packing, watches=watches) as store:
            tables = rows_of(self.hypervisor, self.sessions)
            with apart(self.hypervisor, self.sessions):
                first = self.snapshot()
        return first, chain(store, tables)

    @staticmethod
    def packed_part(part: Part | TableRows) -> bytes:
        """As `restore` takes it."""
        return pickle.dumps(part, pickle.HIGHEST_PROTOCOL)

    @classmethod
    def restore(cls, records: Iterable[bytes], at_work: Callable[[], None] = lambda: None) -> State:
        """From a journal's records: the snapshot, then every command again, with no effect outside.

        `at_work` is called for each record: a long journal takes a while.
        """
        rest = iter(records)
        hypervisor, sessions = pickle.loads(next(rest))
        state = cls(hypervisor, sessions)
        tables, store = Taking(hypervisor, sessions), Collected()
        for record in rest:
            at_work()
            if record.startswith(PART):
                part = pickle.loads(record)
                if isinstance(part, TableRows):
                    tables.take(part)
                elif store.add(part):
                    hypervisor.store.take_parts(store)
                continue
            *command, refusals = msgpack.unpackb(record)
            hypervisor.hardware.refusals = refusals
            state.apply(command)
            state.replayed += 1
        return state

    def record(self, command: list[Any]) -> bytes:
        """A command that has just been applied as the journal keeps it: with what the host refused meanwhile."""
        refusals, self.hypervisor.hardware.refusals = self.hypervisor.hardware.refusals, []
        packed: bytes = _pack([*command, refusals])
        return packed

    def apply(self, command: list[Any]) -> None:
        """Carry out one command. Behind its name stands its time."""
        match command:
            case [str(), int() as now_ns, *_]:
                self.hypervisor.events.now_ns = now_ns
        match command:
            case ["call", int() as now_ns, str() as session, int() as domid, bytes() as body]:
                sequence, events, descriptors, message = unpack_request(body)
                self.acknowledge(DomId(domid), session, events, descriptors)
                self.call(session, DomId(domid), sequence, message, now_ns)
            case ["started", int() as now_ns, int() as domid, int() as incarnation, int() as pid]:
                self.hypervisor.started(DomId(domid), Incarnation(incarnation), pid, now_ns)
            case ["faulted", int(), int() as domid, int() as incarnation, list() as notice]:
                self.hypervisor.faulted(DomId(domid), Incarnation(incarnation), _notice(notice))
            case ["hung", int(), int() as domid, int() as incarnation, str() as why]:
                self.hypervisor.hung(DomId(domid), Incarnation(incarnation), why)
            case ["died", int() as now_ns, int() as domid, int() as incarnation, str() as how, str() as core]:
                self.hypervisor.died(DomId(domid), Incarnation(incarnation), how, now_ns, core)
                self.sessions.forget(domain_session(DomId(domid), Incarnation(incarnation)))
                self.sessions.forget(store_session(DomId(domid), Incarnation(incarnation)))
            case ["dumped", int() as now_ns, int() as domid, int() as incarnation, str() as said]:
                live_dumps.over(self.hypervisor, DomId(domid), Incarnation(incarnation), said, now_ns)
            case ["reaped", int(), int() as domid, int() as incarnation, str() as name, *moments]:
                self.hypervisor.reaped(DomId(domid), Incarnation(incarnation), name, EndMoments(*moments))
            case ["spare reports", int(), int() as domid, int() as incarnation, dict() as lacking, str() as trouble]:
                self.hypervisor.spare_reports(DomId(domid), Incarnation(incarnation), lacking, trouble)
            case ["tick", int() as now_ns]:
                self.hypervisor.tick(now_ns)
            case ["trace over", int()]:
                self.hypervisor.end_trace()
            case ["audited", int(), int() as domid, str() as line, int() as denials]:
                self.hypervisor.audited(DomId(domid), line, denials)
            case ["recovered", int(), int() as brokers, str() as how]:
                self.hypervisor.announce("broker restarted", None, f"{brokers}: {how}")
            case ["zygote died", int(), str() as how]:
                self.hypervisor.announce("zygote restarted", None, how)
            case ["store call", int() as now_ns, int() as domid, int() as connection, *requests]:
                for kind, tx, payload in zip(*[iter(requests)] * 3, strict=True):
                    self.store_call(DomId(domid), connection, Message(kind, 0, tx, payload), now_ns)
                self.hypervisor.collect_store_events()
            case ["store stream", int(), bytes() as stream]:
                _, end, _ = self.hypervisor.store.answer_plain(stream, 0)
                assert end == len(stream), f"what was plain is not any more, at {end} of {len(stream)} bytes"
            case ["store closed", int(), int() as domid, int() as connection]:
                self.hypervisor.store.close_connection(DomId(domid), connection)
            case ["store settle", int()]:
                self.hypervisor.store.settle()
                self.hypervisor.collect_store_events()
            case ["store lost", int()]:
                self.hypervisor.store.close_connections()
            case ["found open", int(), str() as session, int() as sequence, bool() as crashed]:
                self._judge(session, sequence, crashed=crashed)
            case _:
                raise ValueError(f"no such command: {command[:1]}")

    def acknowledge(self, domid: DomId, session: str, events: int, descriptors: int) -> None:
        """Take in what a domain says it has received."""
        queue = self.hypervisor.upcalls.get(domid)
        if queue is not None and session.startswith("d:"):
            queue.acknowledge(events, descriptors)

    def repeated(self, session: str, sequence: int) -> Reply | None:
        """The answer to a number that this caller has used before; None: it is new."""
        last = self.sessions.reply(session)
        if last is None or sequence > last.sequence:
            return None
        if sequence == last.sequence:
            return last
        return Reply(sequence, errno.ESTALE, f"hypercall {sequence} is old: the last one was {last.sequence}")

    def call(self, session: str, domid: DomId, sequence: int, message: Any, now_ns: int) -> Reply:
        """Carry out one hypercall and remember its answer, if it is one that must not be carried out twice."""
        self.hypervisor.events.now_ns = now_ns
        try:
            answer = handle(self.hypervisor, domid, message, now_ns)
        except Refused as refusal:
            reply = Reply(sequence, refusal.errno, refusal.text)
        else:
            reply = Reply(sequence, 0, answer.value, answer.descriptors)
        if is_journaled(message):
            self.sessions.remember(session, reply)
        queue = self.hypervisor.upcalls.get(domid)
        if queue is not None and session.startswith("d:"):
            queue.descriptors_sent += len(reply.descriptors)
        return reply

    def store_call(self, domid: DomId, connection: int, message: Message, now_ns: int) -> tuple[int, bytes]:
        """Carry out a request that came by XenStore's wire protocol: type and payload of its reply.

        The watch events that it has fired are the caller's to collect, before anything else is carried out.
        """
        self.hypervisor.events.now_ns = now_ns
        return requests.answer(self.hypervisor, domid, connection, message)

    def _judge(self, session: str, sequence: int, *, crashed: bool) -> None:
        """A hypercall that broker after broker was found dead over takes its sender down, not one more broker.

        One that was answered is none of those: its broker died behind it.
        """
        if self.repeated(session, sequence) is not None:
            return
        suspect = self.sessions.suspect(session, sequence, crashed=crashed)
        if suspect.crashed < CRASHES_MAX and suspect.found_open < FOUND_OPEN_MAX:
            return
        what = f"XenStore request {sequence:#x}" if session.startswith("x:") else f"hypercall {sequence}"
        text = f"{what} was found open by {suspect.found_open} brokers in a row"
        self.sessions.remember(session, Reply(sequence, errno.EIO, text))
        for domain in list(self.hypervisor.domains.values()):
            who = domain.domid, domain.incarnation
            if session in (domain_session(*who), store_session(*who)):
                self.hypervisor.crash(domain.domid, text)


def _notice(fields: list[int]) -> FaultNotice | None:
    return FaultNotice(*fields) if fields else None
