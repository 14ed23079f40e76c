"""What `hvd logs` tells of a log that grows and is changed meanwhile."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from hvd.toolstack.cli import look


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The guest's; as somebody attaches to the cluster another line is written, and then the machine ends."""
    path = tmp_path / "log" / "guest.log"
    path.parent.mkdir()
    path.write_text("first é\n")
    reports, ended = os.pipe()

    class Attached(nullcontext[None]):
        connection = SimpleNamespace(machine_pidfd=reports)

    def attach() -> Attached:
        with path.open("a") as file:
            file.write("while it attaches\n")
        os.close(ended)
        return Attached()

    monkeypatch.setenv("HVD_RUN_DIR", str(tmp_path))
    monkeypatch.setattr(look, "Cluster", SimpleNamespace(attach=attach))
    before = signal.getsignal(signal.SIGINT)
    yield path
    signal.signal(signal.SIGINT, before)
    os.close(reports)


def test_what_is_written_while_a_follower_attaches_is_told_once(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log.with_suffix(".log.1").write_text("older\n")
    look.logs("guest", follow=True, as_json=False)
    assert capsys.readouterr().out == "older\nfirst é\nwhile it attaches\n"
