"""Groups that restart and fail, on a board: who is killed, who waits for whom, who starts when, and what is counted."""

from __future__ import annotations

from typing import Any

import pytest

from hvd.broker.domain import Life, Shutdown
from hvd.broker.lives import SIGKILL
from hvd.broker.spares import QUIET_NS
from hvd.transport.ids import DomId
from hvd.transport.messages import GroupConfig, RestartPolicy

from .conftest import Board

MS, S = 1_000_000, 1_000_000_000
TRIO = ["a", "b", "c"]


def board_of(*groups: GroupConfig) -> Board:
    board = Board(*groups)
    board.boot("Domain-0")
    return board


def trio(strategy: str = "one_for_all", names: list[str] = TRIO, **fields: Any) -> tuple[Board, list[DomId]]:
    board = board_of(GroupConfig("g", TRIO, strategy=strategy, **fields))
    return board, [board.boot(name) for name in names]


def lives(board: Board, doms: list[DomId]) -> list[str]:
    return [board.h.domains[dom].life.name.lower() for dom in doms]


def incarnations(board: Board, doms: list[DomId]) -> list[int]:
    return [board.h.domains[dom].incarnation for dom in doms]


def counted(board: Board) -> int:
    """How often the trio's group has restarted."""
    group = board.h.groups.of("a")
    assert group is not None
    return len(group.restarted_at_ns)


def killed(board: Board) -> list[str]:
    return [domain.name for _, domain, number in board.hardware.named("signal_domain") if number == SIGKILL]


def told(board: Board, *events: str) -> list[tuple[str, str, str]]:
    published = [event for _, event in board.hardware.named("publish")]
    return [(each.event, each.name, each.detail) for each in published if each.event in events]


# ---- who is restarted ------------------------------------------------------------------------------------------------


def test_one_for_one_starts_the_one_at_once_and_touches_nobody_else():
    board, doms = trio("one_for_one")
    board.dies(doms[1])
    assert lives(board, doms) == ["running", "starting", "running"]
    assert (killed(board), told(board, "group restarts")) == ([], [])


def test_one_for_all_kills_the_others_last_first_and_starts_all_when_the_last_is_gone():
    board, (a, b, c) = trio()
    board.dies(b)
    assert lives(board, [a, b, c]) == ["dying", "waiting", "dying"]
    assert killed(board) == ["c", "a"]
    assert board.h.waits_for(board.h.domains[b]) == ["a", "c"]
    board.dies(c)
    assert lives(board, [a, b, c]) == ["dying", "waiting", "waiting"]
    board.hardware.calls.clear()
    board.dies(a)
    assert lives(board, [a, b, c]) == ["starting"] * 3
    assert [name for _, name, _ in told(board, "starting")] == TRIO
    assert incarnations(board, [a, b, c]) == [2, 2, 2]


def test_rest_for_one_restarts_it_and_those_behind_it():
    board, (a, b, c) = trio("rest_for_one")
    board.dies(b)
    assert lives(board, [a, b, c]) == ["running", "waiting", "dying"]
    board.dies(c)
    assert lives(board, [a, b, c]) == ["running", "starting", "starting"]
    assert told(board, "group restarts") == [("group restarts", "b", "g (rest_for_one): b, c")]


@pytest.mark.parametrize("dies", [False, True])
def test_a_spare_waits_with_its_domain_until_the_last_of_the_group_is_gone(dies: bool):
    board = board_of(GroupConfig("g", ["drv", "b"], strategy="one_for_all"))
    drv, b = board.boot("drv", spare=True), board.boot("b")
    board.after(QUIET_NS)
    domain = board.h.domains[drv]
    assert domain.spare is not None
    board.h.started(drv, domain.spare.incarnation, 1002, board.now)
    board.h.spare_reports(drv, domain.spare.incarnation, {}, "")
    board.dies(drv)
    assert (lives(board, [drv, b]), domain.incarnation) == (["waiting", "dying"], 1)
    if dies:
        board.h.died(drv, domain.spare.incarnation, "killed by SIGKILL", board.now)
    board.dies(b)
    expected = ["starting", "starting"] if dies else ["running", "starting"]
    assert (lives(board, [drv, b]), incarnations(board, [drv])) == (expected, [3 if dies else 2])


