"""Lines are edited and echoed as a terminal does it."""

import pytest

from hvd.domains.console.line_discipline import LineDiscipline, to_terminal
from hvd.transport.limits import CONSOLE_LINE_BYTES_MAX


@pytest.mark.parametrize(
    ("typed", "lines", "echo"),
    [
        (b"hello\r", [b"hello\n"], b"hello\r\n"),
        (b"hello\n", [b"hello\n"], b"hello\r\n"),
        (b"one\r\ntwo\r\n", [b"one\n", b"two\n"], b"one\r\ntwo\r\n"),
        (b"\r\r", [b"\n", b"\n"], b"\r\n\r\n"),
        (b"helo\x7flo\r", [b"hello\n"], b"helo\b \blo\r\n"),
        (b"ab\b\b\b\bc\r", [b"c\n"], b"ab\b \b\b \bc\r\n"),
        ("né\x7fe\r".encode(), [b"ne\n"], "né\b \be\r\n".encode()),
        ("\u20ac\x7f\r".encode(), [b"\n"], "\u20ac\b \b\r\n".encode()),
        (b"wrong\x15right\r", [b"right\n"], b"wrong" + b"\b \b" * 5 + b"right\r\n"),
        (b"\x04", [b""], b""),
        (b"half\x04\r", [b"half", b"\n"], b"half\r\n"),
        (b"\x1b[A\x7f\x7f\x7f\r", [b"\n"], b"^[[A\b \b\b \b\b \b\b \b\r\n"),
        (b"a\tb\r", [b"a\tb\n"], b"a\tb\r\n"),
        (b"no end", [], b"no end"),
    ],
)
def test_what_is_typed_becomes_lines_and_an_echo(typed, lines, echo):
    for size in (1, len(typed)):
        discipline = LineDiscipline()
        parts = [typed[at : at + size] for at in range(0, len(typed), size)]
        assert b"".join(discipline.feed(part) for part in parts) == echo
        assert list(iter(discipline.take, None)) == lines


def test_a_line_that_never_ends_is_bounded_and_can_still_be_ended():
    discipline = LineDiscipline()
    assert discipline.feed(b"x" * (CONSOLE_LINE_BYTES_MAX + 3)) == b"x" * CONSOLE_LINE_BYTES_MAX + b"\a\a\a"
    discipline.feed(b"\r")
    assert discipline.take() == b"x" * CONSOLE_LINE_BYTES_MAX + b"\n"


def test_output_lines_end_in_a_return_and_a_line_feed():
    assert to_terminal(b"one\ntwo\n\n") == b"one\r\ntwo\r\n\r\n"
