"""Xen's own clients on our store, unmodified: Debian's xenstore-utils and test-xenstore, and pyxs."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hvd.toolstack.cluster import Cluster
from hvd.transport import messages as m
from hvd.transport.messages import DomainConfig
from hvd.transport.xs_wire import Type
from tests.process.xenstored.clients import SocketClient
from tests.process.xenstored.daemon import client_tool, xen_utils

DEADLINE_S = 60.0
GUEST = """
import socket
from hvd.transport import xs_wire

AUTO_READY = False

def main(guest):
    '''Asks for its own directory by XenStore's socket, where Xen's libraries look for it.'''
    client = socket.socket(socket.AF_UNIX)
    client.connect('/var/run/xenstored/socket')
    def call(kind, payload):
        client.sendall(xs_wire.pack(kind, 1, 0, payload))
        reply = client.recv(8192)
        return xs_wire.split(reply, 0)[0].payload
    found = [call(xs_wire.Type.READ, b'name\\0'), call(xs_wire.Type.READ, b'/local/domain/0/data\\0'),
             call(xs_wire.Type.WRITE, b'data/seen\\0by socket'), call(xs_wire.Type.CONTROL, b'help\\0')]
    guest.runtime.store.write('data/answers', repr(found))
    guest.ready()
    while True:
        guest.runtime.wait(60)
"""


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster.build() as running:
        yield running


@pytest.fixture
def xenstore(cluster: Cluster) -> dict[str, str]:
    """The environment of a client of dom0's socket."""
    return {**os.environ, "XENSTORED_PATH": cluster.info()["xenstored_socket"]}


