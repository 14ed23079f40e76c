"""What is wrong with a cluster file: problems are gathered, so that one run tells them all."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from hvd.transport.errors import LocalError

Step = str | int
Place = tuple[Step, ...]
"""Where a value is: keys and list indices from the root, ("domain", 2, "disk", 0)."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: where it is, what belongs there, what is there."""

    file: str
    key: str
    """The key's path, `domain[2] "ivi".disk[0]`; empty when the file as a whole is meant."""
    expected: str
    found: str
    hint: str = ""
    line: int | None = None
    column: int | None = None

    def as_dict(self) -> dict[str, str | int | None]:
        """The fields by name, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        where = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        what = f"expected {self.expected}, found {self.found}"
        return ": ".join(part for part in (where, self.key, what) if part) + (f"; {self.hint}" if self.hint else "")


class ConfigError(LocalError):
    """A cluster file that cannot be used; nothing was started. Its text is one line a problem."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class Report:
    """Gathers what is wrong while a file is read; lines are looked up only if something is."""

    def __init__(
        self, file: str, text: str, lines: dict[Place, int] | None = None, columns: dict[Place, int] | None = None
    ) -> None:
        """`lines` and `columns`: where each value stands, for a file that is no TOML."""
        self._file = file
        self._text = text
        self._lines = lines
        self._columns = columns or {}
        self._labels: dict[Place, str] = {}
        self._wrong: list[tuple[Place, str, str, str]] = []
        self._warned: list[tuple[Place, str]] = []

    def label(self, place: Place, name: str) -> None:
        """Show `name` beside the index of this place from now on."""
        self._labels[place] = name

    def wrong(self, place: Place, expected: str, found: str, hint: str = "") -> None:
        """Note one mistake."""
        self._wrong.append((place, expected, found, hint))

    def warn(self, place: Place, predicate: str) -> None:
        """Note what this value does without: "is left out: ...", a sentence whose subject is the place."""
        self._warned.append((place, predicate))

    def spell(self, place: Place) -> str:
        """A place as it is shown: `domain[2] "ivi".disk[0]`."""
        text = ""
        for depth, step in enumerate(place, 1):
            if isinstance(step, int):
                text += f"[{step}]"
            else:
                key = step if step.isascii() and step.replace("-", "_").isidentifier() else shown(step)
                text += f".{key}" if text else key
            if name := self._labels.get(place[:depth]):
                text += f' "{name}"'
        return text

    def raise_if_wrong(self) -> None:
        """Raise ConfigError with every mistake if there was one."""
        if self._wrong:
            raise ConfigError(self.problems())

    def problems(self) -> list[Problem]:
        """Every mistake, in the order of the file's lines."""
        lines = self._found_lines()
        problems = []
        for place, expected, found, hint in self._wrong:
            at = _nearest(lines, place)
            line, column = lines.get(at), self._columns.get(at) if at in lines else None
            problems.append(Problem(self._file, self.spell(place), expected, found, hint, line, column))
        return sorted(problems, key=lambda problem: (problem.line or 0, problem.column or 0))

    def warnings(self) -> tuple[str, ...]:
        """Every warning, in the order of the file's lines."""
        if not self._warned:
            return ()
        lines = self._found_lines()
        found = [(lines.get(_nearest(lines, place)), f"{self.spell(place)} {told}") for place, told in self._warned]
        found.sort(key=lambda warning: warning[0] or 0)
        return tuple(f"{self._file}:{line}: {text}" if line else f"{self._file}: {text}" for line, text in found)

    def _found_lines(self) -> dict[Place, int]:
        if self._lines is None:
            from hvd.toolstack.config.positions import lines_of  # a file without mistakes does not pay for it

            self._lines = lines_of(self._text)
        return self._lines


def _nearest(lines: dict[Place, int], place: Place) -> Place:
    """The place or, for a key that is missing, that of the nearest table around it."""
    while place and place not in lines:
        place = place[:-1]
    return place


def shown(value: object) -> str:
    """A TOML value, short enough for a message."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        quoted = ascii(value) if not value.isprintable() else f'"{value}"'
        return quoted if len(quoted) <= 100 else f"{quoted[:40]}…{quoted[-50:]} ({len(value)} characters)"
    if isinstance(value, list):
        return "an empty list" if not value else f"a list of {len(value)}"
    if isinstance(value, dict):
        return "a table"
    text = hex(value) if isinstance(value, int) and value.bit_length() > 4096 else str(value)
    return text if len(text) <= 60 else f"{text[:40]}…"


def nearest(word: str, known: Iterable[str]) -> str:
    """`did you mean "…"?`, or nothing when no known word is close."""
    from difflib import get_close_matches  # half of this package's import time, and needed for mistakes only

    matches = get_close_matches(word[:80], list(known), n=1)
    return f'did you mean "{matches[0]}"?' if matches else ""
