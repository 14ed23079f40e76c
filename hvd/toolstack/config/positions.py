"""Finds the line on which each key of a TOML document stands, which tomllib does not tell.

It walks a text that tomllib has accepted already, so it looks at structure only: headers, keys, brackets.
"""

import re
import tomllib

from hvd.toolstack.config.problems import Place

_DEPTH_MAX = 8
_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}'
    r"|'''.*?'{3,5}"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
    r"|\#[^\n]*"
    r"|[\[\]{},=.\n]"
    r"|[^\s\[\]{},=.\#\"']+",
    re.DOTALL,
)


def lines_of(text: str) -> dict[Place, int]:
    """The line, from 1, of every key and list item down to a fixed depth."""
    walk = _Walk(text)
    table: Place = ()
    while token := walk.peek():
        if token == "\n":
            walk.take()
        elif token == "[":
            table = walk.header()
        else:
            walk.pair(table)
    return walk.lines


class _Walk:
    """The tokens of one document and how far they have been read."""

    def __init__(self, text: str) -> None:
        self.lines: dict[Place, int] = {}
        self._lengths: dict[Place, int] = {}  # of arrays of tables
        self._tokens: list[tuple[str, int]] = []
        self._next = 0
        line = 1
        for match in _TOKEN.finditer(text):
            token = match.group()
            if not token.startswith("#"):
                self._tokens.append((token, line))
            line += token.count("\n")

    def peek(self) -> str:
        return self._tokens[self._next][0] if self._next < len(self._tokens) else ""

    def take(self) -> str:
        token = self.peek()
        self._next += 1
        return token

    def _line(self) -> int:
        return self._tokens[self._next][1] if self._next < len(self._tokens) else 0

    def _note(self, place: Place, line: int) -> None:
        for depth in range(1, len(place) + 1):
            self.lines.setdefault(place[:depth], line)

    def header(self) -> Place:
        """`[a.b]` or `[[a.b]]`: the place of the table that it opens."""
        line = self._line()
        brackets = 0
        while self.peek() == "[":
            self.take()
            brackets += 1
        place: Place = ()
        for key in self._key():
            if place in self._lengths:
                place += (self._lengths[place] - 1,)
            place += (key,)
        if brackets == 2:
            self._lengths[place] = self._lengths.get(place, 0) + 1
            place += (self._lengths[place] - 1,)
        self._note(place, line)
        self._next += brackets
        return place

    def pair(self, table: Place) -> None:
        """`key = value`."""
        line = self._line()
        place = table + tuple(self._key())
        self._note(place, line)
        self.take()  # the equals sign
        self._value(place)

    def _key(self) -> list[str]:
        parts = [_unquoted(self.take())]
        while self.peek() == ".":
            self.take()
            parts.append(_unquoted(self.take()))
        return parts

    def _value(self, place: Place) -> None:
        if len(place) > _DEPTH_MAX:
            self._skip()
        elif self.peek() == "[":
            self._items(place)
        elif self.peek() == "{":
            self._inline_table(place)
        else:
            self.take()
            while self.peek() not in {"", "\n", ",", "]", "}"}:  # a date and a time, the parts of 1.5
                self.take()

    def _items(self, place: Place) -> None:
        self.take()
        index = 0
        while (token := self.peek()) not in {"", "]"}:
            if token in {"\n", ","}:
                self.take()
                continue
            self._note((*place, index), self._line())
            self._value((*place, index))
            index += 1
        self.take()

    def _inline_table(self, place: Place) -> None:
        self.take()
        while (token := self.peek()) not in {"", "}"}:
            if token in {"\n", ","}:
                self.take()
            else:
                self.pair(place)
        self.take()

    def _skip(self) -> None:
        """Pass over one value without looking into it."""
        depth = 0
        while token := self.peek():
            if depth == 0 and token in {"\n", ",", "]", "}"}:
                return
            depth += (token in {"[", "{"}) - (token in {"]", "}"})
            self.take()


def _unquoted(key: str) -> str:
    if key[:1] in {'"', "'"}:
        return str(tomllib.loads(f"key = {key}")["key"])
    return key
