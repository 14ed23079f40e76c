"""The same requests to our store and to Debian's xenstored, which runs without Xen: they are answered alike."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from hvd.transport import xs_wire
from hvd.transport.xs_wire import Message, Type
from tests.process.xenstored.clients import Client, SocketClient
from tests.process.xenstored.daemon import Xenstored, xenstored
from tests.unit.broker.xenstored.scenarios import SCENARIOS


@pytest.mark.parametrize("name", SCENARIOS)
def test_what_a_scenario_expects_is_what_xenstored_answers(name: str, tmp_path: Path) -> None:
    with xenstored(tmp_path) as daemon, SocketClient(daemon.socket) as dom0:
        clients = {0: dom0, **introduce_guests(daemon, dom0)}
        for row in SCENARIOS[name]:
            client = clients[row.who]
            reply = client.call(row.kind, row.payload, row.tx)
            assert (reply.req_id, reply.tx_id) == (7, row.tx)
            expected = row.reply if row.real is None else row.real
            assert expected == "any" or shown(reply) == expected, row
            assert tuple(client.event() for _ in row.events) == row.events, row


def introduce_guests(daemon: Xenstored, dom0: SocketClient) -> dict[int, Client]:
    """As the scenarios begin; the guests speak by their rings."""
    for guest in ("1", "2"):
        home = f"/local/domain/{guest}"
        dom0.ask(Type.INTRODUCE, guest, "1", "5")
        dom0.ask(Type.MKDIR, f"{home}/data")
        dom0.ask(Type.SET_PERMS, home, "n0", f"r{guest}")
        dom0.ask(Type.SET_PERMS, f"{home}/data", f"n{guest}")
    return {guest: daemon.ring(guest) for guest in (1, 2)}


def shown(reply: Message) -> bytes | str:
    return errno.errorcode[xs_wire.error_number(reply.payload)] if reply.type == Type.ERROR else reply.payload
