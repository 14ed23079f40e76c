"""A console's page and channel with both ends in one process, each end as its own domain would hold it."""

import os
import time
from collections.abc import Generator
from typing import Any, cast

import pytest

from hvd.domains.console.frontend import ConsoleFrontend
from hvd.domains.runtime import Runtime
from hvd.transport.channels import Waiter, create_channel, open_endpoint
from hvd.transport.ids import Port
from hvd.transport.pages import Extent, create_extent
from hvd.transport.protocols.console import ConsoleBack

PORT = Port(2)
DEADLINE_S = 20.0


class Domain:
    """What a console needs of its domain's runtime: page, channel, and a loop that runs the channel's handler."""

    def __init__(self, page, endpoint):
        self.console_extent, self.console_endpoint, self.console_port = page, endpoint, PORT
        self.waiter = Waiter()
        self.handler: Any = None

    def bind(self, port, endpoint, handler):
        self.waiter.add(port, endpoint)
        self.handler = handler

    def wait(self, timeout_s=None):
        ready = self.waiter.wait(-1 if timeout_s is None else max(0, int(timeout_s * 1e9)))
        if PORT in ready:
            self.handler()
        return bool(ready)


class Line:
    """A console from end to end: `console` is the domain's, `back` and `bell` are domain 0's."""

    def __init__(self):
        descriptor = create_extent(1, "hvd-test-console")
        self.page = Extent.map(descriptor, 1, writable=True)
        self.other_view = Extent.map(descriptor, 1, writable=True)
        os.close(descriptor)
        channel = create_channel()
        ends = [open_endpoint(channel.page_fd, side, end.rx, end.tx) for side, end in enumerate(channel.ends)]
        os.close(channel.page_fd)
        self.endpoint, self.bell = ends
        self.domain = Domain(self.page, self.endpoint)
        self.back = ConsoleBack(self.other_view.view)
        self.console = ConsoleFrontend(cast(Runtime, self.domain))

    def take(self):
        """What domain 0 does when it is notified: everything that is there, and a notification back."""
        data = self.back.read(4096)
        if data:
            self.bell.notify()
        return data

    def take_until(self, end):
        """Serve as domain 0 does until the output ends like this."""
        until, data = time.monotonic() + DEADLINE_S, b""
        while not data.endswith(end):
            assert time.monotonic() < until, f"only {len(data)} bytes came, ending in {data[-80:]!r}"
            self.bell.wait(50_000_000)
            data += self.take()
        return data

    def type(self, data):
        assert self.back.write(data) == len(data)
        self.bell.notify()

    def close(self):
        self.domain.waiter.close()
        for end in (self.endpoint, self.bell):
            end.close()


@pytest.fixture
def line() -> Generator[Line, None, None]:
    made = Line()
    yield made
    made.close()
