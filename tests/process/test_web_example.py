"""examples/web does what its page says."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hvd import Cluster
from hvd.toolstack.cli import reconfigure

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "web"
DEADLINE_S = 60.0
PAGE = "Hello from another domain."
pytestmark = [
    pytest.mark.skipif(shutil.which("curl") is None, reason="not on this machine: curl"),
    pytest.mark.skipif(not os.access("/dev/net/tun", os.R_OK | os.W_OK), reason="there is no /dev/net/tun for us"),
]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Of a copy, which others may read."""
    shutil.copytree(EXAMPLE, tmp_path / "web")
    monkeypatch.setenv("HVD_RUN_DIR", str(tmp_path / "run"))
    with Cluster.load(tmp_path / "web" / "web.toml", run_dir=tmp_path / "run") as started:
        yield started


def wait_for_pages(cluster: Cluster, more: int = 1) -> None:
    """Until the client has printed so many more."""
    client, end = cluster.domain("client"), time.monotonic() + DEADLINE_S
    before = client.console_log().count(PAGE)
    while client.console_log().count(PAGE) < before + more:
        assert time.monotonic() < end, client.console_log()
        time.sleep(0.01)


def test_the_client_prints_the_page_and_notices_nothing_of_the_switchs_death(cluster: Cluster) -> None:
    wait_for_pages(cluster)
    cluster.domain("net").kill()
    cluster.domain("net").wait_ready()
    wait_for_pages(cluster, 2)
    assert cluster.domain("client").incarnation == cluster.domain("web").incarnation == 1


def test_the_client_waits_while_the_cable_is_out(cluster: Cluster) -> None:
    wait_for_pages(cluster)
    reconfigure.network_link("web", "0", "down", as_json=False)
    end = time.monotonic() + DEADLINE_S
    while "curl: (28)" not in cluster.domain("client").console_log():  # CURLE_OPERATION_TIMEDOUT
        assert time.monotonic() < end, cluster.domain("client").console_log()
        time.sleep(0.01)
    reconfigure.network_link("web", "0", "up", as_json=False)
    wait_for_pages(cluster)
