"""`print` and `input` on a console."""

import sys
import threading

import pytest

from hvd.domains.console.streams import ConsoleStreams


@pytest.fixture
def streams(monkeypatch):
    """To be installed by the test itself: pytest's capture sets sys.stdout between a fixture and its test."""
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, getattr(sys, name))
    return ConsoleStreams()


def test_lines_are_printed_as_they_end_and_the_rest_when_flushed(line, streams):
    streams.install(line.console)
    print("one\ntwo")
    print("three", end="")
    assert line.take() == b"one\r\ntwo\r\n"
    streams.flush()
    assert line.take() == b"three"


def test_errors_and_output_keep_their_order(line, streams):
    streams.install(line.console)
    print("first")
    print("second", file=sys.stderr)
    print("third")
    assert line.take() == b"first\r\nsecond\r\nthird\r\n"


def test_bytes_and_text_that_is_no_text_are_printed(line, streams):
    streams.install(line.console)
    sys.stdout.buffer.write(b"\xff\x00")
    print("\udc80")
    assert line.take() == b"\xff\x00\\udc80\r\n"


def test_input_prompts_echoes_and_returns_the_line(line, streams):
    streams.install(line.console)
    line.type(b"Wx\x7forld\r")
    assert input("name? ") == "World"
    assert line.take() == b"name? Wx\b \borld\r\n"


def test_lines_typed_ahead_are_read_one_by_one(line, streams):
    streams.install(line.console)
    line.type(b"one\rtwo\rthree\r")
    assert [input(), sys.stdin.readline(), input()] == ["one", "two\n", "three"]


def test_a_line_longer_than_any_buffer_is_read_whole(line, streams):
    streams.install(line.console)
    text = b"abcdefgh" * 500

    def type_slowly():
        left = text + b"\r"
        while left:
            left = left[line.back.write(left) :]
            line.bell.notify()
            line.take()
            line.bell.wait(50_000_000)

    typist = threading.Thread(target=type_slowly)
    typist.start()
    assert input() == text.decode()
    typist.join()


def test_the_end_of_input_is_reported_and_is_not_final(line, streams):
    streams.install(line.console)
    line.type(b"\x04more\r")
    with pytest.raises(EOFError):
        input()
    assert input() == "more"


def test_bytes_that_are_no_utf8_can_be_read(line, streams):
    streams.install(line.console)
    line.type(b"\xff\xfe\r")
    assert input() == "\\xff\\xfe"


def test_a_program_that_closed_its_output_can_still_be_flushed(line, streams):
    streams.install(line.console)
    sys.stdout.close()
    streams.flush()
    print("still here", file=sys.stderr)
    assert line.take() == b"still here\r\n"
