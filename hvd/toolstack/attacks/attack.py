"""What an attack is: its name, the layer that stops it, how it is tried against that layer, and how without it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hvd.toolstack.attacks.arena import Arena


@dataclass(frozen=True, slots=True)
class Seen:
    """What the outside saw of one attempt."""

    harmed: bool
    """Whether the victim came to harm."""
    what: str


Attempt = Callable[["Arena"], Seen]


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack on one layer."""

    name: str
    layer: str
    """What stops it: a layer of the sandbox, or the part of hvd whose check it is."""
    attempt: Attempt
    """With the layer."""
    control: Attempt
    """The same without it."""
    without: str
    """What the control does without, for people."""
    needs: tuple[str, ...] = ()
    """The sandbox's layers that this machine must have for it to say anything."""
    as_root: bool | None = None
    """It says something only where root started the machine (True), or only where somebody else did (False)."""
    tries: int = 1
    """Attempts of the control: an attack that is a race is not won each time."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of an attack."""

    name: str
    layer: str
    stopped: bool | None
    """None: this machine lacks what the attack is about; `attempt` says what."""
    attempt: str
    control: str
    """What was switched off, and what happened then."""
    control_succeeded: bool | None

    @property
    def as_it_should_be(self) -> bool:
        """It was stopped and its control succeeded, or it does not apply here."""
        return self.stopped is None or bool(self.stopped and self.control_succeeded)

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, for JSON."""
        return {
            "name": self.name, "stopped": self.stopped, "layer": self.layer, "control": self.control,
            "control_succeeded": self.control_succeeded, "attempt": self.attempt,
        }  # fmt: skip
