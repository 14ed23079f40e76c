"""What the security policy says about a node, beside the node's own permissions: nobody can give it away.

A node counts as its owner's. Who reads it learns what its owner may have written, and what anybody else may have whom
its permissions and the policy let write it: the policy must let the reader hear all of them. For dom0 nothing is asked,
since the broker's own calls on the store are made in its name.
"""

from __future__ import annotations

from typing import Protocol

from hvd.broker.store.permissions import READ, WRITE, Permissions
from hvd.transport.ids import DOM0, DomId
from hvd.transport.xsm import vector

STORE_READ, STORE_WRITE = vector("store", "read"), vector("store", "write")


class Policy(Protocol):
    """As much of the security module as the store asks."""

    def allows(self, source: DomId, target: DomId, wanted: int) -> bool:
        """Whether the one may do this to the other; a no is logged."""

    def permits(self, source: DomId, target: DomId, wanted: int) -> bool:
        """The same, and nothing is logged."""

    def allows_all_who_may(self, source: DomId, wanted: int, target: DomId, able: int) -> bool:
        """Whether the source may do `wanted` to all who may do `able` to the target; a no is logged."""


def allows(policy: Policy | None, domid: DomId, permissions: Permissions, wanted: int) -> bool:
    """Whether the policy lets a domain do this (READ, or else a change) to a node with these permissions.

    A change is answered too, by whether the node was there: so it takes as much of the other writers as reading does.
    """
    if policy is None or domid == DOM0:
        return True
    owner = permissions[0].who.domid
    if not policy.allows(domid, owner, STORE_READ if wanted == READ else STORE_WRITE):
        return False
    if permissions[0].access & WRITE and not policy.allows_all_who_may(domid, STORE_READ, owner, STORE_WRITE):
        return False
    writers = [each.who.domid for each in permissions[1:] if each.access & WRITE]
    return all(
        policy.allows(domid, writer, STORE_READ) for writer in writers if policy.permits(writer, owner, STORE_WRITE)
    )
