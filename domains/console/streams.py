"""A guest's sys.stdin, sys.stdout and sys.stderr on its console: `print` and `input` are all it needs to know."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Any

from hvd.domains.console.line_discipline import LineDiscipline, to_terminal

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

    from hvd.domains.console.frontend import ConsoleFrontend


class ConsoleOutput(io.RawIOBase):
    """What is printed."""

    console: ConsoleFrontend
    """From `install` on."""

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer) -> int:
        """Takes all of it, always."""
        text = bytes(data)
        self.console.write(to_terminal(text))
        return len(text)


class ConsoleInput(io.RawIOBase):
    """What is typed, line by line; 0 bytes where Ctrl-D was typed, and for ever once the console is broken."""

    console: ConsoleFrontend
    """From `install` on."""

    def __init__(self) -> None:
        self._discipline = LineDiscipline()
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Wait for the next line, or give the next part of one that is longer than the buffer."""
        room = memoryview(buffer).cast("B")
        line = self._rest or self._next_line()
        count = min(len(line), len(room))
        room[:count] = line[:count]
        self._rest = line[count:]
        return count

    def _next_line(self) -> bytes:
        while (line := self._discipline.take()) is None:
            typed = self.console.read()
            if not typed:
                return b""
            echo = self._discipline.feed(typed)
            if echo:
                self.console.write(echo)
        return line


class ConsoleStreams:
    """The three text streams of one console. Nothing that a program prints or a person types is an encoding error."""

    def __init__(self) -> None:
        """Of no console before `install`."""
        self._raw = ConsoleInput(), ConsoleOutput(), ConsoleOutput()
        self._input = io.TextIOWrapper(io.BufferedReader(self._raw[0]), "utf-8", "backslashreplace", "\n")
        self._output, self._errors = map(_printer, self._raw[1:])

    def install(self, console: ConsoleFrontend) -> None:
        """Make them the process's standard streams, on this console; descriptors 1 and 2 stay the pipe to the log."""
        for raw in self._raw:
            raw.console = console
        sys.stdin, sys.stdout, sys.stderr = self._input, self._output, self._errors

    def flush(self) -> None:
        """Print what waits for its line to end."""
        for stream in (self._output, self._errors):
            if not stream.closed:
                stream.flush()


def _printer(raw: Any) -> io.TextIOWrapper:
    # Not buffered beneath: a byte written is a byte printed. RawIOBase suffices, since ours never writes less than all.
    return io.TextIOWrapper(raw, "utf-8", "backslashreplace", "\n", line_buffering=True)


OURS = ConsoleStreams()
"""This process's: made with the zygote's image, since each domain that makes its own writes to forty pages of it."""
