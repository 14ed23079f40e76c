"""What the doctor says of one thing: whether it is there, what was seen, what its lack costs."""

from dataclasses import asdict, dataclass
from enum import StrEnum


class Status(StrEnum):
    """How much of what hvd wants is there."""

    OK = "ok"
    """All of it."""
    LIMITED = "limited"
    """hvd runs, with less: `cost` says what."""
    MISSING = "missing"
    """Not there at all: `cost` says what does not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's table."""

    name: str
    status: Status
    found: str
    """What was seen on this machine."""
    cost: str = ""
    """What its lack costs; empty if it is all there."""
    remedy: str = ""
    """How to get it; empty if it is all there."""

    def as_dict(self) -> dict[str, str]:
        """The fields by name, for JSON."""
        return asdict(self) | {"status": self.status.value}
