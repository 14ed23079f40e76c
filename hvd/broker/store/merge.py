"""A commit beside changes of others: refused if they changed what it depends on, else one tree with what both changed.

Versions of a tree share what they have in common. So the walk, which is native (bindings_store_merge.cpp), visits of
what the transaction has touched only what others have changed at or below; all else is either side's as a whole. Its
work grows with the transaction, whose size has a bound, and not with the tree nor with what others have done.
"""

from __future__ import annotations

import errno
from typing import NamedTuple

from hvd.broker.store.children import children_from
from hvd.broker.store.errors import StoreError
from hvd.broker.store.quotas import Quotas
from hvd.broker.store.record import Record
from hvd.broker.store.tree import HEADER_BYTES, PERMISSION_BYTES, Node
from hvd.transport._native import merged


class Versions(NamedTuple):
    """Three of a tree."""

    base: Node
    """When the transaction began."""
    mine: Node
    """With what it has changed."""
    now: Node
    """With what others have changed."""


class Merged(NamedTuple):
    """What became of them."""

    root: Node
    """`now` with everything that became of `base` in `mine`: what is new stands last in its list."""
    too_large: str
    """The path of a node that both sides made larger, so that together it is too large; "" for none."""


def merge(record: Record, versions: Versions, generation: int, limits: Quotas) -> Merged:
    """Lists of children that the transaction changed get `generation`. EAGAIN: others changed what it depends on."""
    root, conflict, too_large = merged(
        record.root, *versions, generation, children_from, limits.node_bytes_max - HEADER_BYTES, PERMISSION_BYTES
    )
    if conflict:
        raise StoreError(errno.EAGAIN, f"{conflict} has changed since the transaction began")
    return Merged(root, too_large)
