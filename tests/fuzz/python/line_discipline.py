"""What is typed to a console: the same in any pieces, lines no longer than a line may be, and an echo that takes
back only what it has shown."""

from __future__ import annotations

from hvd.domains.console.line_discipline import RUB_OUT, LineDiscipline, to_terminal
from hvd.transport.limits import CONSOLE_LINE_BYTES_MAX
from tests.fuzz.python.choices import Choices

PATTERN_TIMES = 64


def play(data: bytes) -> None:
    choices = Choices(data)
    repeated = choices.take(80) * PATTERN_TIMES if choices.flag() else b""
    typed = repeated + choices.rest()
    whole, pieces = LineDiscipline(), LineDiscipline()
    echo = whole.feed(typed)
    size = 1 + len(typed) % 7
    assert echo == b"".join(pieces.feed(typed[at : at + size]) for at in range(0, len(typed), size))
    lines = _taken(whole)
    assert lines == _taken(pieces)
    assert all(len(line) <= CONSOLE_LINE_BYTES_MAX + 1 for line in lines)
    assert all(b"\n" not in line[:-1] for line in lines)
    column = 0
    for at in range(0, len(echo)):
        if echo[at : at + 1] == RUB_OUT[:1]:
            column -= 1
        elif echo[at : at + 1] in (b"\r", b"\n"):
            column = 0
        else:
            column += echo[at : at + 1] != b"\a"
        assert column >= 0, "something was taken back that was never shown"
    assert to_terminal(echo).count(b"\r\n") >= echo.count(b"\n")


def _taken(discipline: LineDiscipline) -> list[bytes]:
    lines = []
    while (line := discipline.take()) is not None:
        lines.append(line)
    return lines
