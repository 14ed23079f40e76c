"""The table of what follows a death, row by row; that it has one row for everything; and who goes with whom."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from hvd.broker.domain import ACTING, Domain, Life, Shutdown
from hvd.broker.restarts import Action
from hvd.broker.supervision import (
    SIBLINGS,
    TABLE,
    Cause,
    Own,
    Sibling,
    Strategy,
    decide,
    restarted_with,
    sibling,
)
from hvd.transport.ids import DOM0, DomId
from hvd.transport.messages import DomainConfig

A, S = Action, Shutdown
EVERY_KEY = ("on_poweroff", "on_reboot", "on_crash", "on_watchdog")
FAULTS = (S.CRASH, S.WATCHDOG, None)
ASKED = (S.POWEROFF, S.REBOOT)
GROUP_RESTARTS = {"regroup_at_ns": 0}
GROUP_FAILED = {"given_up": "group g: 5 restarts"}


def dead(shutdown: Shutdown | None, action: Action, domid: int = 3, **record: object) -> Domain:
    keys: dict[str, Any] = dict.fromkeys(EVERY_KEY, str(action))
    config = DomainConfig("ivi", "hvd:idle", **keys)
    domain = Domain(DomId(domid), config, "ivi", life=Life.DEAD, shutdown=shutdown)
    for name, value in record.items():
        setattr(domain, name, value)
    return domain


def test_there_is_one_row_for_each_cause_and_action():
    for cause, action in product(Cause, Action):
        assert len([row for row in TABLE if row.cause is cause and action in row.actions]) == 1


@pytest.mark.parametrize("shutdown", FAULTS)
@pytest.mark.parametrize(
    ("action", "own", "with_group"),
    [
        (A.DESTROY, Own.REMOVED, False),
        (A.COREDUMP_DESTROY, Own.REMOVED, False),
        (A.PRESERVE, Own.KEPT, False),
        (A.RESTART, Own.RESTARTED, True),
        (A.COREDUMP_RESTART, Own.RESTARTED, True),
        (A.RENAME_RESTART, Own.RENAMED, True),
    ],
)
def test_a_fault_is_repaired_as_the_key_says_and_with_the_group_if_at_all(shutdown, action, own, with_group):
    row = decide(dead(shutdown, action))
    assert (row.cause, row.own, row.with_group) == (Cause.FAULT, own, with_group)


@pytest.mark.parametrize("shutdown", ASKED)
@pytest.mark.parametrize(
    ("action", "own"),
    [
        (A.DESTROY, Own.REMOVED), (A.COREDUMP_DESTROY, Own.REMOVED), (A.PRESERVE, Own.KEPT),
        (A.RESTART, Own.RESTARTED), (A.COREDUMP_RESTART, Own.RESTARTED), (A.RENAME_RESTART, Own.RENAMED),
    ],
)  # fmt: skip
def test_an_end_that_was_asked_for_is_the_domains_own_business(shutdown, action, own):
    row = decide(dead(shutdown, action))
    assert (row.cause, row.own, row.with_group) == (Cause.ASKED, own, False)


@pytest.mark.parametrize("shutdown", [S.SUSPEND, S.SOFT_RESET, S.UNKNOWN])
def test_who_suspends_is_forgotten_whatever_the_keys_say(shutdown):
    assert decide(dead(shutdown, A.RESTART)).own is Own.REMOVED


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize(
    ("record", "cause", "own"),
    [
        (GROUP_RESTARTS, Cause.GROUP_RESTARTS, Own.AWAITS),
        (GROUP_FAILED, Cause.GROUP_FAILED, Own.FAILED),
        ({**GROUP_FAILED, **GROUP_RESTARTS}, Cause.GROUP_FAILED, Own.FAILED),
        ({"refused": "no root", **GROUP_FAILED, **GROUP_RESTARTS}, Cause.REFUSED, Own.FAILED),
        ({"destroying": True, "refused": "no root", **GROUP_FAILED, **GROUP_RESTARTS}, Cause.DESTROYED, Own.REMOVED),
    ],
)
def test_of_several_causes_the_strongest_counts_whatever_the_key_says(action, record, cause, own):
    row = decide(dead(S.CRASH, action, **record))
    assert (row.cause, row.own, row.with_group) == (cause, own, False)


@pytest.mark.parametrize(
    ("shutdown", "action", "own"),
    [
        (S.POWEROFF, A.RESTART, Own.MACHINE_STOPS),
        (S.REBOOT, A.RESTART, Own.MACHINE_STOPS),
        (S.CRASH, A.DESTROY, Own.MACHINE_STOPS),
        (S.CRASH, A.PRESERVE, Own.MACHINE_STOPS),
        (S.CRASH, A.RESTART, Own.RESTARTED),
        (S.CRASH, A.RENAME_RESTART, Own.RESTARTED),
        (S.WATCHDOG, A.COREDUMP_RESTART, Own.RESTARTED),
    ],
)
def test_domain_0_is_started_again_or_the_machine_ends_and_it_keeps_its_name(shutdown, action, own):
    assert decide(dead(shutdown, action, DOM0)).own is own


@pytest.mark.parametrize(
    ("strategy", "restarted"),
    [(Strategy.ONE_FOR_ONE, ["b"]), (Strategy.ONE_FOR_ALL, ["a", "b", "c"]), (Strategy.REST_FOR_ONE, ["b", "c"])],
)
def test_the_strategy_says_who_is_restarted(strategy, restarted):
    assert restarted_with(strategy, ["a", "b", "c"], "b") == restarted


# ---- the others of the group -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("life", "does"),
    [
        (Life.WAITING, Sibling.AWAIT), (Life.STARTING, Sibling.STOP), (Life.RUNNING, Sibling.STOP),
        (Life.PAUSED, Sibling.STOP), (Life.DUMPING, Sibling.JOIN), (Life.DYING, Sibling.JOIN),
        (Life.DEAD, Sibling.AWAIT), (Life.BACKING_OFF, Sibling.AWAIT), (Life.FAILED, Sibling.LEAVE),
        (Life.PRESERVED, Sibling.LEAVE),
    ],
)  # fmt: skip
def test_what_a_group_does_with_a_domain_depends_on_its_life(life, does):
    other = dead(None, A.RESTART)
    other.life = life
    assert sibling(other) is does
    assert SIBLINGS.keys() == set(Life)


@pytest.mark.parametrize("life", Life)
def test_who_is_being_destroyed_is_left_to_that(life):
    other = dead(None, A.RESTART, destroying=True)
    other.life = life
    assert sibling(other) is Sibling.LEAVE


@pytest.mark.parametrize("life", sorted(ACTING))
@pytest.mark.parametrize("asked", ASKED)
def test_who_was_asked_to_stop_or_boot_again_is_left_to_that(life, asked):
    other = dead(asked, A.RESTART)
    other.life = life
    assert sibling(other) is Sibling.LEAVE


@pytest.mark.parametrize("life", [Life.DYING, Life.DUMPING])
@pytest.mark.parametrize(
    ("action", "does"),
    [
        (A.DESTROY, Sibling.LEAVE), (A.COREDUMP_DESTROY, Sibling.LEAVE), (A.PRESERVE, Sibling.LEAVE),
        (A.RESTART, Sibling.JOIN), (A.COREDUMP_RESTART, Sibling.JOIN), (A.RENAME_RESTART, Sibling.JOIN),
    ],
)  # fmt: skip
def test_who_ends_already_joins_the_others_only_if_it_would_have_come_back(life, action, does):
    other = dead(S.CRASH, action)
    other.life = life
    assert sibling(other) is does


def test_who_is_stopped_for_its_group_already_joins_again_whatever_its_key_says():
    other = dead(None, A.DESTROY, **GROUP_RESTARTS)
    other.life = Life.DYING
    assert sibling(other) is Sibling.JOIN
