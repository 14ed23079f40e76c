"""examples/standby does what its page says."""

import time
from pathlib import Path

import pytest

from hvd import Cluster

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "standby"
DEADLINE_S = 60.0


@pytest.fixture
def cluster(tmp_path):
    with Cluster.load(EXAMPLE / "standby.toml", tmp_path / "run") as started:
        yield started


def wait_for_log(domain, expected):
    until = time.monotonic() + DEADLINE_S
    while domain.console_log().splitlines() != expected:
        assert time.monotonic() < until, domain.console_log()
        time.sleep(0.005)


def test_a_visitor_is_told_of_every_gate_that_opens(cluster):
    visitor, expected = cluster.domain("visitor"), ["go to gate-a (epoch 1)"]
    wait_for_log(visitor, expected)
    for epoch, (victim, standby) in enumerate((("gate-a", "gate-b"), ("gate-b", "gate-a")), 2):
        cluster.domain(standby).wait_ready()
        cluster.domain(victim).kill()
        expected.append(f"go to {standby} (epoch {epoch})")
        wait_for_log(visitor, expected)