def run(environment: dict[str, str], tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [client_tool(tool), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False)


def output(environment: dict[str, str], tool: str, *arguments: str) -> str:
    done = run(environment, tool, *arguments)
    assert done.returncode == 0, done
    return done.stdout


# ---- xenstore-utils --------------------------------------------------------------------------------------------------


def test_xenstore_utils_write_read_list_and_remove(xenstore: dict[str, str]) -> None:
    output(xenstore, "xenstore-write", "/tool/one", "1", "/tool/two/three", "a longer value")
    assert output(xenstore, "xenstore-read", "/tool/one", "/tool/two/three") == "1\na longer value\n"
    assert output(xenstore, "xenstore-list", "/tool") == "one\ntwo\n"
    assert run(xenstore, "xenstore-exists", "/tool/two").returncode == 0
    output(xenstore, "xenstore-rm", "/tool/two")
    assert run(xenstore, "xenstore-exists", "/tool/two").returncode == 1
    assert run(xenstore, "xenstore-read", "/tool/two").stderr == "xenstore-read: couldn't read path /tool/two\n"


def test_xenstore_ls_shows_the_tree_with_permissions(xenstore: dict[str, str]) -> None:
    output(xenstore, "xenstore-write", "/tool/one", "1")
    output(xenstore, "xenstore-chmod", "/tool/one", "n0", "r0")
    assert output(xenstore, "xenstore-ls", "-fp", "/tool") == '/tool/one = "1"   (n0,r0)\n'
    assert '/local/domain/0/name = "Domain-0"   (n0,r0)\n' in output(xenstore, "xenstore-ls", "-fp")


def test_xenstore_ls_reads_a_directory_that_takes_many_messages(cluster: Cluster, xenstore: dict[str, str]) -> None:
    names = [f"child-with-a-name-that-is-rather-long-{number:04}" for number in range(500)]
    for name in names:
        cluster.call(m.StoreWrite(0, f"/many/{name}", b""))
    assert output(xenstore, "xenstore-list", "/many").split() == names


def test_xenstore_watch_hears_what_a_hypercall_writes(cluster: Cluster, xenstore: dict[str, str]) -> None:
    watching = subprocess.Popen(
        ["stdbuf", "-oL", client_tool("xenstore-watch"), "-n", "3", "/watched"], env=xenstore, stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    with watching:
        assert watching.stdout is not None
        assert watching.stdout.readline() == "/watched\n"
        cluster.call(m.StoreWrite(0, "/watched/below", b"1"))
        assert watching.stdout.readline() == "/watched/below\n"
        output(xenstore, "xenstore-rm", "/watched")
        assert watching.wait(DEADLINE_S) == 0


def test_xenstore_control_knows_the_common_subcommands(xenstore: dict[str, str]) -> None:
    control = str(xen_utils("xenstore-control"))

    def ask(*words: str) -> str:
        return subprocess.run([control, *words], env=xenstore, capture_output=True, text=True, check=True).stdout

    assert "quota\t[set <name> <val>|<domid>]" in ask("help")
    assert "nodes            :     1000" in ask("quota")
    ask("quota", "set", "nodes", "2000")
    assert "nodes            :     2000" in ask("quota")
    assert "Domain 0:" in ask("quota", "0") and ask("check").strip() == "OK"


def test_debians_test_xenstore_passes_all_its_cases(xenstore: dict[str, str]) -> None:
    tester = str(xen_utils("test-xenstore"))
    for arguments in ([], ["-r", "2"], ["-i", "20"]):
        command = [tester, *arguments]
        done = subprocess.run(command, env=xenstore, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
        assert done.returncode == 0, done
        assert "failed" not in done.stdout + done.stderr, done


# ---- pyxs ------------------------------------------------------------------------------------------------------------


def test_pyxs_works_through_its_whole_interface(xenstore: dict[str, str]) -> None:
    pyxs = pytest.importorskip("pyxs")
    with pyxs.Client(unix_socket_path=xenstore["XENSTORED_PATH"]) as client:
        client[b"/pyxs/value"] = b"1"
        assert client[b"/pyxs/value"] == b"1" and client.list(b"/pyxs") == [b"value"]
        client.set_perms(b"/pyxs/value", [b"b0"])
        assert client.get_perms(b"/pyxs/value") == [b"b0"]
        assert client.get_domain_path(0) == b"/local/domain/0" and client.is_domain_introduced(0)
        assert [path for path, *_ in client.walk(b"/pyxs")] == [b"/pyxs", b"/pyxs/value"]
        client.transaction()
        client[b"/pyxs/other"] = b"2"
        assert client.commit() and client[b"/pyxs/other"] == b"2"
        with client.monitor() as monitor:
            monitor.watch(b"/pyxs/value", b"token")
            events = monitor.wait()
            assert tuple(next(events)) == (b"/pyxs/value", b"token")
            client[b"/pyxs/value"] = b"3"
            assert tuple(next(events)) == (b"/pyxs/value", b"token")
        client.delete(b"/pyxs")
        assert not client.exists(b"/pyxs/value")


# ---- identity --------------------------------------------------------------------------------------------------------


def test_a_guests_socket_is_in_its_own_root_and_carries_its_identity(cluster: Cluster, tmp_path: Path) -> None:
    kernel = tmp_path / "asker.py"
    kernel.write_text(GUEST)
    guest = cluster.create(DomainConfig(name="asker", kernel=str(kernel)))
    guest.wait_ready(DEADLINE_S)
    home = f"/local/domain/{guest.domid}"
    answers = cluster.call(m.StoreRead(0, f"{home}/data/answers")).decode()
    assert answers == repr([b"asker", b"EACCES\0", b"OK\0", b"EACCES\0"])
    assert cluster.call(m.StoreRead(0, f"{home}/data/seen")) == b"by socket"
    assert cluster.call(m.StoreGetPerms(0, f"{home}/data/seen")) == [f"n{guest.domid}"]


def test_the_hosts_socket_is_for_its_owner_alone(cluster: Cluster) -> None:
    socket = Path(cluster.info()["xenstored_socket"])
    assert stat.S_IMODE(socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700


# ---- a broker's death ------------------------------------------------------------------------------------------------


def test_who_connects_while_there_is_no_broker_waits_for_the_next_and_finds_what_was_written(cluster: Cluster) -> None:
    path = cluster.info()["xenstored_socket"]
    with SocketClient(path) as before:
        before.ask(Type.WRITE, "/kept", "")
        before.ask(Type.WATCH, "/kept", "token")
        before.ask(Type.TRANSACTION_START, "")
        os.kill(cluster.info()["broker_pid"], signal.SIGKILL)
        with SocketClient(path) as after:
            assert after.ask(Type.READ, "/kept") == b"\0"
            report = after.call(Type.CONTROL, b"quota\0" + b"0\0").payload.decode()
        with pytest.raises((EOFError, ConnectionError)):
            before.event()
            before.event()
    assert "transactions    :        0" in report


def test_hvd_info_names_the_socket(cluster: Cluster) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "hvd", "info", "--json"], env={**os.environ, "HVD_RUN_DIR": str(cluster.run_dir)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(told.stdout)["xenstored_socket"] == f"{cluster.run_dir}/xenstored/socket"
