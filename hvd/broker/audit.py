"""The audit log: what the security policy denied, in a file of its own, as much of it as one domain may cause."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

from hvd.transport.ids import DomId
from hvd.transport.limits import AVC_BURST_MAX
from hvd.transport.log_file import append
from hvd.transport.records import dataclass
from hvd.transport.run_dir import AUDIT_LOG

LINES_PER_S = 1.0


class Denial(NamedTuple):
    """A line of the log: whose it is, and how many denials it stands for."""

    source: DomId
    line: str
    denials: int


@dataclass(slots=True)
class Allowance:
    """What one domain may still have logged, and what was not."""

    lines: float
    since_s: float
    left_out: int = 0


class AuditLog:
    """Lines wait until they are taken. A domain that is denied without end is logged now and then, with a count."""

    def __init__(self, run_dir: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = f"{run_dir}/{AUDIT_LOG}"
        self._clock = clock
        self._allowances: dict[DomId, Allowance] = {}
        self._waiting: list[Denial] = []

    def note(self, source: DomId, line: str) -> None:
        """Something that this domain did is to be logged."""
        now = self._clock()
        allowance = self._allowances.setdefault(source, Allowance(AVC_BURST_MAX, now))
        allowance.lines = min(AVC_BURST_MAX, allowance.lines + (now - allowance.since_s) * LINES_PER_S)
        allowance.since_s = now
        if allowance.lines < 1:
            allowance.left_out += 1
            return
        allowance.lines -= 1
        self._count(source, allowance)
        self._waiting.append(Denial(source, line, 1))

    def take(self) -> list[Denial]:
        """What waits; it is in the file by then."""
        if not self._waiting:
            return []
        denials, self._waiting = self._waiting, []
        at = datetime.now(UTC).isoformat(timespec="microseconds")
        append(self._path, "".join(f"{at} {denial.line}\n" for denial in denials).encode())
        return denials

    def forget(self, source: DomId) -> None:
        """An incarnation of this domain is dead: what of it was left out is told now."""
        allowance = self._allowances.pop(source, None)
        if allowance is not None:
            self._count(source, allowance)

    def _count(self, source: DomId, allowance: Allowance) -> None:
        if allowance.left_out:
            line = f"avc:  {allowance.left_out} more of domid={source} were not logged"
            self._waiting.append(Denial(source, line, allowance.left_out))
            allowance.left_out = 0
