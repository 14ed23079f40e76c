import pytest


@pytest.mark.scenario("echo_plan.toml")
@pytest.mark.parametrize("seed", [1, 2])
def test_every_call_is_answered_once_and_rightly_whoever_dies(scenario, seed):
    outcome = scenario.run(seed)
    assert outcome.ok, outcome.problems
    (caller,) = outcome.workloads
    assert caller["ok"] > 20
    assert all(fault.recovered_ns for fault in outcome.faults)
