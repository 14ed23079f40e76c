"""What may be much of a store, in parts that take half a millisecond each to be pickled: trees, watches, clients.

The parts are those of the moment in which they were begun: no tree and no watch ever changes, and the rest is copied.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import NamedTuple, TypeVar

from hvd.broker.store.domains import ClientRow, Domains
from hvd.broker.store.packing import Packed, Packing, Row
from hvd.broker.store.record import Record, Rows
from hvd.broker.store.remains import Remains
from hvd.broker.store.transactions import TransactionRow
from hvd.broker.store.tree import Node
from hvd.broker.store.watches import Watch
from hvd.transport.ids import DomId
from hvd.transport.records import dataclass, field

ROWS_PER_PART, NAMES_PER_ROW, WATCHES_PER_PART = 60, 10, 100
"""So many names of a directory count as one row."""
CLIENTS_PER_PART, TOUCHED_PER_PART = 200, 400
T = TypeVar("T")


Open = tuple[DomId, int, TransactionRow]
"""A transaction: whose, its id, and what it is but for its trees and its record."""
Touched = tuple[DomId, int, Rows]
"""What one transaction depends on, or some of it."""


Recorded = tuple[DomId, int, Record]
"""Whose, the transaction's id, and all of it."""


class Part(NamedTuple):
    """Some of one kind: rows first; the last says where the roots are among them."""

    rows: Sequence[Row] = ()
    watches: Sequence[Watch] = ()
    roots: Sequence[int] = ()
    clients: Sequence[ClientRow] = ()
    transactions: Sequence[Open] = ()
    touched: Sequence[Touched] = ()


def in_parts(
    roots: Sequence[Node], watches: list[Watch], domains: Domains, remains: Remains, packing: Packing | None = None
) -> Generator[Part, None, None]:
    """One a step. What nobody else has any more by their end, or when they are given up, is for `remains`.

    With a packing of the caller's there are only rows that it has not made before, and it keeps the trees.
    """
    open_ones = [(client.who.domid, tx, each) for client in domains for tx, each in client.transactions.items()]
    transactions = [(domid, tx, each.row()) for domid, tx, each in open_ones]
    records = [(domid, tx, each.record) for domid, tx, each in open_ones]
    for _, _, record in records:
        record.ask_for()
    clients = _clients(domains.rows(), transactions, records)
    parts = _with_remains(roots, watches, clients, records, remains, kept=packing)
    next(parts)  # from here on its end is the end of what it holds
    return parts


def _clients(clients: list[ClientRow], transactions: list[Open], records: list[Recorded]) -> Iterator[Part]:
    yield from (Part(clients=some) for some in _pieces(clients, CLIENTS_PER_PART))
    yield from (Part(transactions=some) for some in _pieces(transactions, CLIENTS_PER_PART))
    for domid, tx, record in records:
        named, rows = record.asked_for()
        yield from (Part(touched=[(domid, tx, (named, some))]) for some in _pieces(rows, TOUCHED_PER_PART))


def _with_remains(
    roots: Sequence[Node], watches: list[Watch], clients: Iterator[Part], records: list[Recorded], remains: Remains,
    *, kept: Packing | None,
) -> Generator[Part, None, None]:  # fmt: skip
    """Behind an empty one."""
    packing = Packing() if kept is None else kept
    rows = packing.add(roots)
    watches.reverse()
    try:
        yield Part()
        yield from _rows(rows)
        while watches:
            some = watches[: -WATCHES_PER_PART - 1 : -1]
            del watches[-WATCHES_PER_PART:]
            yield Part(watches=some)
        yield from clients
        yield Part(roots=packing.positions(roots))
    finally:
        for _, _, record in records:
            record.ask_no_more()
        if kept is None:
            remains.add_packing(packing)
        remains.add_table(watches)


def _pieces(whole: list[T], most: int) -> Iterator[list[T]]:
    return (whole[at : at + most] for at in range(0, len(whole), most))


def _rows(packed: Iterator[Row]) -> Iterator[Part]:
    rows: list[Row] = []
    size = 0
    for row in packed:
        rows.append(row)
        size += 1 + (len(row[0]) // NAMES_PER_ROW if isinstance(row[0], tuple) else 0)
        if size >= ROWS_PER_PART:
            yield Part(rows)
            rows, size = [], 0
    if rows:
        yield Part(rows)


@dataclass(slots=True)
class Collected:
    """Parts that have come in, in order."""

    rows: list[Row] = field(default_factory=list)
    watches: list[Watch] = field(default_factory=list)
    clients: list[ClientRow] = field(default_factory=list)
    transactions: list[Open] = field(default_factory=list)
    touched: list[Touched] = field(default_factory=list)
    packed: Packed | None = None
    """The trees, when the last part has come."""

    def add(self, part: Part) -> bool:
        """Whether that was the last of them."""
        self.rows += part.rows
        self.watches += part.watches
        self.clients += part.clients
        self.transactions += part.transactions
        self.touched += part.touched
        if part.roots:
            self.packed = Packed(self.rows, list(part.roots))
        return bool(part.roots)
