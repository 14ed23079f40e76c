"""The plain nodes of a directory, as one hypercall or one event brings them."""

from __future__ import annotations

from hvd.broker.store import Store, StoreError
from hvd.transport.ids import DomId

NODES_MAX = 64
"""Of a directory: a device has some forty."""
EVENT_BYTES_MAX = 16_384
"""Of the names and values that an event brings; whoever watches reads for himself what is more."""


def plain_nodes(store: Store, reader: DomId, path: str) -> dict[str, bytes]:
    """What this domain may read of it, as far as NODES_MAX; StoreError when there is no such directory for it."""
    return store.values(reader, path, NODES_MAX)


def brought_by_event(store: Store, reader: DomId, path: str) -> dict[str, bytes] | None:
    """The same for an event; None when there is no such directory, or too much in it."""
    try:
        nodes = plain_nodes(store, reader, path)
    except StoreError:
        return None
    size = sum(len(name) + len(value) for name, value in nodes.items())
    return nodes if size <= EVENT_BYTES_MAX else None
