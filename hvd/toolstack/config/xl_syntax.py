"""xl.cfg's own syntax, as libxlu_cfg reads it: assignments of strings, numbers and lists; text in, values out.

    # a comment           ends a line anywhere outside a string
    name = "guest"        'single' or "double" quotes, with C's escapes
    vcpus = 0x2           decimal, 0x hexadecimal or 0 octal; 08 and 12ab are texts, which need no quotes
    disk = [ "a", "b", ]  may go on over lines, may be nested, may end with a comma
    disk += [ "c" ]       adds to a list, or to a string; a number is one, as it is written
    a = 1; b = 2          a line break or `;` ends an assignment
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from hvd.toolstack.config.problems import Place


class Number(int):
    """A number, and how it was written: to xl it is a string too."""

    text: str

    def __new__(cls, value: int, text: str) -> Number:
        number = super().__new__(cls, value)
        number.text = text
        return number


Value = str | Number | list["Value"]

DEPTH_MAX = 8
NUMBER_MAX = 2**63 - 1
_TOKEN = re.compile(
    r"""(?P<space>[ \t\r]+|\#[^\n]*) | (?P<end>[\n;]) | (?P<number>[0-9][0-9A-Za-z]*)
      | (?P<key>[A-Za-z_][A-Za-z0-9_.]*) | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
      | (?P<sign>\+=|[=,\[\]])""",
    re.VERBOSE,
)
_NUMBER = re.compile(r"0[xX][0-9A-Fa-f]{1,99}|[1-9][0-9]{0,99}|0[0-7]{0,99}")
_UNQUOTED = re.compile(r"[0-9][0-9a-fx]*")
"""libxlu's NUMBER, which is a text until somebody wants a number."""
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|[0-7]{1,3}|.)", re.DOTALL)
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def number_in(text: str) -> Number | None:
    """The number that a text is in C's way, in quotes or not; None if it is none."""
    if not _NUMBER.fullmatch(text):
        return None
    octal = len(text) > 1 and text.isdecimal() and text[0] == "0"
    value = int(text, 8 if octal else 0)
    return Number(value, text) if value <= NUMBER_MAX else None


def as_text(value: str | Number) -> str:
    """A number as it was written."""
    return value if isinstance(value, str) else value.text


class SyntaxProblem(Exception):
    """The text is no xl.cfg: where, what belongs there, what is there."""

    def __init__(self, line: int, column: int, expected: str, found: str) -> None:
        super().__init__(f"{line}:{column}: expected {expected}, found {found}")
        self.line, self.column, self.expected, self.found = line, column, expected, found


class Token(NamedTuple):
    """One word of the text; `kind` is the name of its pattern, "nothing" behind the last."""

    kind: str
    text: str
    line: int
    column: int


@dataclass(slots=True)
class Document:
    """Every key's value, and the line and column of every value: ("disk", 1) is the second of a list."""

    values: dict[str, Value] = field(default_factory=dict)
    lines: dict[Place, int] = field(default_factory=dict)
    columns: dict[Place, int] = field(default_factory=dict)

    def note(self, place: Place, token: Token) -> None:
        """The value of this place begins there."""
        self.lines[place], self.columns[place] = token.line, token.column


def parse(text: str) -> Document:
    """The assignments of an xl.cfg, a later one in the place of an earlier. SyntaxProblem at the first mistake."""
    return _Parser(text).document()


