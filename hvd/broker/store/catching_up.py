"""A transaction catches up with what others have changed, some steps at a time, so that its commit has little to do.

Thousands of nodes that it depends on, and as many that others have changed, are looked at and merged in many
milliseconds. So whoever commits is asked to come again: meanwhile the transaction becomes one that began later and made
the same changes. What has changed during such a round is the next round's, which has less to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from hvd.broker.store import operations
from hvd.broker.store.errors import StoreError
from hvd.broker.store.merge import merging
from hvd.broker.store.quotas import Quotas
from hvd.broker.store.remains import Remains
from hvd.broker.store.transactions import Transaction
from hvd.broker.store.tree import Node, lookup, record_bytes

STEPS_PER_SLICE = 32
"""A tenth of a millisecond, longer in a directory of thousands; whoever depends on no more commits at once."""
ROUNDS_MAX = 8
"""Beside others who change more than a slice looks at, a transaction would never be done."""


def needs_to(transaction: Transaction, current: Node) -> bool:
    """Whether a commit at this moment might take long."""
    if transaction.doomed or transaction.stale or transaction.rounds >= ROUNDS_MAX:
        return False
    return transaction.snapshot is not current and len(transaction.touched) > STEPS_PER_SLICE


def advance(transaction: Transaction) -> None:
    """The round that is under way, by one slice."""
    assert transaction.catching_up is not None
    if len(list(islice(transaction.catching_up, STEPS_PER_SLICE))) < STEPS_PER_SLICE:
        transaction.catching_up = None


def round_to(
    transaction: Transaction, current: Node, generation: int, limits: Quotas, remains: Remains
) -> Iterator[None]:
    """Step by step: it is as if it had begun with this tree, or cannot commit any more."""
    for path in transaction.conflicts(current):
        if path is not None:
            transaction.stale = path
            return
        yield
    merged = current
    if transaction.root is not transaction.snapshot:
        merged = yield from merging(transaction.snapshot, transaction.root, current, generation)
        try:
            yield from check_parents(merged, transaction.grown, limits)
        except StoreError as error:
            transaction.doomed = error.text
            return
    for old in (transaction.snapshot, transaction.root):
        remains.add(old)
    transaction.snapshot, transaction.root = current, merged


def check_parents(root: Node, grown: Iterable[str], limits: Quotas) -> Iterator[None]:
    """Step by step. ENOSPC if the children that several transactions made are together too many for one node."""
    for path in grown:
        parent = lookup(root, path)
        if parent is not None:  # else the transaction has removed it again
            operations.check_record(limits, path, record_bytes(parent))
        yield
