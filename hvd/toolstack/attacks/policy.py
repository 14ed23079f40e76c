"""Attacks that grants and permissions allow, and a security policy does not: two domains that work together."""

from __future__ import annotations

from hvd.toolstack.attacks.arena import Arena, harmless
from hvd.toolstack.attacks.attack import Attack, Attempt, Seen
from hvd.toolstack.attacks.channels import bind_all
from hvd.toolstack.attacks.pairs import write_granted
from hvd.toolstack.attacks.store import reach_another
from hvd.transport.errors import HvdError

SILO = "silo"


def _under(name: str, attempt: Attempt) -> Attempt:
    """The same where this policy is in force. What it denies may be what the two need to begin with."""

    def under(arena: Arena) -> Seen:
        with arena.policy(name):
            try:
                return attempt(arena)
            except (HvdError, TimeoutError) as error:
                return harmless(f"denied: {error}")

    return under


ATTACKS: list[Attack] = [
    Attack(f"a guest that {what}", f"policy: {SILO}", _under(SILO, attempt), attempt, "under the policy default")
    for what, attempt in (
        ("binds another guest's port", bind_all(True)),
        ("writes another guest's page", write_granted("writable", ())),
        ("reads another guest's store", reach_another("r")),
    )
]
