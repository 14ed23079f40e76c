"""What the security policy says about a node, beside the node's own permissions: nobody can give it away.

A node counts as its owner's. Who reads it learns what its owner may have written, and what anybody else may have whom
its permissions let write: the policy must let the reader hear all of them. dom0 is asked nothing, since the broker's own
calls on the store are made in its name.
"""

from __future__ import annotations

import errno
from typing import Protocol

from hvd.broker.store.errors import StoreError
from hvd.broker.store.permissions import READ, WRITE, Permissions
from hvd.transport.ids import DOM0, DOMID_ANY, DomId
from hvd.transport.xsm import vector

STORE_READ, STORE_WRITE = vector("store", "read"), vector("store", "write")


class Policy(Protocol):
    """As much of the security module as the store asks."""

    def allows(self, source: DomId, target: DomId, wanted: int) -> bool:
        """Whether the one may do this to the other; DOMID_ANY stands for everybody."""


def check(policy: Policy | None, domid: DomId, permissions: Permissions, wanted: int, path: str) -> None:
    """EACCES unless the policy lets a domain do this (READ, or else a change) to a node with these permissions."""
    if policy is None or domid == DOM0:
        return
    if wanted == READ:
        allowed = may_hear(policy, domid, permissions)
    else:
        allowed = policy.allows(domid, permissions[0].who.domid, STORE_WRITE)
    if not allowed:
        raise StoreError(errno.EACCES, f"the security policy denies domain {domid} this on {path}")


def may_hear(policy: Policy | None, domid: DomId, permissions: Permissions) -> bool:
    """Whether a domain may learn what those wrote whom these permissions let write."""
    if policy is None or domid == DOM0:
        return True
    if not policy.allows(domid, permissions[0].who.domid, STORE_READ):
        return False
    if permissions[0].access & WRITE and not policy.allows(domid, DOMID_ANY, STORE_READ):
        return False
    return all(not each.access & WRITE or policy.allows(domid, each.who.domid, STORE_READ) for each in permissions[1:])
