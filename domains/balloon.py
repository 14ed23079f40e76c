"""What a guest does when it is to use less memory, or may use more: memory/target, as Xen's balloon drivers hear it.

A guest of Xen hands pages back. Here it frees what it can do without, measures what it uses then, says with how much it
does from now on, and lowers its own limit to that; where it has a control group, the hypervisor lowers the group's.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TYPE_CHECKING

from hvd.domains.sandbox.limits import keep_to
from hvd.transport import messages as m
from hvd.transport._native import trim_memory

if TYPE_CHECKING:
    from hvd.domains.guest import Guest

TARGET = "memory/target"
KIB_DIGITS_MAX = 18


def balloon(guest: Guest, shrink: Callable[[int], None] | None) -> int:
    """Come as near to the target as can be; the KiB that it does with now. `shrink` frees what the program can spare.

    A guest that cannot go so low says so on its console.
    """
    now = _reservation(guest)
    target = _target(guest, now["current"])
    if target < now["current"]:
        if shrink is not None:
            shrink(target)
        gc.collect()
        trim_memory()
        now = _reservation(guest)
    reached = min(max(target, now["used"]), max(now["current"], now["maximum"]))
    if reached != now["current"]:
        guest.runtime.hypercalls.call(m.MemorySetReservation(reached))
    most = now["static_max"]
    keep_to(memory_kib=min(max(now["maximum"], reached), most), maxmem_kib=most)
    if reached > target:
        guest.write_console(f"balloon: {reached} KiB are in use, {target} KiB are the target\n")
    return reached


def _reservation(guest: Guest) -> dict[str, int]:
    found: dict[str, int] = guest.runtime.hypercalls.call(m.MemoryReservation())
    return found


def _target(guest: Guest, otherwise: int) -> int:
    text = guest.runtime.store.read_text(TARGET)
    return int(text) if len(text) <= KIB_DIGITS_MAX and text.isascii() and text.isdecimal() else otherwise
