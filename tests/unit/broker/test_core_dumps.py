"""Owns when a core is taken: which ends ask for one, what stops it, and what the reason of the death says of it."""

import signal

import pytest

from hvd.broker import core_dumps
from hvd.broker.domain import Life, Shutdown
from hvd.transport.fault_notice import FaultNotice
from hvd.transport.ids import Incarnation
from hvd.transport.messages import DomainConfig

SEGV = FaultNotice(signal.SIGSEGV, 1, 0x1000, 0x2000)
CORE = "core: /run/hvd/cores/ivi.1.core"
ONE = Incarnation(1)
ENDS = {"on_crash": Shutdown.CRASH, "on_watchdog": Shutdown.WATCHDOG, "on_reboot": Shutdown.REBOOT,
        "on_poweroff": Shutdown.POWEROFF}  # fmt: skip


def asked(board, *methods):
    """What the machine was told of processes, in order."""
    return [call[0] for call in board.hardware.named(*(methods or ("signal_domain", "dump_domain")))]


@pytest.mark.parametrize("action", ["coredump-destroy", "coredump-restart"])
@pytest.mark.parametrize(("key", "reason"), ENDS.items())
def test_each_end_whose_action_is_a_coredump_one_is_dumped_and_not_killed_by_us(board, key, reason, action):
    dom = board.boot("ivi", **{key: action})
    board.h.domain_shutdown(dom, reason, "")
    assert board.h.domains[dom].life is Life.DUMPING
    assert asked(board) == ["dump_domain"]


@pytest.mark.parametrize(("key", "reason"), ENDS.items())
def test_an_end_with_another_action_is_a_kill_as_ever(board, key, reason):
    others = {other: "coredump-restart" for other in ENDS if other != key}
    dom = board.boot("ivi", **{key: "restart"}, **others)
    board.h.domain_shutdown(dom, reason, "")
    assert board.h.domains[dom].life is Life.DYING
    assert asked(board) == ["signal_domain"]


def test_a_watchdog_and_a_grace_that_run_out_are_ends_like_others(board):
    bitten = board.boot("a", on_watchdog="coredump-restart")
    asked_to_stop = board.boot("b", on_poweroff="coredump-destroy")
    board.will_be_due(bitten, watchdogs={1: 5})
    board.h.request_shutdown(asked_to_stop, reboot=False, grace_ms=1, now_ns=board.now)
    board.after(10_000_000)
    assert [board.h.domains[dom].life for dom in (bitten, asked_to_stop)] == [Life.DUMPING, Life.DUMPING]


def test_whoever_is_killed_when_its_grace_is_over_has_that_as_the_reason_of_its_death(board):
    deaf, heeds = (board.boot(name, on_poweroff="preserve") for name in ("deaf", "heeds"))
    for dom in (deaf, heeds):
        board.h.request_shutdown(dom, reboot=False, grace_ms=1, now_ns=board.now)
    board.h.domain_shutdown(heeds, 0, "")
    board.after(10_000_000)
    for dom in (deaf, heeds):
        board.dies(dom)
    deaths = [board.h.domains[dom].last_death for dom in (deaf, heeds)]
    assert deaths == ["poweroff: killed after its grace", "poweroff"]


def test_a_paused_domain_that_is_taken_down_is_dumped(board):
    dom = board.boot("ivi", on_crash="coredump-restart")
    board.h.pause(dom, board.now)
    board.h.crash(dom, "poison")
    assert board.h.domains[dom].life is Life.DUMPING


def test_a_process_that_is_reported_after_its_end_was_decided_is_dumped_then(board):
    dom = board.create("ivi", on_crash="coredump-restart")
    board.h.domain_shutdown(dom, Shutdown.CRASH, "soon")
    assert (board.h.domains[dom].life, asked(board)) == (Life.DUMPING, [])
    board.started(dom)
    assert (board.h.domains[dom].life, asked(board)) == (Life.DUMPING, ["dump_domain"])


def test_destroy_waits_for_no_core(board):
    dom = board.boot("ivi", on_crash="coredump-restart")
    board.h.destroy(dom, board.now)
    assert asked(board) == ["signal_domain"]


def test_destroy_during_a_dump_kills_and_forgets(board):
    dom = board.boot("ivi", on_crash="coredump-restart")
    board.h.domain_shutdown(dom, Shutdown.CRASH, "")
    board.h.destroy(dom, board.now)
    assert (board.h.domains[dom].life, asked(board)) == (Life.DYING, ["dump_domain", "signal_domain"])
    board.h.died(dom, ONE, "killed by SIGKILL", board.now, "no core: it was killed while its core was written")
    assert dom not in board.h.domains


def test_another_reason_to_end_does_not_disturb_a_dump(board):
    dom = board.boot("ivi", on_crash="coredump-restart")
    board.h.domain_shutdown(dom, Shutdown.CRASH, "first")
    board.h.crash(dom, "second")
    assert (board.h.domains[dom].life, asked(board)) == (Life.DUMPING, ["dump_domain"])


