"""What each operation means: who may do it, what it depends on, and which change it makes.

Functions that write return the change and leave it to the engine to make it. Errors follow xenstored: EACCES for a node
that exists and may not be used; for one that does not exist, ENOENT only to those whom the nearest node above it allows
what they asked for, else EACCES, so that nobody learns what exists where they may not look.
"""

import errno
from typing import NamedTuple

from hvd.broker.store import mandatory, paths
from hvd.broker.store.changes import Change, Edit, Fires, Removal
from hvd.broker.store.children import names_at
from hvd.broker.store.errors import StoreError
from hvd.broker.store.permissions import OWNER, READ, WRITE, Permissions, Principal, access_of, inherited, may
from hvd.broker.store.quotas import PAYLOAD_BYTES_MAX, Quotas
from hvd.broker.store.transactions import View
from hvd.broker.store.tree import Node, above, leaf, lookup, nearest, record_bytes, with_content
from hvd.transport.ids import DOM0


class Call(NamedTuple):
    """Who asks, under which quotas, and the generation that the nodes get which the call changes."""

    who: Principal
    limits: Quotas
    generation: int
    policy: mandatory.Policy | None = None
    target: Principal | None = None
    """Of SET_TARGET, while that domain exists."""


def _find(view: View, call: Call, path: str, wanted: int) -> Node | None:
    """The node, if the caller may use it; None if it does not exist and the caller may know.

    The policy comes first: a transaction that depended on what it denies would tell by its commit of another's writes.
    """
    who = call.who
    node = lookup(view.root, path)
    if node is not None:
        if not mandatory.allows(call.policy, who.domid, node.permissions, wanted):
            raise _denied(call, path)
        view.touch(path)
        if not may(node.permissions, who, wanted, call.target):
            raise _denied(call, path)
        return node
    names = paths.split(path)
    depth, ancestor = nearest(view.root, names)
    if not mandatory.allows(call.policy, who.domid, ancestor.permissions, wanted):
        raise _denied(call, path)
    view.touch(paths.join(names[: depth + 1]))  # were it there, it would decide who may know; below it nothing can come
    view.touch(paths.join(names[:depth]))
    asked = wanted & ~READ if wanted == OWNER else wanted  # xenstored asks for the rights to write and to own
    if not access_of(ancestor.permissions, who, call.target) & asked:
        raise _denied(call, path)
    return None


def _denied(call: Call, path: str) -> StoreError:
    """In the same words whether the node exists or not."""
    return StoreError(errno.EACCES, f"domain {call.who.domid} may not do this to {path}")


def _get(view: View, call: Call, path: str, wanted: int) -> Node:
    node = _find(view, call, path, wanted)
    if node is None:
        raise StoreError(errno.ENOENT, f"{path} does not exist")
    return node


def read(view: View, call: Call, path: str) -> bytes:
    """The value."""
    return _get(view, call, path, READ).value


def may_read(call: Call, node: Node) -> bool:
    """Whether `read` would bring the value of a node, outside any transaction."""
    return mandatory.allows(call.policy, call.who.domid, node.permissions, READ) and may(
        node.permissions, call.who, READ, call.target
    )


def get_perms(view: View, call: Call, path: str) -> Permissions:
    """The permissions."""
    return _get(view, call, path, READ).permissions


def directory(view: View, call: Call, path: str) -> Node:
    """The node whose children's names were asked for."""
    node = _get(view, call, path, READ)
    view.touch(path, listed=True)
    return node


def directory_part(view: View, call: Call, path: str, offset: int) -> bytes:
    """DIRECTORY_PART's reply: the list's generation, whole names from a byte offset; an empty one ends the list."""
    if offset < 0:
        raise StoreError(errno.EINVAL, f"an offset is not negative: {offset}")
    node = directory(view, call, path)
    head = b"%d\0" % node.children_generation
    room = PAYLOAD_BYTES_MAX - len(head) - 1
    names = names_at(node.children, offset, room + 1)
    if len(names) <= room:
        return head + names + b"\0"
    return head + names[: names.rfind(b"\0", 0, room) + 1]


def write(view: View, call: Call, path: str, value: bytes) -> Change:
    """Set the value; what is missing on the way comes into being, empty."""
    node = _find(view, call, path, WRITE)
    if node is None:
        return _create(view, call, path, value)
    return _rewrite(call, path, node, with_content(node, value, node.permissions, call.generation))


def mkdir(view: View, call: Call, path: str) -> Change | None:
    """The node exists afterwards; one that did stays as it is."""
    node = _find(view, call, path, WRITE)
    return None if node is not None else _create(view, call, path, b"")


def rm(view: View, call: Call, path: str) -> Change | None:
    """The node and all below it are gone afterwards, whoever owns them; its parent must exist."""
    node = _find(view, call, path, WRITE)
    if node is None:
        parent = paths.parent(path)
        if lookup(view.root, parent) is None:
            raise StoreError(errno.ENOENT, f"{path} does not exist, nor does {parent}")
        return None
    if path == "/":
        raise StoreError(errno.EINVAL, "the root cannot be removed")
    return removal(path, node)


def removal(path: str, node: Node) -> Change:
    """A change without a node and all below."""
    return Change(path, None, Removal(path, node))


def set_perms(view: View, call: Call, path: str, permissions: Permissions) -> Change:
    """Replace the permissions; only the owner and dom0 may, and only dom0 may give a node away (XSA-352)."""
    node, domid = _get(view, call, path, OWNER), call.who.domid
    if domid != DOM0 and permissions[0].who != node.permissions[0].who:
        raise StoreError(errno.EPERM, f"domain {domid} may not give {path} to domain {permissions[0].who.domid}")
    return _rewrite(call, path, node, with_content(node, node.value, permissions, call.generation))


def _rewrite(call: Call, path: str, before: Node, after: Node) -> Change:
    check_record(call.limits, path, record_bytes(after))
    return Change(path, after, [Edit(path, before, after, Fires.ON_IT_AND_ABOVE)])


def _create(view: View, call: Call, path: str, value: bytes) -> Change:
    names = paths.split(path)
    depth, ancestor = nearest(view.root, names)
    check_record(call.limits, paths.join(names[:depth]), record_bytes(ancestor) + len(names[depth]) + 1)
    permissions = inherited(ancestor.permissions, call.who)
    node = leaf(value, permissions, call.generation)
    check_record(call.limits, path, record_bytes(node))
    view.touch(path)
    edits = [Edit(path, None, node, Fires.ON_IT_AND_ABOVE)]
    for missing in range(len(names) - 1, depth, -1):
        path = paths.join(names[:missing])
        view.touch(path)
        node = above(names[missing], node, permissions, call.generation)
        check_record(call.limits, path, record_bytes(node))
        edits.append(Edit(path, None, node, Fires.NOBODY))
    return Change(path, node, edits)


def check_record(limits: Quotas, path: str, size: int) -> None:
    """ENOSPC for a node that would be too large, by its value or by its children's names."""
    if size > limits.node_bytes_max:
        raise StoreError(errno.ENOSPC, f"{path} would take {size} bytes, a node has at most {limits.node_bytes_max}")
