"""A domain's end of its console, while the fuzzer is the back: it takes, types, writes any index and byte of the page
and closes the channel between any two calls; what was printed is taken, waits, is said to be lost, or is in the log."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, cast

from hvd.domains.console import frontend
from hvd.domains.console.frontend import ConsoleFrontend
from hvd.domains.runtime import Runtime
from hvd.transport.channels import Waiter, create_channel, open_endpoint
from hvd.transport.errors import PeerFault
from hvd.transport.ids import Port
from hvd.transport.limits import CONSOLE_BACKLOG_BYTES_MAX
from hvd.transport.pages import PAGE_SIZE, Extent, create_extent
from hvd.transport.protocols.console import IN_SIZE, OUT_SIZE, ConsoleBack
from tests.fuzz.python.choices import Choices
from tests.fuzz.python.open_descriptors import open_descriptors

STEPS_MAX = 40
PORT = Port(2)
INDICES = OUT_SIZE + IN_SIZE
"""Where in the page the four of them stand."""
logged = bytearray()
frontend.STALL_S = 0.0  # nobody takes anything while it waits
frontend.write_raw = logged.extend  # type: ignore[assignment]


class Domain:
    """What a console needs of its domain's runtime."""

    def __init__(self, page: Extent, endpoint: Any) -> None:
        self.console_extent, self.console_endpoint, self.console_port = page, endpoint, PORT
        self.waiter = Waiter()
        self.handler: Callable[[], None] = lambda: None

    def bind(self, port: Port, endpoint: Any, handler: Callable[[], None]) -> None:
        self.waiter.add(port, endpoint)
        self.handler = handler

    def wait(self, timeout_s: float | None = None) -> bool:
        ready = self.waiter.wait(0)
        if PORT in ready:
            self.handler()
        return bool(ready)


class Line:
    """A console and the fuzzer's end of it."""

    def __init__(self) -> None:
        descriptor = create_extent(1, "hvd-fuzz-console")
        self.page = Extent.map(descriptor, 1, writable=True)
        self.theirs = Extent.map(descriptor, 1, writable=True)
        os.close(descriptor)
        channel = create_channel()
        ends = [open_endpoint(channel.page_fd, side, end.rx, end.tx) for side, end in enumerate(channel.ends)]
        os.close(channel.page_fd)
        self.endpoint, self.bell = ends
        self.domain = Domain(self.page, self.endpoint)
        self.console = ConsoleFrontend(cast(Runtime, self.domain))
        self.back = ConsoleBack(self.theirs.view)
        self.honest = True
        """Until the page is written otherwise than a back does."""
        self.printed, self.taken, self.typed, self.read = bytearray(), bytearray(), bytearray(), bytearray()

    def close(self) -> None:
        self.domain.waiter.close()
        for end in (self.endpoint, self.bell):
            end.close()
        self.back.close()
        self.console._ring.close()


def play(data: bytes) -> None:
    choices = Choices(data)
    before = open_descriptors()
    logged.clear()
    line = Line()
    for _ in range(STEPS_MAX):
        if not choices.more():
            break
        _step(choices, line)
        assert len(line.console._backlog) <= CONSOLE_BACKLOG_BYTES_MAX
    if line.honest:
        _check(line)
    line.close()
    assert open_descriptors() == before, "descriptors were left open"


def _step(choices: Choices, line: Line) -> None:
    console = line.console
    match choices.below(12):
        case 0 | 1:
            _print(choices, line)
        case 2:
            line.read += console.read(0.0)
        case 3:
            console.drain(0.0)
        case 4:
            line.domain.wait(0.0)
        case 5:
            assert len(console.undelivered()) <= CONSOLE_BACKLOG_BYTES_MAX + OUT_SIZE
        case 6:
            line.bell.notify()
        case 7:
            _take(choices, line)
        case 8:
            _type(choices, line)
        case 9 if choices.flag():
            line.bell.mark_closed()
        case 10:
            line.honest = False
            at = INDICES + 4 * choices.below(4)
            line.theirs.view[at : at + 4] = choices.take(4).ljust(4, b"\0")
        case _ if choices.flag():
            line.honest = False
            line.theirs.view[choices.number(2) % PAGE_SIZE] = choices.number(1)
        case _:
            return


def _print(choices: Choices, line: Line) -> None:
    data = choices.take(choices.below(16)) * (1 + choices.number(2) % 2048)
    line.printed += data
    line.console.write(data)


def _take(choices: Choices, line: Line) -> None:
    try:
        line.taken += line.back.read(1 + choices.number(2) % OUT_SIZE)
    except PeerFault:
        assert not line.honest
    line.bell.notify()


def _type(choices: Choices, line: Line) -> None:
    data = choices.take(choices.below(32)) * (1 + choices.below(64))
    try:
        line.typed += data[: line.back.write(data)]
    except PeerFault:
        assert not line.honest


def _check(line: Line) -> None:
    """Between two ends that keep to the protocol nothing goes astray."""
    assert not logged, "its back did nothing wrong"
    assert line.typed.startswith(line.read)
    if not line.console._lost and b" bytes lost]" not in line.taken + line.console.undelivered():
        assert line.taken + line.console.undelivered() == line.printed
