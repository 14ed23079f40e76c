"""Who may do what with a node: Xen's permission lists, and the domains they name.

The first entry names the owner, who may do everything, and says what a domain that no other entry names may do. An
entry names a domain, not a number: it holds the birth of the domain as well, so that a later domain with the same domid
inherits nothing (XSA-322), and forgetting a domain costs no walk through the tree.
"""

import errno
from collections.abc import Mapping
from typing import NamedTuple

from hvd.broker.store.c_numbers import strtol
from hvd.broker.store.errors import StoreError
from hvd.transport.ids import DOM0, DomId

READ = 1
WRITE = 2
OWNER = 7
"""All there is, the right to change permissions included: the owner's and dom0's."""

_ACCESS = {"n": 0, "r": READ, "w": WRITE, "b": READ | WRITE}
_LETTERS = {access: letter for letter, access in _ACCESS.items()}


class Principal(NamedTuple):
    """One domain for as long as its domid is its own; births count from 1 and are never used twice."""

    domid: DomId
    birth: int


class Permission(NamedTuple):
    """One entry of a node's list."""

    who: Principal
    access: int


Permissions = tuple[Permission, ...]
Living = Mapping[DomId, Principal]
"""The domains that exist now."""

DOM0_PRINCIPAL = Principal(DOM0, 0)
UNBORN = -1
"""The birth in an entry for a domain that did not exist when it was set: it stands there, and means nobody."""
DOM0_ONLY: Permissions = (Permission(DOM0_PRINCIPAL, 0),)


def access_of(permissions: Permissions, who: Principal, target: Principal | None = None) -> int:
    """What `who` may do with a node that has these permissions; what names its target is as if it named `who`."""
    owner = permissions[0].who
    if who.domid == DOM0 or owner in (who, target):
        return OWNER
    for permission in permissions[1:]:
        if permission.who in (who, target):
            return permission.access
    return permissions[0].access


def may(permissions: Permissions, who: Principal, wanted: int, target: Principal | None = None) -> bool:
    """Whether `who` has all of `wanted`."""
    return access_of(permissions, who, target) & wanted == wanted


def inherited(permissions: Permissions, who: Principal) -> Permissions:
    """A new child's permissions: its parent's, but a guest owns what it makes."""
    if who.domid == DOM0 or permissions[0].who == who:
        return permissions
    return (Permission(who, permissions[0].access), *permissions[1:])


def given_to_dom0(permissions: Permissions) -> Permissions:
    """The same list with dom0 as owner."""
    return (Permission(DOM0_PRINCIPAL, permissions[0].access), *permissions[1:])


def parse(texts: list[str], living: Living) -> Permissions:
    """The list that ["n5", "r0"] means. EINVAL: not such a list; ENOENT: there is no such owner."""
    if not texts:
        raise StoreError(errno.EINVAL, "permissions need at least one entry, the owner's")
    permissions = tuple(_parse_entry(text, living) for text in texts)
    if permissions[0].who.birth == UNBORN:
        raise StoreError(errno.ENOENT, f"owner {texts[0]!r} is a domain that does not exist")
    return permissions


def _parse_entry(text: str, living: Living) -> Permission:
    access, number = _ACCESS.get(text[:1]), strtol(text[1:])
    if access is None or number is None:
        raise StoreError(errno.EINVAL, f"not a permission: {text[:20]!r} (n, r, w or b, then a domid)")
    domid = DomId(number)
    return Permission(living.get(domid) or Principal(domid, UNBORN), access)


def to_texts(permissions: Permissions, living: Living) -> list[str]:
    """The list as ["n5", "r0"]; domains that are gone are not in it, nor one that has come since it was set."""
    return [
        f"{_LETTERS[access]}{who.domid}"
        for who, access in permissions
        if living.get(who.domid) == who or (who.birth == UNBORN and who.domid not in living)
    ]
