"""Events are numbered without gaps, the last of them are kept, and the next broker numbers on where this one was."""

from hypothesis import given
from hypothesis import strategies as st

from hvd.broker.event_log import DETAIL_CHARS_MAX, KEPT_MAX, PAGE_MAX, EventLog
from hvd.broker.sessions import Sessions
from hvd.broker.state import State


def test_an_event_has_the_next_number_and_the_time_of_its_command():
    log = EventLog(5, wall_base_ns=1000)
    log.add("booted", -1, "", 0, "")
    log.now_ns = 9
    log.add("died", 3, "ivi", 2, "killed by SIGKILL")
    assert [tuple(event) for event in log.after(0)] == [
        (1, 1005, "booted", -1, "", 0, ""),
        (2, 1009, "died", 3, "ivi", 2, "killed by SIGKILL"),
    ]
    assert log.last == 2


@given(st.integers(0, 2 * KEPT_MAX), st.integers(0, 3 * KEPT_MAX))
def test_a_page_holds_the_next_events_that_are_kept(happened, after):
    log = EventLog(0)
    for _ in range(happened):
        log.add("ready", 1, "d", 1, "")
    oldest = max(1, happened - KEPT_MAX + 1)
    first = max(after + 1, oldest)
    assert [event.number for event in log.after(after)] == list(range(first, min(first + PAGE_MAX, happened + 1)))


def test_kept_max_events_are_kept():
    log = EventLog(0)
    for _ in range(KEPT_MAX + 10):
        log.add("console", 1, "d", 1, "x")
    assert log.after(0)[0].number == 11


def test_a_detail_is_cut_at_detail_chars_max():
    log = EventLog(0)
    assert log.add("died", 1, "d", 1, "x" * DETAIL_CHARS_MAX).detail == "x" * DETAIL_CHARS_MAX
    assert log.add("died", 1, "d", 1, "y" * 10**6).detail == "y" * (DETAIL_CHARS_MAX - 1) + "…"


def test_the_next_broker_has_the_same_events_with_the_same_numbers_and_times(board):
    state = State(board.h, Sessions())
    dom = board.boot("guest", on_crash="restart")
    records = [state.snapshot()]
    for command in (
        ["died", 77, dom, 1, "killed by SIGKILL", ""],
        ["started", 78, dom, 2, 4711],
        ["recovered", 79, 1, "killed by SIGKILL"],
        ["zygote died", 80, "killed by SIGSEGV"],
        ["audited", 81, dom, "avc:  denied", 1],
    ):
        state.apply(command)
        records.append(state.record(command))
    successor = State.restore(records).hypervisor
    assert successor.events.after(0) == board.h.events.after(0)
    assert [(e.at_ns, e.event, e.detail) for e in successor.events.after(0)][-5:] == [
        (77, "died", "killed by SIGKILL"),
        (77, "starting", ""),
        (79, "broker restarted", "1: killed by SIGKILL"),
        (80, "zygote restarted", "killed by SIGSEGV"),
        (81, "denied", "avc:  denied"),
    ]
    assert successor.events.add("x", -1, "", 0, "").number == board.h.events.last + 1
