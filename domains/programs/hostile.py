"""Boots one piece of hostile code: its first argument is FAMILY.FUNCTION of hvd.domains.hostile, the rest are for that.

What came of it stands in `data/outcome`: "did ..." or "failed ...". That is what the attacker says; whoever judges it
looks at the victim.
"""

from __future__ import annotations

from importlib import import_module

from hvd.domains.guest import Guest
from hvd.transport.errors import HvdError

TOLD_CHARACTERS_MAX = 1500


def main(guest: Guest) -> None:
    family, _, function = guest.args[0].partition(".")
    act = getattr(import_module(f"hvd.domains.hostile.{family}"), function)
    try:
        told = f"did {act(guest, *guest.args[1:])}"
    except (OSError, HvdError, MemoryError, RuntimeError) as error:  # what may stop it; the rest are its own mistakes
        told = f"failed {type(error).__name__}: {error}"
    guest.runtime.store.write("data/outcome", told[:TOLD_CHARACTERS_MAX])
    guest.run_forever()