def test_who_comes_after_a_member_starts_when_that_is_ready_again():
    board = board_of(GroupConfig("g", ["drv", "guest"], strategy="one_for_all"))
    drv, guest = board.boot("drv"), board.boot("guest", after=["drv"])
    board.dies(guest)
    board.dies(drv)
    assert lives(board, [drv, guest]) == ["starting", "waiting"]
    board.started(drv)
    board.h.domain_ready(drv, board.now)
    assert lives(board, [drv, guest]) == ["running", "starting"]


def test_a_domain_that_is_in_no_group_is_not_touched():
    board, doms = trio()
    outside = board.boot("outside")
    board.dies(doms[0])
    assert lives(board, [outside]) == ["running"]


def test_a_member_that_does_not_exist_is_done_without_and_one_of_its_name_belongs_to_the_group():
    board, (a, b) = trio(names=["a", "b"])
    board.dies(a)
    board.dies(b)
    assert lives(board, [a, b]) == ["starting", "starting"]
    c = board.create("c")
    board.started(c)
    board.dies(a)
    assert lives(board, [c]) == ["dying"]


# ---- what wins -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("action", "left"), [("destroy", None), ("preserve", "preserved"), ("coredump-destroy", None)])
def test_a_member_whose_key_lets_it_go_goes_alone(action, left):
    board, _ = trio(names=["a", "b"])
    c = board.boot("c", on_crash=action)
    board.dies(c)
    assert killed(board) == []
    assert (board.h.domains[c].life.name.lower() if c in board.h.domains else None) == left


@pytest.mark.parametrize("reason", [Shutdown.POWEROFF, Shutdown.REBOOT])
def test_an_end_that_was_asked_for_restarts_nobody_else(reason):
    board, doms = trio()
    board.h.domain_shutdown(doms[0], reason, "")
    board.dies(doms[0])
    assert lives(board, doms[1:]) == ["running", "running"]
    assert counted(board) == 0


def test_who_was_asked_to_stop_is_not_brought_back_by_its_group():
    board, (a, b, c) = trio()
    board.h.request_shutdown(c, reboot=False, grace_ms=1000, now_ns=board.now)
    board.dies(a)
    board.dies(b)
    assert lives(board, [a, b, c]) == ["starting", "starting", "running"]
    board.dies(c)
    assert c not in board.h.domains


def test_who_is_destroyed_while_its_group_restarts_is_gone_and_the_others_start():
    board, (a, b, c) = trio()
    board.dies(a)
    board.h.destroy(b, board.now)
    board.dies(c)
    assert lives(board, [a, c]) == ["waiting", "waiting"]
    board.dies(b)
    assert b not in board.h.domains
    assert lives(board, [a, c]) == ["starting", "starting"]


def test_a_rename_restart_keeps_the_dead_and_its_successor_starts_with_the_group():
    board, (a, b) = trio(names=["a", "b"])
    c = board.boot("c", on_crash="rename-restart")
    board.dies(c)
    successor = board.h.by_name("c")
    assert successor is not None
    assert lives(board, [a, b, c, successor.domid]) == ["dying", "dying", "preserved", "waiting"]
    board.dies(a)
    board.dies(b)
    assert lives(board, [a, b, successor.domid]) == ["starting"] * 3


def test_a_core_that_is_being_written_is_finished_before_the_group_starts():
    board, (a, b) = trio(names=["a", "b"])
    c = board.boot("c", on_crash="coredump-restart")
    board.h.crash(c, "x")
    board.dies(a)
    assert lives(board, [a, b, c]) == ["waiting", "dying", "dumping"]
    board.dies(b)
    assert "c" not in killed(board)
    board.h.died(c, board.h.domains[c].incarnation, "killed by SIGKILL", board.now, "core: x.core")
    assert lives(board, [a, b, c]) == ["starting"] * 3


