"""What a guest waited for a driver domain that was killed, from the times of the answers it was given."""

import os

import pytest

from hvd.toolstack.bench.recovery import first_completion_ns, run_at_once

CASES = {
    "the answers of the dead one end no wait": ([5, 90, 101, 102, 300, 301], 100, 250, 900, 300),
    "one that served before it said so": ([90, 150, 160, 170], 100, 155, 900, 150),
    "a silence later is another's": ([90, 140, 141, 800, 801], 100, 145, 900, 800),
    "a silence that began when it served already": ([90, 140, 141, 150, 800], 100, 145, 900, 140),
    "what comes after the next kill": ([90, 950], 100, 150, 900, 900),
    "no answer at all": ([], 100, 150, 900, 900),
}


@pytest.mark.parametrize(("times", "killed", "ready", "until", "expected"), CASES.values(), ids=CASES)
def test_a_guest_waits_until_its_longest_silence_after_the_death_ends(times, killed, ready, until, expected):
    assert first_completion_ns(times, killed, ready, until) == expected


@pytest.mark.parametrize("may", [True, False])
def test_who_looks_on_has_a_cpu_at_once_for_a_moment_and_is_as_before_then(may, monkeypatch):
    policies = [os.sched_getscheduler(0)]

    def set_policy(pid, policy, param):
        if not may:
            raise PermissionError
        policies.append(policy)

    monkeypatch.setattr(os, "sched_setscheduler", set_policy)
    with run_at_once():
        policies.append(-1)
    assert policies == ([policies[0], os.SCHED_FIFO, -1, policies[0]] if may else [policies[0], -1])
