"""Who is at the other end of a socket: told from the process that connected, and from nothing that it says."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from hvd.broker.xenstored.peers import NOBODY, domain_of
from hvd.transport.ids import DomId

CONNECT = """
import os, socket, sys
client = socket.socket(socket.AF_UNIX)
{before}
client.connect(sys.argv[1])
{after}
sys.stdin.read()
"""


def whose(tmp_path: Path, before: str, after: str, living: dict[int, DomId]) -> DomId | None:
    """What is said of a client that another process is; living names pids, or "it" for that process."""
    (tmp_path / "socket").unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        listening.listen()
        program = CONNECT.format(before=before, after=after)
        with subprocess.Popen([sys.executable, "-c", program, tmp_path / "socket"], stdin=subprocess.PIPE) as process:
            client, _ = listening.accept()
            with client:
                found = domain_of(client, {process.pid if pid == 0 else pid: domid for pid, domid in living.items()})
    return found


def test_a_process_of_the_host_is_nobodys(tmp_path: Path) -> None:
    assert whose(tmp_path, "", "", {}) is None


def test_a_domains_process_and_its_descendants_are_the_domains(tmp_path: Path) -> None:
    fork = "if os.fork(): os.wait(); sys.exit()"
    assert whose(tmp_path, "", "", {0: DomId(3)}) == 3
    assert whose(tmp_path, fork, "", {0: DomId(3)}) == 3
    assert whose(tmp_path, "", "", {os.getpid(): DomId(5)}) == 5


def test_who_has_ended_since_is_not_taken_for_the_hosts(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        listening.listen()
        subprocess.run(
            [sys.executable, "-c", CONNECT.format(before="", after=""), tmp_path / "socket"],
            stdin=subprocess.DEVNULL, check=True,
        )  # fmt: skip
        client, _ = listening.accept()
        with client:
            assert domain_of(client, {}) == NOBODY