def test_a_member_whose_core_was_wanted_of_a_crash_has_none_taken_of_a_stop():
    board, (a, _) = trio(names=["a", "b"])
    c = board.boot("c", on_crash="coredump-restart")
    board.dies(a)
    assert lives(board, [c]) == ["dying"]
    board.dies(c)
    assert board.h.domains[c].last_death == "stopped with its group"
    assert board.hardware.named("dump_domain") == []


@pytest.mark.parametrize("life", ["preserved", "failed"])
def test_who_is_kept_or_failed_stays_so(life):
    board, (a, b, c) = trio()
    board.h.domains[c].life = Life[life.upper()]
    board.dies(a)
    board.dies(b)
    assert lives(board, [a, b, c]) == ["starting", "starting", life]


def test_a_paused_member_is_stopped_and_comes_back_running():
    board, (a, b, c) = trio()
    board.h.pause(c, board.now)
    for dom in (a, b, c):
        board.dies(dom)
    assert lives(board, [c]) == ["starting"]
    board.started(c)
    assert lives(board, [c]) == ["running"]


def test_a_member_that_backs_off_waits_with_the_group_and_then_only_for_that():
    board, (a, b) = trio("rest_for_one", names=["a", "b"])
    c = board.create("c", restart=RestartPolicy(delay_ms=5000))
    board.started(c)
    board.dies(c)
    assert lives(board, [c]) == ["backing_off"]
    board.dies(a)
    board.dies(b)
    assert lives(board, [a, b, c]) == ["starting"] * 3
    board.after(10 * S)
    assert incarnations(board, [c]) == [2]


def test_the_back_off_of_who_died_holds_those_that_are_restarted_with_it():
    board, (a, b) = trio(names=["a", "b"])
    c = board.create("c", restart=RestartPolicy(delay_ms=100))
    board.started(c)
    board.dies(c)
    board.dies(a)
    board.dies(b)
    assert lives(board, [a, b, c]) == ["waiting"] * 3
    board.after(99 * MS)
    assert lives(board, [a, b, c]) == ["waiting"] * 3
    board.after(1 * MS)
    assert lives(board, [a, b, c]) == ["starting"] * 3


def test_a_death_during_the_restart_that_the_group_wanted_is_part_of_it_and_another_fault_is_counted():
    board, (a, b, c) = trio()
    board.dies(a)
    board.dies(b, "killed by SIGSEGV")
    board.dies(c)
    assert counted(board) == 1
    board.started(b)
    board.dies(b)
    assert lives(board, [a, b, c]) == ["dying", "waiting", "dying"]
    assert counted(board) == 2


def test_a_member_that_may_not_run_is_failed_alone():
    board, (a, b) = trio(names=["a", "b"])
    c = board.create("c", sandbox_require=["root"])
    board.started(c)
    board.h.take_sandbox_report(c, {"root": "refused"})
    board.dies(c)
    assert lives(board, [a, b, c]) == ["running", "running", "failed"]


def test_a_member_that_cannot_be_started_is_failed_and_the_others_start():
    board, (a, b, c) = trio()
    board.dies(a)
    board.dies(b)
    board.hardware.refused = {"create_domain"}
    board.dies(c)
    assert lives(board, [a, b, c]) == ["failed"] * 3
    assert all("cannot be started" in board.h.domains[dom].last_death for dom in (a, b, c))


def test_a_process_that_was_on_its_way_when_its_group_restarted_is_killed_when_it_comes():
    board, (a, b) = trio(names=["a", "b"])
    c = board.create("c")
    board.dies(a)
    board.dies(b)
    assert lives(board, [a, b, c]) == ["waiting", "waiting", "dying"]
    board.started(c)
    assert killed(board)[-1] == "c"
    board.dies(c)
    assert lives(board, [a, b, c]) == ["starting"] * 3


# ---- too often -------------------------------------------------------------------------------------------------------


def restart_all(board: Board, doms: list[DomId]) -> None:
    """Let everybody who is dying die, and who starts become ready."""
    for dom in doms:
        if board.h.domains[dom].life is Life.DYING:
            board.dies(dom)
    for dom in doms:
        if board.h.domains[dom].life is Life.STARTING:
            board.started(dom)
            board.h.domain_ready(dom, board.now)


