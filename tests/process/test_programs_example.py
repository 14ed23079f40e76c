"""examples/programs does what its page says."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hvd import Cluster
from hvd.toolstack.cluster import DomainState
from tests.waiting import wait_for

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "programs"
DEADLINE_S = 60.0


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A copy, since it writes notes; others may read it."""
    shutil.copytree(EXAMPLE, tmp_path / "programs")
    (tmp_path / "programs" / "notes").touch()
    (tmp_path / "programs" / "notes").chmod(0o666)
    return tmp_path / "programs"


@pytest.fixture
def cluster(home: Path) -> Iterator[Cluster]:
    with Cluster.load(home / "programs.toml") as started:
        yield started


def test_a_script_that_fails_is_run_again_and_its_notes_outlive_it(cluster: Cluster, home: Path) -> None:
    ticker = cluster.domain("ticker")
    wait_for(lambda: (home / "notes").read_text().count("tick 5") >= 2)
    assert ticker.last_death.endswith("/ticker.sh exited with status 3")
    assert ticker.restarts >= 1


def last_tick(home: Path) -> int:
    """By what the script notes: 0 before the first."""
    ticks = re.findall(r"tick (\d) of process \d+\n", (home / "notes").read_text())
    return int(ticks[-1]) if ticks else 0


def test_a_script_that_is_asked_to_stop_says_so(cluster: Cluster, home: Path) -> None:
    ticker = cluster.domain("ticker")
    wait_for(lambda: last_tick(home) in (1, 2, 3), "it to be far from its end, where nobody can be asked")
    ticker.shutdown(grace_s=DEADLINE_S)
    ticker.wait_gone(DEADLINE_S)
    assert ticker.console_log().endswith("asked to stop\n")


def test_a_shell_that_ends_is_followed_by_another(cluster: Cluster) -> None:
    shell = cluster.domain("shell")
    shell.shutdown(grace_s=DEADLINE_S)
    shell.wait_until(lambda info: info.incarnation == 2 and info.ready, "to be another", DEADLINE_S)
    assert shell.state is DomainState.RUNNING
