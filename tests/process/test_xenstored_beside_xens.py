"""The same requests to our store and to Debian's xenstored, which runs without Xen: they are answered alike."""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import sys
import tempfile
from os import close, pidfd_open

import pytest

from hvd.toolstack.bench.peers.xenstored import DAEMONS, running
from hvd.transport import xs_wire
from hvd.transport.xs_wire import Message, Type
from tests.process.xenstored.clients import DEADLINE_S, Client, SocketClient
from tests.process.xenstored.daemon import Xenstored, xen_utils, xenstored
from tests.unit.broker.xenstored.scenarios import SCENARIOS


@pytest.mark.parametrize("name", SCENARIOS)
def test_what_a_scenario_expects_is_what_xenstored_answers(name: str) -> None:
    with xenstored() as daemon, SocketClient(daemon.socket) as dom0:
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


@pytest.mark.parametrize("name", DAEMONS)
def test_each_of_xens_daemons_serves_and_is_gone_behind_its_block(name: str) -> None:
    xen_utils(name)
    with running(name) as daemon, SocketClient(daemon.socket) as dom0:
        dom0.ask(Type.MKDIR, "/here")
        assert b"here" in dom0.ask(Type.DIRECTORY, "/").split(b"\0")
    assert daemon.process.returncode == -signal.SIGKILL and not daemon.directory.exists()


HOLDING = """
import sys
import tempfile
from hvd.toolstack.bench.peers.xenstored import running
with running(sys.argv[1]) as daemon:
    print(daemon.process.pid, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("name", DAEMONS)
def test_a_daemon_ends_with_whoever_has_started_it(name: str) -> None:
    xen_utils(name)
    # whoever is killed leaves its directory behind
    with tempfile.TemporaryDirectory(prefix="hvd-") as left, subprocess.Popen(
        [sys.executable, "-c", HOLDING, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"TMPDIR": left},
    ) as starter:  # fmt: skip
        assert starter.stdout is not None
        daemon = pidfd_open(int(starter.stdout.readline()))
        try:
            starter.kill()
            assert select.select([daemon], [], [], DEADLINE_S)[0], f"{name} lives on"
        finally:
            close(daemon)
