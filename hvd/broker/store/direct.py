"""The short way: reads and writes outside transactions, by dom0 or by the owner, of nodes that exist.

That is nearly all that a store is asked for. It does what operations.py and the engine do, without what those keep for
transactions, for others than the owner, and for nodes that come and go: whatever is not as plain as that, a refusal
above all, is left to them. Which of the two has answered cannot be seen (tests/unit/broker/store/test_direct.py).
"""

from __future__ import annotations

from hvd.broker.store import paths
from hvd.broker.store.accounts import Tally
from hvd.broker.store.changes import Edit, Fires
from hvd.broker.store.engine import Engine
from hvd.broker.store.permissions import WRITE, Permissions, Principal
from hvd.broker.store.tree import Node, record_bytes
from hvd.transport._native import answer_plain as native_answers
from hvd.transport._native import rewritten, way_to
from hvd.transport.ids import DOM0, DomId

PLAIN_MAX = 64
"""Requests of one turn: some tens of microseconds."""
_NAMES_MAX = PLAIN_MAX * 128
"""Names in the directories that their writes copy: each request counts as 128 of them."""


def read(engine: Engine, domid: DomId, path: str) -> Node | None:
    """The node, of which the caller may see all; None: not by this way. EINVAL for a path that no node can have."""
    client = engine.domains.get(domid)
    if client is None:
        return None
    way = way_to(engine.root, paths.resolve(domid, path, engine.limits(domid)))
    return way[-1] if way is not None and _plainly_may(client.who, way[-1].permissions) else None


def answer_plain(engine: Engine, untrusted: bytes, at: int) -> tuple[bytes, int, bool]:
    """The replies to what dom0 asks to read and to write by the wire protocol where that concerns nobody else; where in
    its stream anything else begins; whether anything was written."""
    root = engine.root
    replies, end, engine.root, engine.generation = native_answers(
        root, untrusted, at, engine.generation, engine.watches.by_name, engine.grow, engine.privileged.node_bytes_max,
        _NAMES_MAX,
    )  # fmt: skip
    return replies, end, engine.root is not root


def write(engine: Engine, domid: DomId, path: str, value: bytes) -> bool:
    """Whether the node has this value now; if not, another way is to be tried. EINVAL, ENOMEM: neither may it."""
    client, limits = engine.domains.get(domid), engine.limits(domid)
    if client is None:
        return False
    path = paths.resolve(domid, path, limits)
    way = way_to(engine.root, path)
    if way is None:
        return False
    node = way[-1]
    growth = len(value) - len(node.value)
    if record_bytes(node) + growth > limits.node_bytes_max or not _plainly_may(client.who, node.permissions):
        return False
    if growth:
        owner = node.permissions[0].who.domid
        if growth > 0:
            engine.check_memory(owner, growth, limits)
        engine.accounts.count({owner: Tally(bytes=growth)})
    before, engine.generation = way[0], engine.generation + 1
    engine.root, after = rewritten(way, path, value, engine.generation)
    if engine.watches.on_or_above(path):
        engine.fire(before, Edit(path, node, after, Fires.ON_IT_AND_ABOVE), engine.root)
    return True


def _plainly_may(who: Principal, permissions: Permissions) -> bool:
    """dom0 may everything; an owner may if nobody else writes, or else the policy has a word in it (mandatory.py)."""
    if who.domid == DOM0:
        return True
    return permissions[0].who == who and not any(each.access & WRITE for each in permissions)
