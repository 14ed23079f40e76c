"""What follows a death: which action, and whether and when the domain starts again."""

import pytest

from hvd.broker.domain import Domain, Shutdown
from hvd.broker.restarts import RESTARTING, Action, GiveUp, Restart, action_for, judge_restart
from hvd.transport.ids import DomId
from hvd.transport.messages import DomainConfig, RestartPolicy

MS = 1_000_000


def domain(policy=None, **fields):
    config = DomainConfig("ivi", "hvd:idle", restart=policy or RestartPolicy(), **fields)
    return Domain(DomId(5), config, "ivi", last_death="killed by SIGSEGV")


KEYS = {
    "on_poweroff": "preserve",
    "on_reboot": "rename-restart",
    "on_crash": "coredump-restart",
    "on_watchdog": "restart",
}


@pytest.mark.parametrize(
    ("shutdown", "action"),
    [
        (Shutdown.POWEROFF, Action.PRESERVE),
        (Shutdown.SUSPEND, Action.DESTROY),
        (Shutdown.REBOOT, Action.RENAME_RESTART),
        (Shutdown.CRASH, Action.COREDUMP_RESTART),
        (None, Action.COREDUMP_RESTART),
        (Shutdown.WATCHDOG, Action.RESTART),
        (Shutdown.SOFT_RESET, Action.DESTROY),
        (Shutdown.UNKNOWN, Action.DESTROY),
    ],
)
def test_the_reason_of_a_death_selects_its_key(shutdown, action):
    one = domain(**KEYS)
    one.shutdown = shutdown
    assert action_for(one) is action


def test_half_of_the_actions_restart():
    assert sorted(RESTARTING) == ["coredump-restart", "rename-restart", "restart"]


def deaths(one, rows):
    """Each row: (time in ms, ready at death, delay in ms or None for giving up)."""
    for at_ms, ready, delay_ms in rows:
        one.ready = ready
        verdict = judge_restart(one, at_ms * MS)
        if delay_ms is None:
            assert isinstance(verdict, GiveUp), f"at {at_ms} ms: {verdict}"
        else:
            assert verdict == Restart((at_ms + delay_ms) * MS), f"at {at_ms} ms"


ROWS = {
    "one that was ready starts again at once": (RestartPolicy(), [(0, True, 0), (100, True, 0)]),
    "a broken start waits, doubled each time": (
        RestartPolicy(limit=0), [(0, False, 100), (1, False, 200), (2, False, 400), (3, False, 800)],
    ),
    "a start that worked resets the doubling": (
        RestartPolicy(limit=0), [(0, False, 100), (1, False, 200), (2, True, 0), (3, False, 100)],
    ),
    "the delay has a ceiling": (
        RestartPolicy(limit=0, delay_ms=100, delay_max_ms=350),
        [(0, False, 100), (1, False, 200), (2, False, 350), (3, False, 350)],
    ),
    "no delay is possible": (RestartPolicy(limit=0, delay_ms=0), [(0, False, 0), (0, False, 0)]),
    "the restart past the limit is not given": (
        RestartPolicy(limit=2, window_ms=1000), [(0, True, 0), (500, True, 0), (999, True, None)],
    ),
    "restarts that left the window do not count": (
        RestartPolicy(limit=2, window_ms=1000),
        [(0, True, 0), (500, True, 0), (1000, True, 0), (1200, True, None), (1500, True, 0)],
    ),
    "ready or not, restarts count alike": (
        RestartPolicy(limit=2, window_ms=1000), [(0, False, 100), (500, True, 0), (999, True, None)],
    ),
    "a limit of one": (RestartPolicy(limit=1, window_ms=10), [(0, True, 0), (9, True, None), (10, True, 0)]),
    "the default: five in ten seconds": (RestartPolicy(), [(n, True, 0) for n in range(5)] + [(9_999, True, None)]),
}


@pytest.mark.parametrize("row", ROWS)
def test_judging(row):
    policy, steps = ROWS[row]
    deaths(domain(policy), steps)


def test_the_delay_ends_at_its_ceiling_however_often_a_start_fails():
    one = domain(RestartPolicy(limit=0))
    for _ in range(100):
        verdict = judge_restart(one, 0)
    assert verdict == Restart(30_000 * MS)


def test_without_a_limit_nothing_is_kept_of_the_restarts():
    one = domain(RestartPolicy(limit=0, window_ms=2**32 - 1))
    for n in range(100):
        judge_restart(one, n)
    assert len(one.restarted_at_ns) == 0


def test_giving_up_says_how_often_within_what_and_why():
    one = domain(RestartPolicy(limit=1, window_ms=1500))
    judge_restart(one, 0)
    verdict = judge_restart(one, 1)
    assert isinstance(verdict, GiveUp)
    assert verdict.text == "1 restarts within 1.5 s; last death: killed by SIGSEGV"


def test_a_reboot_the_domain_asked_for_is_no_crash_and_not_counted():
    one = domain(RestartPolicy(limit=1))
    one.ready = True
    for n in range(10):
        one.shutdown = Shutdown.REBOOT
        assert judge_restart(one, n) == Restart(n)
    one.shutdown = None
    one.ready = True
    assert judge_restart(one, 10) == Restart(10)


def test_a_reboot_before_it_was_ready_waits_and_counts_like_any_death():
    one = domain(RestartPolicy(limit=2, delay_ms=100))
    one.shutdown = Shutdown.REBOOT
    assert judge_restart(one, 0) == Restart(100 * 10**6)
    assert judge_restart(one, 1) == Restart(1 + 200 * 10**6)
    assert isinstance(judge_restart(one, 2), GiveUp)
