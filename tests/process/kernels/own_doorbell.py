"""A guest that has replaced its transport's notify: it raises its device's events by stores and a pipe of its own."""

import mmap
import os
from contextlib import suppress

from hvd.domains import runtime
from hvd.transport.channels import open_endpoint

LINE_BYTES = 128
CALLS = 16
opened: dict[int, tuple[mmap.mmap, int, int]] = {}


def open_and_keep(page, side, rx, tx):
    """Its own way to the other end, beside what the runtime has of it."""
    mine = mmap.mmap(page, 0), side, os.dup(tx) if tx >= 0 else -1
    endpoint = open_endpoint(page, side, rx, tx)
    opened[id(endpoint)] = mine
    return endpoint


vars(runtime)["open_endpoint"] = open_and_keep


class OwnDoorbell:
    """What a ring's driver has in the place of an endpoint."""

    def __init__(self, page, side, tx):
        self._page, self._line, self._tx = page, (1 - side) * LINE_BYTES, tx

    def notify(self):
        """Pending is 1, waiting is 0, and a byte for whoever sleeps at the pipe: it may be full of them already."""
        self._page[self._line : self._line + 8] = (1).to_bytes(8, "little")
        with suppress(BlockingIOError):
            os.write(self._tx, b"x")


def main(guest):
    echo, store, count = guest.device("echo"), guest.runtime.store, 0
    echo._endpoint = OwnDoorbell(*opened[id(echo._endpoint)])
    while True:
        for _ in range(CALLS):
            assert echo.call(b"hello")[:5] == b"hello"
        count += CALLS
        store.write("data/count", count)
