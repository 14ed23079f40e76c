"""What is new in a log that others append to and rotate, and what of it says that a ring was found broken."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hvd.toolstack.cluster import Cluster, Domain
from hvd.toolstack.faults.ring_witnesses import BROKEN, STORE_CLOSED, LogTail, witness_of
from hvd.transport import log_file
from hvd.transport.faults import RingKind


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "a.log"


def test_a_log_that_there_is_not_yet_is_read_from_its_beginning(log: Path) -> None:
    tail = LogTail(log)
    assert tail.read() == ""
    log_file.append(log, b"first\n")
    assert tail.read() == "first\n"


def test_what_was_there_before_is_not_told(log: Path) -> None:
    log_file.append(log, b"old\n")
    tail = LogTail(log)
    log_file.append(log, b"new\n")
    assert tail.read() == tail.read() == "new\n"


def test_a_rotation_loses_nothing_of_it(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_file, "CONSOLE_LOG_BYTES_MAX", 12)
    log_file.append(log, b"old\n")
    tail = LogTail(log)
    for line in (b"new 1\n", b"new 2\n"):
        log_file.append(log, line)
    assert tail.read() == "new 1\nnew 2\n"


def witness(kind: RingKind, directory: Path, dmesg: list[str]) -> Any:
    (directory / "log").mkdir()
    cluster = SimpleNamespace(run_dir=directory, dmesg=lambda: dmesg)
    victim = SimpleNamespace(domid=7, log_path=lambda: directory / "log" / "victim.log")
    return witness_of(kind, cast(Cluster, cluster), cast(Domain, victim))


def test_xenstores_end_speaks_of_this_domain_alone_and_whole_lines_count(tmp_path: Path) -> None:
    ends = witness(RingKind.STORE, tmp_path, [])
    log = tmp_path / "log" / "broker.log"
    for domid, text in ((8, STORE_CLOSED), (7, "it has died"), (7, f"{STORE_CLOSED}: its ring index")):
        log_file.append(log, json.dumps({"event": text, "domid": domid}).encode() + b"\n")
    log_file.append(log, b'7\n{"event": "its conn')
    assert ends.found() == [f"broker.log: {STORE_CLOSED}: its ring index"]


def test_a_consoles_ends_are_domain_0_and_the_domain_itself(tmp_path: Path) -> None:
    fault = f"console of domain 7: console back {BROKEN}"
    dmesg = [f"(d0) {fault}"]
    ends = witness(RingKind.CONSOLE, tmp_path, dmesg)
    assert ends.found() == []
    log_file.append(tmp_path / "log" / "victim.log", f"hello\nconsole front {BROKEN}: why\n".encode())
    assert ends.found() == [f"its log: console front {BROKEN}: why"]
    dmesg += [f"(d0) console of domain 77: console back {BROKEN}", f"(d0) {fault}"]
    assert ends.found() == [f"dmesg: (d0) {fault}"]
