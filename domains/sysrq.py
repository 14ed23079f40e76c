"""What a guest does with the letters of `sysrq`, which the toolstack writes to `control/sysrq`: Linux's, if they fit.

They are heard when the guest waits, as everything of its drivers is.
"""

from __future__ import annotations

import sys
import traceback
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hvd.domains.guest import Guest

NODE = "control/sysrq"
REBOOT, CRASH, POWEROFF = 1, 3, 0
HELP = "sysrq: HELP : crash(c) show-stack(t) sync(s) reboot(b) poweroff(o)"


def heard(guest: Guest) -> None:
    """Take the letter, as xenbus does: the node is empty again before anything is done."""
    letter = guest.runtime.store.read_text(NODE)
    if not letter or letter == "\0":
        return
    guest.runtime.store.write(NODE, "")
    match letter:
        case "c":
            guest.runtime.shutdown(CRASH, "sysrq: crash")
        case "b":
            guest.runtime.shutdown(REBOOT, "sysrq: reboot")
        case "o":
            guest.runtime.shutdown(POWEROFF, "sysrq: power off")
        case "s":
            guest.write_console(f"sysrq: Emergency Sync\nsysrq: {_sync(guest)}\n")
        case "t":
            guest.write_console("sysrq: Show State\n" + _stack(sys._getframe()))
        case _:
            guest.write_console(HELP + "\n")


def _sync(guest: Guest) -> str:
    said = [f"{name} {_flushed(disk)}" for name, disk in guest.disks().items()]
    return ", ".join(said) or "no disks"


def _flushed(disk: object) -> str:
    try:
        disk.flush()  # type: ignore[attr-defined]
    except OSError as error:
        return f"cannot be flushed: {error.strerror}"
    return "is flushed"


def _stack(frame: FrameType) -> str:
    """Where the guest's program waits, as a traceback shows it."""
    return "".join(traceback.format_stack(frame))
