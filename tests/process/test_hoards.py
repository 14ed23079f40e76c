"""Whoever sends messages that do not end is stopped, whatever it is and whatever the broker does meanwhile."""

import threading
from pathlib import Path

import pytest

from hvd.toolstack.cluster import Cluster, DomainState
from hvd.transport.messages import DomainConfig
from tests.process.test_spares import next_event

KERNEL = str(Path(__file__).parent / "kernels" / "sends_without_end.py")


def test_a_spare_that_sends_a_message_without_end_goes_and_its_domain_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever whoever starts the machine has told malloc of arenas: with one for all nothing was seen."""
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    config = DomainConfig("hoards", KERNEL, memory=256, spare=True)
    with Cluster.build([config]) as cluster, cluster.events(after=0) as events:  # it may be dead by now
        domain, broker = cluster.domain("hoards"), cluster.info()["broker_pid"]
        domain.wait_ready(60)
        next_event(events, "hoards", "spare died")
        assert (domain.state, domain.restarts, cluster.info()["broker_pid"]) == (DomainState.RUNNING, 0, broker)


def test_a_hoard_is_looked_for_by_a_broker_that_is_never_idle_as_well() -> None:
    """Nothing is ever due in it: nobody has a heartbeat."""
    configs = [
        DomainConfig("Domain-0", "hvd:dom0", heartbeat_ms=0),
        DomainConfig("hoards", KERNEL, ["as-the-domain"], memory=256, heartbeat_ms=0, on_crash="destroy"),
    ]
    over = threading.Event()
    with Cluster.build(configs) as cluster, cluster.events(after=0) as events:  # it may be dead by now

        def ask() -> None:
            with Cluster.attach(cluster.run_dir) as ours:
                while not over.is_set():
                    ours.info()

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            next_event(events, "hoards", "died")
        finally:
            over.set()
            asking.join()