class _Parser:
    """Recursive descent, one token ahead."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._next = next(self._tokens)
        self._document = Document()
        self._added: dict[str, list[str]] = {}
        """By key, what is to stand behind its string: put together once, at the end."""

    def document(self) -> Document:
        while self._next.kind != "nothing":
            if not self._take("end"):
                self._assignment()
        for key, texts in self._added.items():
            self._document.values[key] = "".join(texts)
        return self._document

    def _assignment(self) -> None:
        key = self._expect("key", "a key").text
        operator = self._expect("sign", "= or +=", "=", "+=").text
        at = self._next
        before = self._document.values.get(key) if operator == "+=" else None
        place: Place = (key,)
        first = len(before) if isinstance(before, list) else 0
        value = self._value(place, 0, first)
        if before is not None:
            self._add(key, before, value, at)
        else:
            self._document.values[key] = value
            self._added.pop(key, None)
        if place not in self._document.lines:
            self._document.note(place, at)
        if self._next.kind != "nothing":
            self._expect("end", "the end of the line")

    def _add(self, key: str, before: Value, value: Value, at: Token) -> None:
        """In time that what is added takes, however much there is already."""
        if isinstance(before, list) and isinstance(value, list):
            before.extend(value)
        elif isinstance(before, list) or isinstance(value, list):
            raise SyntaxProblem(at.line, at.column, f"a {_kind(before)} to add to {key}", f"a {_kind(value)}")
        else:
            self._added.setdefault(key, [as_text(before)]).append(as_text(value))

    def _value(self, place: Place, depth: int, first: int = 0) -> Value:
        token = self._next
        if not first or place not in self._document.lines:
            self._document.note(place, token)
        if self._take("string"):
            return _unquoted(token.text)
        if self._take("number"):
            return _number(token)
        if not self._take("sign", "["):
            raise _unexpected(token, "a string, a number or a list")
        if depth == DEPTH_MAX:
            raise SyntaxProblem(token.line, token.column, f"lists within lists at most {DEPTH_MAX} deep", "one more")
        return self._list(place, depth + 1, first)

    def _list(self, place: Place, depth: int, first: int) -> list[Value]:
        values: list[Value] = []
        self._skip_lines()
        while not self._take("sign", "]"):
            values.append(self._value((*place, first + len(values)), depth))
            self._skip_lines()
            if not self._take("sign", ","):
                self._expect("sign", ", or ]", "]")
                break
            self._skip_lines()
        return values

    def _skip_lines(self) -> None:
        while self._take("end", "\n"):
            pass

    def _take(self, kind: str, *texts: str) -> bool:
        if self._next.kind != kind or (texts and self._next.text not in texts):
            return False
        self._next = next(self._tokens)
        return True

    def _expect(self, kind: str, what: str, *texts: str) -> Token:
        token = self._next
        if not self._take(kind, *texts):
            raise _unexpected(token, what)
        return token


def _tokens(text: str) -> Iterator[Token]:
    position, line, start = 0, 1, 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            what = "a closing quote on the same line" if text[position] in "\"'" else "a key, a value or a comment"
            rest, _, _ = text[position : position + 20].partition("\n")
            raise SyntaxProblem(line, position - start + 1, what, repr(rest))
        kind = match.lastgroup or ""
        if kind != "space":
            yield Token(kind, match.group(), line, position - start + 1)
        position = match.end()
        if match.group() == "\n":
            line, start = line + 1, position
    while True:
        yield Token("nothing", "", line, position - start + 1)


def _unexpected(token: Token, expected: str) -> SyntaxProblem:
    found = {"nothing": "the end of the file", "end": "the end of the line"}.get(token.kind, repr(token.text[:60]))
    return SyntaxProblem(token.line, token.column, expected, found)


def _unquoted(text: str) -> str:
    return _ESCAPE.sub(lambda match: _escaped(match[1]), text[1:-1])


def _escaped(text: str) -> str:
    if text[0] == "x" and len(text) > 1:
        return chr(int(text[1:], 16))
    return chr(int(text, 8) & 0xFF) if text[0] in "01234567" else _ESCAPES.get(text, text)


def _number(token: Token) -> Value:
    number = number_in(token.text)
    if number is None and not _UNQUOTED.fullmatch(token.text):
        raise SyntaxProblem(token.line, token.column, "a number", repr(token.text[:60]))
    return token.text if number is None else number


def _kind(value: Value) -> str:
    return "list" if isinstance(value, list) else "string" if isinstance(value, str) else "number"
