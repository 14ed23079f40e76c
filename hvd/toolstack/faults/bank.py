"""The bank that store exercisers work in: makes it, and judges it by their histories."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from itertools import combinations

from hvd.toolstack.cluster import Cluster, Domain
from hvd.toolstack.faults.history import History, Verdict
from hvd.transport import messages as m
from hvd.transport.history import Event, Kind, Phase
from hvd.transport.hypercalls import HypercallError
from hvd.transport.protocols.bank import (
    ACCOUNTS,
    BALANCE,
    SLOTS,
    account,
    accounts_of,
    client_count,
    client_slot,
    entry,
)

ORPHANS_MAX = 12
"""So many operations of unknown fate are tried in every combination; with more only sums are compared."""


def open_bank(cluster: Cluster, path: str, clients: Sequence[Domain]) -> None:
    """Make it, for these domains; a client starts working when its count is there."""
    for number in range(ACCOUNTS):
        _make(cluster, account(path, number), str(BALANCE), clients)
    for client in clients:
        for slot in range(SLOTS):
            _make(cluster, client_slot(path, client.domid, slot), "", [client])
        _make(cluster, client_count(path, client.domid), "0", [client])


def close_bank(cluster: Cluster, path: str) -> None:
    """Remove it."""
    cluster.call(m.StoreRm(0, path))


def _make(cluster: Cluster, path: str, value: str, clients: Sequence[Domain]) -> None:
    """The domains read and write it; the node is dom0's."""
    cluster.call(m.StoreWrite(0, path, value.encode()))
    cluster.call(m.StoreSetPerms(0, path, ["n0", *(f"b{client.domid}" for client in clients)]))


class StoreChecker:
    """Follows one client of a bank. `check` may be asked while it works.

    Lost: fewer transfers are counted than are ok. Duplicated: more than were invoked. Misplaced: a slot holds another
    transfer than its last. Torn: one was carried out by half; balances do not add up.
    """

    def __init__(self, cluster: Cluster, bank: str, client: Domain, acks: str) -> None:
        self._cluster = cluster
        self._bank = bank
        self.domid = client.domid
        self.verdict = Verdict()
        self.history = History(acks, self.verdict)
        self.events: dict[int, Event] = {}
        """Every transfer that was invoked and has not failed."""
        self.done: set[int] = set()
        """Those that are ok."""
        self.found: set[int] = set()
        """Those of unknown fate that were seen to be done."""
        self._newest: dict[int, int] = {}
        """Slot -> the newest transfer that is ok and was written there."""

    def follow(self) -> None:
        """Take in what has happened since the last call."""
        for event in self.history.follow():
            if event.kind is not Kind.TRANSFER:
                continue
            if event.phase is Phase.INVOKED:
                self.events[event.id] = event
            elif event.phase is Phase.OK:
                self.done.add(event.id)
                self._newest[event.id % SLOTS] = event.id
            else:
                self.events.pop(event.id, None)

    def check(self) -> Verdict:
        """Counts between what was ok before this call and what has been invoked by its end."""
        self.follow()
        least, newest = len(self.done), dict(self._newest)
        count, slots = self._snapshot()
        self.follow()
        self._check_count(count, least)
        for slot, text in slots.items():
            self._check_slot(slot, text, newest.get(slot))
        self.verdict.compared = len(slots) + 1
        return self.verdict

    def _snapshot(self) -> tuple[int, dict[int, str]]:
        """As of one moment: reads of a transaction."""
        with Snapshot(self._cluster) as read:
            count = int(read(client_count(self._bank, self.domid)))
            return count, {slot: read(client_slot(self._bank, self.domid, slot)) for slot in range(SLOTS)}

    def _check_count(self, count: int, least: int) -> None:
        verdict = self.verdict
        verdict.lost = max(verdict.lost, least - count)
        verdict.duplicated = max(verdict.duplicated, count - len(self.events))
        if count < least:
            verdict.note(f"{least} transfers are ok, {count} are counted")
        if count > len(self.events):
            verdict.note(f"{len(self.events)} transfers were asked for, {count} are counted")

    def _check_slot(self, slot: int, text: str, newest: int | None) -> None:
        verdict = self.verdict
        if not text:
            if newest is not None:
                verdict.misplaced += 1
                verdict.note(f"slot {slot} is empty; transfer {newest} was acknowledged for it")
            return
        id_ = int(text.partition(" ")[0])
        event = self.events.get(id_)
        if event is None or text != entry(id_, *accounts_of(event.place), event.count):
            verdict.unexpected += 1
            verdict.note(f"slot {slot} holds {text!r}, which nobody asked for")
        elif newest is not None and id_ < newest:
            verdict.misplaced += 1
            verdict.note(f"slot {slot} holds transfer {id_}; {newest} was acknowledged for it")
        elif id_ not in self.done:
            self.found.add(id_)


def check_balances(cluster: Cluster, bank: str, checkers: Sequence[StoreChecker]) -> list[str]:
    """What is wrong with the accounts now that no client works any more: their sum, and each by all that was done."""
    with Snapshot(cluster) as read:
        balances = [int(read(account(bank, number))) for number in range(ACCOUNTS)]
        counted = sum(int(read(client_count(bank, checker.domid))) for checker in checkers)
    if sum(balances) != ACCOUNTS * BALANCE:
        return [f"the accounts hold {sum(balances)} together, not {ACCOUNTS * BALANCE}: a transfer was half done"]
    expected, maybe, known = [BALANCE] * ACCOUNTS, [], 0
    for checker in checkers:
        for id_, event in checker.events.items():
            if id_ in checker.done or id_ in checker.found:
                _move(expected, event)
                known += 1
            else:
                maybe.append(event)
    if not 0 <= counted - known <= len(maybe):
        return [f"{counted} transfers are counted; {known} were done, and {len(maybe)} others may have been"]
    if len(maybe) > ORPHANS_MAX or any(_moved(expected, chosen) == balances for chosen in
                                       combinations(maybe, counted - known)):  # fmt: skip
        return []
    return [f"the accounts hold {balances}, which no choice of the {len(maybe)} transfers of unknown fate explains"]


def _moved(balances: Sequence[int], events: Sequence[Event]) -> list[int]:
    after = list(balances)
    for event in events:
        _move(after, event)
    return after


def _move(balances: list[int], event: Event) -> None:
    giver, taker = accounts_of(event.place)
    balances[giver] -= event.count
    balances[taker] += event.count


class Snapshot:
    """The store as it is at one moment; use with `with`, and call it with paths."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._tx = 0

    def __enter__(self) -> Snapshot:
        self._tx = self._cluster.call(m.StoreTransactionStart())
        return self

    def __call__(self, path: str) -> str:
        value: bytes = self._cluster.call(m.StoreRead(self._tx, path))
        return value.decode()

    def __exit__(self, *_: object) -> None:
        try:
            self._cluster.call(m.StoreTransactionEnd(self._tx, commit=False))
        except HypercallError as error:
            if error.errno != errno.ENOENT:
                raise
