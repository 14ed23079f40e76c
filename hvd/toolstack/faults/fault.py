"""What a fault is to whoever injects it: its name, what it takes, who is hit, who sees it, how it is carried out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Protocol

from hvd.toolstack.cluster.errors import BadInput

if TYPE_CHECKING:
    from hvd.toolstack.cluster import Cluster, Domain

FOR_S_MAX = 3600.0


class BadFault(BadInput):
    """No such fault, victim or parameter; nothing was injected."""


class Aim(Enum):
    """Whom a fault is for."""

    DOMAINS = auto()
    """One domain or more, each for itself."""
    SPARED = auto()
    """One domain: every other one that has a process, dom0 left out, is hit."""
    GROUP = auto()
    """Domains together; none named: all that have a process, but dom0."""
    MACHINE = auto()
    """No domain."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A number that a fault takes."""

    name: str
    summary: str
    default: int
    least: int
    most: int
    names: tuple[str, ...] = ()
    """What may be said instead of each number, from `least` on."""

    def check(self, value: int | str) -> int:
        """The number; BadFault says what was expected."""
        try:
            number = self.least + self.names.index(value) if value and value in self.names else int(value)
        except ValueError:
            number = self.least - 1
        if not self.least <= number <= self.most:
            expected = f"a whole number from {self.least} to {self.most}"
            expected += f" or {', '.join(filter(None, self.names))}" if self.names else ""
            raise BadFault(f"{self.name}: expected {expected} ({self.summary}), found {value!r}")
        return number


@dataclass(frozen=True, slots=True)
class Seen:
    """What a witness says: whether the fault took effect (None: it cannot say yet), and by what."""

    activated: bool | None
    evidence: str


class Effect(Protocol):
    """One fault on one victim, from its beginning to its end."""

    def begin(self) -> None:
        """Carry it out, or begin it. Raises, with nothing done, when that is refused."""

    def look(self) -> Seen:
        """Ask the witness now."""

    def undo(self) -> None:
        """End it before its time. Nothing when it is over."""


@dataclass(frozen=True, slots=True)
class Order:
    """One fault to be carried out: everything is checked and decided."""

    cluster: Cluster
    victims: tuple[Domain, ...]
    for_s: float
    seed: int
    parameters: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind of fault."""

    name: str
    summary: str
    """What is done, in half a sentence."""
    witness: str
    """Who tells that it took effect, other than whoever does it."""
    expected: str
    """What is to happen then."""
    begin: Callable[[Order], list[Effect]]
    """The effects of an order, none of them begun."""
    aim: Aim = Aim.DOMAINS
    for_s: float | None = None
    """How long it lasts unless told otherwise; None: it is done and over."""
    parameters: tuple[Parameter, ...] = ()
    undone_by: str = ""
    """Who ends it, whoever injected it alive or not."""

    def check(self, given: Mapping[str, int | str]) -> dict[str, int]:
        """Every parameter's value; BadFault names one that it does not take, or a value that is none."""
        known = {parameter.name: parameter for parameter in self.parameters}
        for name in given:
            if name not in known:
                takes = ", ".join(known) or "no parameter"
                raise BadFault(f"fault {self.name} has no parameter {name!r}; it takes: {takes}")
        return {name: each.check(given.get(name, each.default)) for name, each in known.items()}

    def duration(self, for_s: float | None) -> float:
        """How long it is to last; BadFault when it does not last, or not so long."""
        if self.for_s is None:
            if for_s:
                raise BadFault(f"fault {self.name} is done and over: it takes no duration, found {for_s:g} s")
            return 0.0
        lasts = self.for_s if for_s is None else for_s
        if not 0 < lasts <= FOR_S_MAX:
            raise BadFault(f"fault {self.name}: expected a duration above 0 and up to {FOR_S_MAX:g} s, found {lasts:g}")
        return lasts
