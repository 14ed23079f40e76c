"""The tables of all domains at one moment, as rows that nothing changes any more: copied at once, pickled part by part.

To pickle the tables of 200 domains takes five milliseconds, to copy what may change of them half a one. Everything else
of the tables, which does not grow with the domains, is pickled at that moment and without these.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, groupby, islice
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

from hvd.broker.domain import Clock, Domain, Memory, Spare
from hvd.broker.event_channels import Binding
from hvd.broker.event_log import Event
from hvd.broker.grant_tables import Extent, Mapping, Run, Table, UnmapNotify
from hvd.broker.hypervisor import Hypervisor
from hvd.broker.sessions import Reply, Sessions
from hvd.broker.upcalls import UpcallQueue
from hvd.transport.ids import DomId, ExtentId, Handle, Port
from hvd.transport.records import fields

Row = tuple[Any, ...]
ROWS_PER_PART = 60
"""Of domains, extents, replies or whatever else: a third of a millisecond."""
MUTABLE = ("clock", "memory", "spare", "restarted_at_ns", "watchdogs", "sandbox_lacking")
"""Of a domain's record; everything else in it is replaced, never changed."""


class TableRows(NamedTuple):
    """A part: some rows of one table."""

    table: str
    rows: list[Row]


class _Shape:
    """The fields of a class as a tuple, and the reverse."""

    def __init__(self, kind: type, without: tuple[str, ...] = ()) -> None:
        self.kind = kind
        self.names = [field.name for field in fields(kind) if field.name not in without]
        self.of = attrgetter(*self.names)

    def made(self, row: Row) -> Any:
        made: Any = object.__new__(self.kind)
        for name, value in zip(self.names, row, strict=True):
            setattr(made, name, value)
        return made


_DOMAIN, _CLOCK, _MEMORY = _Shape(Domain, MUTABLE), _Shape(Clock), _Shape(Memory)
_SPARE, _BINDING = _Shape(Spare, ("lacking",)), _Shape(Binding)
_QUEUE = _Shape(UpcallQueue, ("unsent", "unacknowledged"))
_EXTENT = _Shape(Extent, ("runs", "mappings", "handed", "notify"))
_RUN, _MAPPING, _NOTIFY = _Shape(Run), _Shape(Mapping, ("extent", "notify")), _Shape(UnmapNotify)


# ---- from tables to rows ---------------------------------------------------------------------------------------------


def rows_of(hypervisor: Hypervisor, sessions: Sessions) -> Iterator[TableRows]:
    """Every table's rows as they are now: all have been copied before the first part is asked for."""
    extents = _extents(hypervisor.grants.tables)
    ports, upcalls = hypervisor.channels.ports.items(), hypervisor.upcalls.items()
    copied: list[tuple[str, list[Row]]] = [
        ("domain", [_domain_row(domain) for domain in hypervisor.domains.values()]),
        ("port", [(dom, port, _BINDING.of(each)) for dom, of in ports for port, each in of.items()]),
        ("table", [(dom, table.next_ref) for dom, table in hypervisor.grants.tables.items()]),
        ("extent", [_extent_row(extent, listed=listed) for extent, listed in extents]),
        ("mapping", sorted([_mapping_row(*each) for extent, _ in extents for each in extent.mappings.items()])),
        ("upcalls", [(dom, _QUEUE.of(queue)) for dom, queue in upcalls]),
        ("unacknowledged", [(dom, event) for dom, queue in upcalls for event in queue.unacknowledged]),
        ("unsent", [(dom, *event) for dom, queue in upcalls for event in queue.unsent.items()]),
        ("event", [(event,) for event in hypervisor.events.kept]),
        ("reply", list(sessions.last.items())),
    ]
    return chain(_parts(copied), _run_parts([(extent.id, tuple(extent.runs)) for extent, _ in extents]))


def _parts(copied: list[tuple[str, list[Row]]]) -> Iterator[TableRows]:
    for table, rows in copied:
        for at in range(0, len(rows), ROWS_PER_PART):
            yield TableRows(table, rows[at : at + ROWS_PER_PART])


def _run_parts(runs: list[tuple[ExtentId, tuple[Run, ...]]]) -> Iterator[TableRows]:
    """Of an extent there may be thousands: each is made a row when its part is, since none ever changes."""
    each = ((extent, _RUN.of(run)) for extent, some in runs for run in some)
    while some := list(islice(each, ROWS_PER_PART)):
        yield TableRows("runs", [(extent, tuple(run for _, run in of)) for extent, of in groupby(some, itemgetter(0))])


@contextmanager
def apart(hypervisor: Hypervisor, sessions: Sessions) -> Iterator[None]:
    """Meanwhile the tables are empty, for a pickle that is to have none of their rows."""
    domains: dict[DomId, Domain] = {}
    places: list[tuple[Any, str, Any]] = [
        (hypervisor, "domains", domains),
        (hypervisor.deadlines, "domains", domains),
        (hypervisor.channels, "ports", {dom: {} for dom in hypervisor.channels.ports}),
        (hypervisor.grants, "tables", {}),
        (hypervisor, "upcalls", {}),
        (hypervisor.events, "kept", deque(maxlen=hypervisor.events.kept.maxlen)),
        (sessions, "last", {}),
    ]
    full = [(owner, name, getattr(owner, name)) for owner, name, _ in places]
    _set(places)
    try:
        yield
    finally:
        _set(full)


