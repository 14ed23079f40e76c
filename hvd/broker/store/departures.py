"""Nodes that have gone from the tree and still count as somebody's: told a few at a time, for a quota counted at once.

To tell of a node takes microseconds, for its watches and its owner's list of paths; only to count it, a fraction.
"""

from __future__ import annotations

from collections.abc import Iterator

from hvd.broker.store.accounts import Accounts, Tally
from hvd.broker.store.changes import Edit, Removal
from hvd.transport._native import tally
from hvd.transport.ids import DomId


class Departures:
    """All that are under way."""

    def __init__(self) -> None:
        self._under_way: list[_Departure] = []

    def of(self, removal: Removal, accounts: Accounts) -> Iterator[Edit]:
        """The edits of a removal that has been made: when one is told, what goes with it has been counted."""
        departure = _Departure(removal, accounts)
        self._under_way.append(departure)
        return self._told(departure)

    def _told(self, departure: _Departure) -> Iterator[Edit]:
        yield from departure.edits()
        self._under_way.remove(departure)

    def count_all(self) -> bool:
        """None of these nodes counts any more; whether any did."""
        were_left = [departure.count_rest() for departure in self._under_way]
        return any(were_left)


class _Departure:
    """One removed node, and all that was below it."""

    def __init__(self, removal: Removal, accounts: Accounts) -> None:
        self._removal = removal
        self._accounts = accounts
        self._told = 0
        self._is_counted = False

    def edits(self) -> Iterator[Edit]:
        """In the removal's order."""
        for edit in self._removal:
            if not self._is_counted:
                self._told += 1
                self._accounts.leave(edit)
            yield edit

    def count_rest(self) -> bool:
        """All that have not been told; whether that was still to be done."""
        if self._is_counted:
            return False
        self._is_counted = True
        for owner, nodes, size in tally(self._removal.node, len(self._removal.path), self._told):
            self._accounts.count({DomId(owner): Tally(-nodes, -size)})
        return True
