"""Waiting for what no event announces: asked again and again, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hvd.toolstack.cluster import Cluster

DEADLINE_S = 60.0
BETWEEN_S = 0.002


def wait_for(condition: Callable[[], object], what: str | Callable[[], str] = "what the test waits for") -> None:
    """Until it holds; past the deadline the test fails and says what was waited for, as it is by then."""
    until = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > until:
            raise AssertionError(f"not within {DEADLINE_S:g} s: {what if isinstance(what, str) else what()}")
        time.sleep(BETWEEN_S)


def wait_for_consoles(cluster: Cluster) -> None:
    """Until domain 0 has attached to the console of every domain: who is ready has not waited for that."""

    def served() -> set[int]:
        ports = [row for row in cluster.event_channels() if (row["status"], row["remote_domid"]) == ("interdomain", 0)]
        return {row["domid"] for row in ports}

    wait_for(lambda: served() == set(cluster.infos()), lambda: f"domain 0 to serve more than {served()}")


def wait_stopped(pid: int | None) -> None:
    """Until SIGSTOP has reached a process. A pause is answered before: the hypervisor has noted it."""
    stat = Path(f"/proc/{pid}/stat")
    wait_for(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", f"process {pid} to be stopped")
