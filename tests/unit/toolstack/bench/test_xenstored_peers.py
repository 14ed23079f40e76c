"""Which of Xen's daemons a bench finds, and what it says where one cannot be run."""

from __future__ import annotations

from pathlib import Path

import pytest

from hvd.toolstack.bench.peers import xenstored
from hvd.toolstack.bench.peers.peer import Absent
from hvd.toolstack.bench.peers.xenstored import VARIABLE, XENSTORED, find, running


@pytest.fixture
def unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of programs in place of Xen's; there are no others."""
    monkeypatch.setattr(xenstored, "UNPACKED", tmp_path / "none")
    monkeypatch.setattr(xenstored, "INSTALLED", ())
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    return tmp_path


def program(path: Path, says: str) -> None:
    path.write_text(f"#!/bin/sh\n{says}\n")
    path.chmod(0o755)


def test_the_directory_that_is_named_comes_first(unpacked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xenstored, "UNPACKED", unpacked / "below")
    (unpacked / "below").mkdir()
    program(unpacked / "below" / XENSTORED, "")
    assert find(XENSTORED) == unpacked / "below" / XENSTORED
    program(unpacked / XENSTORED, "")
    assert find(XENSTORED) == unpacked / XENSTORED


def test_what_is_not_there_is_absent_and_how_to_get_it_is_said(unpacked: Path) -> None:
    said = r"^no xenstored on this machine: scripts/test\.sh unpacks xen-utils-4\.17, or HVD_XEN_UTILS"
    with pytest.raises(Absent, match=said):
        find(XENSTORED)


@pytest.mark.parametrize(("says", "told"), [("echo no; exit 1", "it says: no"), ("exit 1", "it says: nothing")])
def test_one_that_ends_instead_of_serving_is_absent_with_its_last_words(unpacked: Path, says: str, told: str) -> None:
    program(unpacked / XENSTORED, says)
    with pytest.raises(Absent, match=told), running(XENSTORED):
        pass


def test_without_a_compiler_it_is_absent(unpacked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(unpacked / XENSTORED, "")
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(Absent, match="no C compiler"), running(XENSTORED):
        pass
