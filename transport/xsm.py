"""The words that a security policy speaks, FLASK's where FLASK has one, and the policy of a machine that names none.

A policy is a table: for each pair of labels a *vector*, the permissions that a domain of the one label has over a
domain of the other. What a domain does with itself is no business of the policy's. Permissions of the class `security`
are about the policy itself and have no target.
"""

from __future__ import annotations

from functools import lru_cache

from hvd.transport.messages import Policy

CLASSES: dict[str, tuple[str, ...]] = {
    "event": ("create", "bind", "send", "status", "reset"),
    "grant": ("setup", "map_read", "map_write", "unmap", "copy"),
    "store": ("read", "write"),
    "domain": ("create", "destroy", "pause", "unpause", "shutdown", "kill", "fault"),
}
"""What one domain may do to another, by FLASK's classes; `store` is hvd's own, for Xen's XenStore asks no policy."""
SECURITY = ("load_policy", "setenforce")
"""The permissions of the class `security`; their bits are counted from 0 again."""
_BITS = {pair: 1 << number for number, pair in enumerate((c, p) for c, names in CLASSES.items() for p in names)}


def vector(class_name: str, *permissions: str) -> int:
    """The bits of these permissions, of all that the class has if none is named."""
    return sum(_BITS[class_name, permission] for permission in permissions or CLASSES[class_name])


@lru_cache(maxsize=256)
def spelled(bits: int) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """(class, permissions) of every class that has a bit in a vector."""
    found = ((name, tuple(p for p in words if _BITS[name, p] & bits)) for name, words in CLASSES.items())
    return tuple((name, words) for name, words in found if words)


def security_vector(*permissions: str) -> int:
    """The bits of these permissions of the class `security`."""
    return sum(1 << SECURITY.index(permission) for permission in permissions)


EVERYTHING = sum(_BITS.values())
EVERY_SECURITY = security_vector(*SECURITY)

LABELS = ("dom0_t", "driver_t", "domU_t", "safety_t", "safety_driver_t")
"""The labels of the policies that ship: each knows all of them, so that one can be loaded in another's place."""


def _open_policy() -> Policy:
    """Everybody may do everything that needs no privilege; dom0 controls domains and the policy."""
    count, guests = len(LABELS), EVERYTHING & ~vector("domain")
    vectors = [EVERYTHING] * count + [guests] * count * (count - 1)
    security = [EVERY_SECURITY] + [0] * (count - 1)
    return Policy("default", list(LABELS), "dom0_t", "driver_t", "domU_t", vectors, security)


OPEN_POLICY = _open_policy()
"""What a machine has that was told of none; `default.toml` says the same."""