def test_time_does_not_count_while_a_core_is_written(board):
    dom = board.boot("ivi", on_crash="coredump-restart")
    board.will_be_due(dom, watchdogs={1: 5})
    board.h.domain_shutdown(dom, Shutdown.CRASH, "")
    assert board.h.next_deadline_ns() is None


# ---- faults ----------------------------------------------------------------------------------------------------------


def test_a_fault_is_dumped_with_what_the_domain_said_of_it(board):
    dom = board.boot("ivi", on_crash="coredump-restart")
    board.h.faulted(dom, ONE, SEGV)
    assert board.h.domains[dom].fault == SEGV
    assert asked(board) == ["dump_domain"]
    board.h.died(dom, ONE, "killed by SIGKILL", board.now, CORE)
    assert board.h.domains[dom].last_death == f"killed by SIGSEGV; {CORE}"
    assert (board.h.domains[dom].life, board.h.domains[dom].fault) == (Life.STARTING, None)


def test_a_fault_of_a_domain_that_is_rebooting_is_that_reboot(board):
    dom = board.boot("ivi", on_crash="coredump-restart", on_reboot="restart")
    board.h.request_shutdown(dom, reboot=True, grace_ms=1000, now_ns=board.now)
    board.h.faulted(dom, ONE, SEGV)
    assert board.h.domains[dom].life is Life.DYING


def test_what_is_no_notice_is_a_crash(board):
    dom = board.boot("ivi", on_crash="coredump-restart")
    board.h.faulted(dom, ONE, None)
    board.h.died(dom, ONE, "killed by SIGKILL", board.now, CORE)
    assert board.h.domains[dom].last_death == (
        f"crash: what it wrote to its upcall socket is no fault notice; {CORE}"
    )


def test_a_fault_is_heard_once_and_only_of_the_living_incarnation(board):
    dom = board.boot("ivi", on_crash="coredump-restart")
    board.h.faulted(dom, Incarnation(2), SEGV)
    assert board.h.domains[dom].life is Life.RUNNING
    board.h.faulted(dom, ONE, SEGV)
    board.h.faulted(dom, ONE, None)
    assert (board.h.domains[dom].fault, asked(board)) == (SEGV, ["dump_domain"])


def test_a_domain_that_claims_fault_after_fault_meets_the_restart_limit(board):
    dom = board.boot("ivi", on_crash="coredump-restart")
    for incarnation in range(1, 7):
        board.h.faulted(dom, Incarnation(incarnation), SEGV)
        board.dies(dom)
        if board.h.domains[dom].life is Life.STARTING:
            board.started(dom)
            board.h.domain_ready(dom, board.now)
    assert board.h.domains[dom].life is Life.FAILED
    assert asked(board) == ["dump_domain"] * 6


# ---- words -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("reason", "how", "core", "words"), [
    (None, "killed by SIGKILL", "", "no core: killed by SIGKILL"),
    (None, "exited with status 3 without a shutdown hypercall", "",
     "no core: exited with status 3 without a shutdown hypercall"),
    ((3, "ValueError: x"), "killed by SIGKILL", CORE, f"crash: ValueError: x; {CORE}"),
    ((3, "ValueError: x"), "killed by SIGKILL", "", "crash: ValueError: x; no core: killed by SIGKILL"),
    ((3, ""), "killed by SIGKILL", "no core: No space left on device", "crash; no core: No space left on device"),
    ((0, ""), "killed by SIGKILL", "", "poweroff"),
])  # fmt: skip
def test_the_reason_says_where_the_core_is_or_why_there_is_none(board, reason, how, core, words):
    dom = board.boot("ivi", on_crash="coredump-restart", on_poweroff="preserve")
    if reason is not None:
        board.h.domain_shutdown(dom, *reason)
    board.h.died(dom, ONE, how, board.now, core)
    assert board.h.domains[dom].last_death == words


def test_the_log_of_the_domain_says_it_too(board):
    dom = board.boot("ivi", on_crash="coredump-restart")
    board.h.faulted(dom, ONE, SEGV)
    board.h.died(dom, ONE, "killed by SIGKILL", board.now, CORE)
    assert board.hardware.named("write_log") == [("write_log", board.h.domains[dom], CORE)]


def test_only_domains_of_whom_a_core_may_be_wanted_prepare_for_it():
    plain = DomainConfig("ivi", "hvd:idle")
    watched = DomainConfig("ivi", "hvd:idle", on_watchdog="coredump-restart")
    crashing = DomainConfig("ivi", "hvd:idle", on_crash="coredump-destroy")
    assert [core_dumps.may_be_wanted(config) for config in (plain, watched, crashing)] == [False, True, True]
    assert [core_dumps.reports_faults(config) for config in (plain, watched, crashing)] == [False, False, True]


def test_a_core_is_named_after_domain_and_incarnation(board):
    dom = board.boot("ivi")
    assert core_dumps.core_name(board.h.domains[dom]) == "ivi.1"