def _set(places: list[tuple[Any, str, Any]]) -> None:
    for owner, name, value in places:
        setattr(owner, name, value)


def _domain_row(domain: Domain) -> Row:
    lacking = domain.sandbox_lacking
    return (
        _DOMAIN.of(domain), _CLOCK.of(domain.clock), _MEMORY.of(domain.memory),
        None if domain.spare is None else _spare_row(domain.spare),
        (tuple(domain.restarted_at_ns), dict(domain.watchdogs), None if lacking is None else dict(lacking)),
    )  # fmt: skip


def _spare_row(spare: Spare) -> Row:
    return _SPARE.of(spare), None if spare.lacking is None else dict(spare.lacking)


def _extents(tables: dict[DomId, Table]) -> list[tuple[Extent, bool]]:
    """Each once, and whether its owner has it still: of the dead there are those that somebody maps."""
    owned = {extent.id: (extent, True) for table in tables.values() for extent in table.extents.values()}
    mapped = {each.extent.id: (each.extent, False) for table in tables.values() for each in table.mappings.values()}
    return list({**owned, **{number: each for number, each in mapped.items() if number not in owned}}.values())


def _extent_row(extent: Extent, *, listed: bool) -> Row:
    return _EXTENT.of(extent), tuple(extent.handed), _notify_row(extent.notify), listed


def _mapping_row(handle: Handle, mapping: Mapping) -> Row:
    return handle, mapping.extent.id, _MAPPING.of(mapping), _notify_row(mapping.notify)


def _notify_row(notify: UnmapNotify | None) -> Row | None:
    return None if notify is None else _NOTIFY.of(notify)


# ---- and back --------------------------------------------------------------------------------------------------------


class Taking:
    """Rows that come in, part by part and in the order of `rows_of`, into tables that were empty before the first."""

    def __init__(self, hypervisor: Hypervisor, sessions: Sessions) -> None:
        self._h, self._sessions = hypervisor, sessions
        self._extents: dict[ExtentId, Extent] = {}

    def take(self, part: TableRows) -> None:
        """Put them there."""
        put = getattr(self, f"_put_{part.table}")
        for row in part.rows:
            put(*row)

    def _put_domain(self, plain: Row, clock: Row, memory: Row, spare: Row | None, rest: Row) -> None:
        domain: Domain = _DOMAIN.made(plain)
        domain.clock, domain.memory, domain.spare = _CLOCK.made(clock), _MEMORY.made(memory), None
        if spare is not None:
            domain.spare = _SPARE.made(spare[0])
            domain.spare.lacking = spare[1]
        restarted_at_ns, domain.watchdogs, domain.sandbox_lacking = rest
        domain.restarted_at_ns = deque(restarted_at_ns)
        self._h.domains[domain.domid] = domain

    def _put_port(self, dom: DomId, port: Port, binding: Row) -> None:
        self._h.channels.ports[dom][port] = _BINDING.made(binding)

    def _put_table(self, dom: DomId, next_ref: int) -> None:
        self._h.grants.tables[dom] = Table(next_ref=next_ref)

    def _put_extent(self, plain: Row, handed: Row, notify: Row | None, listed: bool) -> None:
        extent: Extent = _EXTENT.made(plain)
        extent.runs, extent.mappings, extent.handed = [], {}, set(handed)
        extent.notify = None if notify is None else _NOTIFY.made(notify)
        self._extents[extent.id] = extent
        if listed:
            self._h.grants.tables[extent.owner].extents[extent.id] = extent

    def _put_runs(self, extent: ExtentId, some: tuple[Row, ...]) -> None:
        whole, runs = self._extents[extent], [Run(*run) for run in some]
        whole.runs += runs
        if not whole.orphaned:
            refs = self._h.grants.tables[whole.owner].refs
            for run in runs:
                refs.add(run.ref, run.count, whole)

    def _put_mapping(self, handle: Handle, extent: ExtentId, plain: Row, notify: Row | None) -> None:
        mapping: Mapping = _MAPPING.made(plain)
        mapping.extent, mapping.notify = self._extents[extent], None if notify is None else _NOTIFY.made(notify)
        mapping.extent.mappings[handle] = self._h.grants.tables[mapping.mapper].mappings[handle] = mapping

    def _put_upcalls(self, dom: DomId, plain: Row) -> None:
        queue: UpcallQueue = _QUEUE.made(plain)
        queue.unsent, queue.unacknowledged = {}, deque()
        self._h.upcalls[dom] = queue

    def _put_unacknowledged(self, dom: DomId, event: tuple[int, str, str]) -> None:
        self._h.upcalls[dom].unacknowledged.append(event)

    def _put_unsent(self, dom: DomId, key: tuple[str, str], number: int) -> None:
        self._h.upcalls[dom].unsent[key] = number

    def _put_event(self, event: Event) -> None:
        self._h.events.kept.append(event)

    def _put_reply(self, session: str, reply: Reply) -> None:
        self._sessions.last[session] = reply
