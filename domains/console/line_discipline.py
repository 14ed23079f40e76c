"""What a terminal's line discipline does between console and program: lines are edited, echoed, then delivered whole.

Enter is a carriage return on the line and a newline to the program; the reverse on the way out. Backspace takes a
character back, Ctrl-U the line, Ctrl-D ends the input (or, after text, delivers it without its end). No I/O: bytes in,
bytes out.
"""

from __future__ import annotations

from collections import deque

from hvd.transport.limits import CONSOLE_LINE_BYTES_MAX

CTRL_D, BELL, BACKSPACE, TAB, LINE_FEED, RETURN, CTRL_U, SPACE, DELETE = b"\4\7\b\t\n\r\x15 \x7f"
RUB_OUT = b"\b \b"


def to_terminal(data: bytes) -> bytes:
    """What a program prints, as it goes to the console."""
    return data.replace(b"\n", b"\r\n")


class LineDiscipline:
    """One console's typed input."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._ready: deque[bytes] = deque()
        self._after_return = False

    def feed(self, typed: bytes) -> bytes:
        """Take in what was typed; returns what is to be echoed."""
        return b"".join(self._feed(byte) for byte in typed)

    def take(self) -> bytes | None:
        """The next line, b"" for an end of input; None while no line is ended."""
        return self._ready.popleft() if self._ready else None

    def _feed(self, byte: int) -> bytes:
        second_of_a_pair = self._after_return and byte == LINE_FEED
        self._after_return = byte == RETURN
        if second_of_a_pair:
            return b""
        if byte in (RETURN, LINE_FEED):
            self._deliver(b"\n")
            return b"\r\n"
        if byte == CTRL_D:
            self._deliver(b"")
            return b""
        if byte in (BACKSPACE, DELETE):
            return self._rub_out()
        if byte == CTRL_U:
            return b"".join(iter(self._rub_out, b""))
        if len(self._line) >= CONSOLE_LINE_BYTES_MAX:
            return bytes((BELL,))
        self._line.append(byte)
        return _shown(byte)

    def _deliver(self, end: bytes) -> None:
        self._ready.append(bytes(self._line) + end)
        self._line.clear()

    def _rub_out(self) -> bytes:
        """Take back one character, of as many bytes as UTF-8 gives it; b"" if there is none."""
        if not self._line:
            return b""
        while len(self._line) > 1 and self._line[-1] & 0xC0 == 0x80:
            self._line.pop()
        return RUB_OUT * len(_shown(self._line.pop()))


def _shown(byte: int) -> bytes:
    """Control characters are shown as ^X, not obeyed; a tab alone is itself."""
    return bytes((byte,)) if byte >= SPACE or byte == TAB else bytes((ord("^"), byte + 0x40))