def test_a_group_that_restarts_too_often_is_failed_with_all_its_domains():
    board, doms = trio(limit=2, window_ms=1000)
    for dom in doms[:2]:
        board.dies(dom)
        restart_all(board, doms)
    assert incarnations(board, doms) == [3, 3, 3]
    board.dies(doms[2])
    assert lives(board, doms) == ["dying", "dying", "failed"]
    restart_all(board, doms)
    assert lives(board, doms) == ["failed"] * 3
    why = "group g: 2 restarts within 1 s; last: c: killed by SIGKILL"
    assert {board.h.domains[dom].last_death for dom in doms} == {why}
    assert told(board, "group failed") == [("group failed", "c", why)]


def test_restarts_that_are_far_enough_apart_are_not_too_many():
    board, doms = trio(limit=1, window_ms=1000)
    for _ in range(5):
        board.after(1000 * MS)
        board.dies(doms[0])
        restart_all(board, doms)
    assert lives(board, doms) == ["running"] * 3


def test_the_groups_limit_stands_in_the_place_of_the_members():
    board = board_of(GroupConfig("g", ["a"], limit=0))
    a = board.boot("a", restart=RestartPolicy(limit=1))
    for _ in range(5):
        board.dies(a)
        restart_all(board, [a])
    assert lives(board, [a]) == ["running"]


def test_who_backs_off_or_waits_when_its_group_fails_is_failed_and_stays_so():
    board = board_of(GroupConfig("g", ["a", "b", "c"], limit=1))
    a = board.boot("a")
    b = board.create("b", restart=RestartPolicy(delay_ms=100))
    c = board.create("c", after=["b"])
    board.started(b)
    board.dies(b)
    assert lives(board, [a, b, c]) == ["running", "backing_off", "waiting"]
    board.dies(a)
    assert lives(board, [a, b, c]) == ["failed"] * 3
    board.after(10 * S)
    assert lives(board, [a, b, c]) == ["failed"] * 3


def test_whoever_boots_a_failed_member_by_hand_starts_the_counting_anew():
    board, doms = trio(limit=1)
    for _ in range(2):
        board.dies(doms[0])
        restart_all(board, doms)
    assert lives(board, doms) == ["failed"] * 3
    for dom in doms:
        board.h.request_shutdown(dom, reboot=True, grace_ms=0, now_ns=board.now)
    restart_all(board, doms)
    board.dies(doms[0])
    assert lives(board, doms) == ["waiting", "dying", "dying"]


def test_a_group_may_have_the_machine_rebooted():
    board, doms = trio(limit=1, escalate="reboot-machine")
    for _ in range(2):
        board.dies(doms[0])
        restart_all(board, doms)
    assert board.h.stopping is True
    assert board.hardware.named("stop_machine") == [("stop_machine", True)]


def test_a_group_that_escalates_is_a_fault_in_the_group_around_it_and_counts_anew():
    inner = GroupConfig("inner", ["b", "c"], limit=1, escalate="parent")
    outer = GroupConfig("outer", ["a", "inner", "d"], strategy="rest_for_one", limit=1)
    board = board_of(inner, outer)
    doms = [board.boot(name) for name in "abcd"]
    board.dies(doms[1])
    restart_all(board, doms)
    assert incarnations(board, doms) == [1, 2, 1, 1]
    board.dies(doms[1])
    restart_all(board, doms)
    assert incarnations(board, doms) == [1, 3, 2, 2]
    assert told(board, "group restarts") == [("group restarts", "b", "outer (rest_for_one): b, c, d")]
    board.dies(doms[1])
    restart_all(board, doms)
    assert incarnations(board, doms) == [1, 4, 2, 2]
    board.dies(doms[1])
    restart_all(board, doms)
    assert lives(board, doms) == ["failed"] * 4


def test_nobody_is_renamed_whose_group_fails():
    board, (a, b) = trio(names=["a", "b"], limit=1)
    c = board.boot("c", on_crash="rename-restart")
    board.dies(a)
    restart_all(board, [a, b, c])
    board.dies(c)
    restart_all(board, [a, b])
    assert lives(board, [a, b, c]) == ["failed"] * 3
    assert board.h.domains[c].name == "c"
