"""The six letters that xl shows of a domain (xl(1), `list`)."""

from __future__ import annotations

import pytest

from hvd.toolstack.cluster import DomainInfo, DomainState
from hvd.toolstack.cluster.process_times import ProcessTimes
from hvd.toolstack.cluster.xl_state import state


def domain(**fields):
    usual = {"domid": 1, "name": "a", "state": "running", "waits_for": (), "incarnation": 1, "pid": 101, "ready": True,
             "restarts": 0, "memory": 64, "vcpus": 1, "driver_domain": False, "kernel": "hvd:idle", "last_death": "",
             "uptime_ns": 0, "devices": ()}  # fmt: skip
    return DomainInfo.from_wire(usual | fields)


@pytest.mark.parametrize(
    ("fields", "running", "expected"),
    [
        ({}, True, "r-----"),
        ({}, False, "-b----"),
        ({"state": DomainState.PAUSED}, False, "--p---"),
        ({"state": DomainState.WAITING}, False, "--p---"),
        ({"state": DomainState.STARTING}, False, "------"),
        ({"state": DomainState.DYING}, True, "-----d"),
        ({"state": DomainState.DYING, "shutdown": 0}, True, "---s-d"),
        ({"state": DomainState.DUMPING, "shutdown": 3}, False, "---scd"),
        ({"state": DomainState.FAILED}, False, "---sc-"),
        ({"state": DomainState.PRESERVED, "shutdown": 0}, False, "---s--"),
        ({"state": DomainState.BACKING_OFF, "shutdown": 1}, False, "---sr-"),
        ({"state": DomainState.PRESERVED, "shutdown": 4}, False, "---sw-"),
        ({"state": DomainState.PRESERVED, "shutdown": 255}, False, "---s?-"),
    ],
)
def test_the_six_letters_of_a_state(fields, running, expected):
    assert state(domain(**fields), ProcessTimes(running)) == expected
