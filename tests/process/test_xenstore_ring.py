"""A domain that brings its own xenbus client: XenStore's ring page and its event channel, as xs_wire.h has them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from hvd.toolstack.cluster import Cluster
from hvd.transport import messages as m
from hvd.transport.messages import DomainConfig
from hvd.transport.xs_wire import Type
from tests.process.xenstored.clients import SocketClient

DEADLINE_S = 60.0
KERNEL = '''
import mmap, os, struct

from hvd.transport import messages as m
from hvd.transport import xs_wire
from hvd.transport.channels import open_endpoint
from hvd.transport.xs_wire import Type

AUTO_READY = False


class Xenbus:
    """Requests and replies on the ring, one after the other."""

    def __init__(self, runtime):
        told, (extent, page, rx, tx) = runtime.hypercalls.call(m.StoreRing())
        assert told["ref"] == 1
        self.page = mmap.mmap(extent, mmap.PAGESIZE)
        self.bell = open_endpoint(page, told["side"], rx, tx)
        self.inbox, self.events = b"", []
        os.close(extent), os.close(page)

    def word(self, at, value=None):
        if value is not None:
            struct.pack_into("<I", self.page, at, value & 0xFFFFFFFF)
        return struct.unpack_from("<I", self.page, at)[0]

    def send(self, data):
        while data:
            produced = self.word(xs_wire.REQ_PROD_AT)
            room = 1024 - ((produced - self.word(xs_wire.REQ_CONS_AT)) & 0xFFFFFFFF)
            for offset, byte in enumerate(data[:room]):
                self.page[(produced + offset) % 1024] = byte
            self.word(xs_wire.REQ_PROD_AT, produced + len(data[:room]))
            data = data[room:]
            self.bell.notify()
            if data:
                self.bell.wait(10**9)

    def message(self):
        while (found := xs_wire.split(self.inbox, 0)) is None:
            if self.word(xs_wire.ERROR_AT):
                raise ConnectionError(self.word(xs_wire.ERROR_AT))
            consumed = self.word(xs_wire.RSP_CONS_AT)
            count = (self.word(xs_wire.RSP_PROD_AT) - consumed) & 0xFFFFFFFF
            if not count:
                self.bell.wait(10**9)
            self.inbox += bytes(self.page[1024 + (consumed + i) % 1024] for i in range(count))
            self.word(xs_wire.RSP_CONS_AT, consumed + count)
            self.bell.notify()
        message, end = found
        self.inbox = self.inbox[end:]
        return message

    def call(self, kind, *words):
        self.send(xs_wire.pack(kind, 1, 0, xs_wire.strings(*words)))
        while (message := self.message()).type == Type.WATCH_EVENT:
            self.events.append(message.payload)
        return message.payload

    def event(self):
        return self.events.pop(0) if self.events else self.message().payload

    def reconnect(self):
        self.word(xs_wire.CONNECTION_AT, xs_wire.RECONNECT)
        self.inbox = b""
        self.bell.notify()
        while self.word(xs_wire.CONNECTION_AT) != xs_wire.CONNECTED:
            self.bell.wait(10**9)


def main(guest):
    """Speaks by its ring, watches data/ask, and says again what it is asked to."""
    xenbus = Xenbus(guest.runtime)
    assert xenbus.call(Type.READ, b"name") == guest.name.encode()
    assert xenbus.call(Type.READ, b"/local/domain/0/data") == b"EACCES\\0"
    assert xenbus.call(Type.DIRECTORY, b"data") == b""
    assert xenbus.call(Type.WRITE, b"data/" + b"n" * 900, b"v" * 900) == b"OK\\0"
    xenbus.call(Type.WATCH, b"data/ask", b"token")
    guest.ready()
    while True:
        try:
            while xenbus.event() != b"data/ask\\0token\\0":
                pass
            asked = xenbus.call(Type.READ, b"data/ask")
            if asked not in (b"ENOENT\\0", b""):
                xenbus.call(Type.WRITE, b"data/answer", b"heard " + asked)
        except ConnectionError:
            xenbus.reconnect()
            xenbus.call(Type.WATCH, b"data/ask", b"token")
'''


def test_a_domain_speaks_by_its_ring_and_goes_on_when_the_broker_has_died(tmp_path: Path) -> None:
    kernel = tmp_path / "xenbus.py"
    kernel.write_text(KERNEL)
    with Cluster.build() as cluster:
        guest = cluster.create(DomainConfig(name="xenbus", kernel=str(kernel)))
        guest.wait_ready(DEADLINE_S)
        home = f"/local/domain/{guest.domid}/data"
        for number, restart in enumerate((False, True, True)):
            if restart:
                os.kill(cluster.info()["broker_pid"], signal.SIGKILL)
            with SocketClient(cluster.info()["xenstored_socket"]) as dom0:
                dom0.ask(Type.WATCH, f"{home}/answer", "answered")
                cluster.call(m.StoreWrite(0, f"{home}/ask", b"%d" % number))
                while dom0.call(Type.READ, f"{home}/answer\0".encode()).payload != b"heard %d\0" % number:
                    dom0.event()
        assert cluster.call(m.StoreGetPerms(0, f"{home}/answer")) == [f"n{guest.domid}"]
