"""When the machine suspected a process's end, saw that it was fenced, and reaped it; as the event `reaped` tells it."""

from __future__ import annotations

import re

from hvd.transport.records import dataclass

REAPED_EVENT = "reaped"
MS = r"(\d{1,12}\.\d{6}) ms"
TOLD = re.compile(f"suspected {MS}, fenced {MS}, reaped {MS} before", re.ASCII)


@dataclass(frozen=True, slots=True)
class EndMoments:
    """In nanoseconds, all on the same clock, in this order."""

    suspected_ns: int
    """The first thread of it was seen to have ended."""
    fenced_ns: int
    """None of its threads runs its program any more: what it held may be given to others."""
    reaped_ns: int
    """The kernel has taken its memory apart, and its number is free."""

    def told(self, at_ns: int) -> str:
        """The detail of an event of that time, which is told a while after them."""
        ago = [(at_ns - at) / 1e6 for at in (self.suspected_ns, self.fenced_ns, self.reaped_ns)]
        return f"suspected {ago[0]:.6f} ms, fenced {ago[1]:.6f} ms, reaped {ago[2]:.6f} ms before"


def moments_told(detail: str, at_ns: int) -> EndMoments:
    """From the event's detail and time; ValueError when that is no such detail."""
    found = TOLD.fullmatch(detail)
    if found is None:
        raise ValueError(f"{detail!r} does not tell when an end was suspected and fenced")
    return EndMoments(*(at_ns - round(float(ms) * 1e6) for ms in found.groups()))
