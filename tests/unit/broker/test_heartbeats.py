"""The verdicts on a domain that has not taken its heartbeat: the table row by row, and what no row may ever do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvd.broker.heartbeats import (
    GUEST_PATIENCE,
    REASONS,
    SERVER_PATIENCE,
    Doing,
    Evidence,
    Pulse,
    Verdict,
    hangs,
    interrupted,
    judge,
)

S = 1_000_000_000
TAKEN = None


def after(*evidence: Evidence | None) -> Pulse:
    pulse = Pulse()
    for each in evidence:
        pulse = judge(pulse, each)
    return pulse


def seen(doing: Doing, cpu_ns: int = 0, steps: int = 0, *, waited_for: bool = False) -> Evidence:
    return Evidence(doing, cpu_ns, steps, waited_for)


@pytest.mark.parametrize(
    ("doing", "ran", "waited_for", "verdict"),
    [
        (Doing.UNKNOWN, False, True, Verdict.UNSEEN),
        (Doing.UNKNOWN, True, True, Verdict.UNSEEN),
        (Doing.TRACED, False, True, Verdict.DEBUGGED),
        (Doing.TRACED, True, True, Verdict.DEBUGGED),
        (Doing.STOPPED, False, False, Verdict.STOPPED),
        (Doing.STOPPED, True, False, Verdict.STOPPED),
        (Doing.RUNNABLE, True, True, Verdict.BUSY),
        (Doing.RUNNABLE, False, True, Verdict.STARVED),
        (Doing.IN_KERNEL, True, True, Verdict.BUSY),
        (Doing.IN_KERNEL, False, True, Verdict.IN_KERNEL),
        (Doing.NAPPING, True, True, Verdict.BUSY),
        (Doing.NAPPING, False, True, Verdict.NAPPING),
        (Doing.NAPPING, False, False, Verdict.ASLEEP),
        (Doing.ASLEEP, True, True, Verdict.BUSY),
        (Doing.ASLEEP, False, True, Verdict.DEAF),
        (Doing.ASLEEP, False, False, Verdict.ASLEEP),
    ],
)
def test_what_a_process_does_and_whether_it_has_run_is_a_verdict(doing, ran, waited_for, verdict):
    before, now = seen(doing, 5, waited_for=waited_for), seen(doing, 6 if ran else 5, waited_for=waited_for)
    assert after(before, now).verdict is verdict


def test_a_beat_that_was_taken_forgets_all_that_was_before():
    assert after(seen(Doing.STOPPED), seen(Doing.STOPPED), TAKEN) == Pulse()


@pytest.mark.parametrize(
    ("doing", "serves", "interval_ns", "beats"),
    [
        (Doing.STOPPED, False, S, 2),
        (Doing.STOPPED, True, S, 2),
        (Doing.STOPPED, False, S // 20, 2),
        (Doing.ASLEEP, False, S, 11),
        (Doing.ASLEEP, False, S // 20, 201),
        (Doing.ASLEEP, False, 5 * S, 11),
        (Doing.ASLEEP, True, S, 6),
        (Doing.ASLEEP, True, S // 20, 21),
        (Doing.NAPPING, True, S, 6),
        (Doing.IN_KERNEL, False, S, 11),
        (Doing.IN_KERNEL, True, S // 20, 201),
    ],
)
def test_it_hangs_when_it_has_been_found_so_at_as_many_beats_as_its_patience_says(doing, serves, interval_ns, beats):
    evidence = seen(doing, waited_for=True)
    assert not hangs(after(*[evidence] * (beats - 1)), interval_ns, serves=serves)
    assert hangs(after(*[evidence] * beats), interval_ns, serves=serves).startswith("it hangs: ")


@pytest.mark.parametrize("serves", [False, True])
@pytest.mark.parametrize(
    "evidence",
    [seen(Doing.TRACED), seen(Doing.RUNNABLE), seen(Doing.UNKNOWN), seen(Doing.ASLEEP), seen(Doing.NAPPING)],
    ids=lambda evidence: evidence.doing,
)
def test_who_is_debugged_starved_or_unseen_or_sleeps_while_nobody_wants_it_never_hangs(evidence, serves):
    assert not hangs(after(*[evidence] * 1000), S, serves=serves)


def test_a_guest_that_naps_never_hangs_whatever_waits_for_it():
    assert not hangs(after(*[seen(Doing.NAPPING, waited_for=True)] * 1000), S, serves=False)


def test_a_guest_computes_for_as_long_as_it_likes():
    assert not hangs(after(*[seen(Doing.RUNNABLE, n * S) for n in range(1000)]), S, serves=False)


def test_a_driver_domain_that_computes_hangs_when_it_has_had_so_much_cpu_time_and_served_nobody():
    served_nobody = [seen(Doing.RUNNABLE, n * S // 10) for n in range(51)]
    assert not hangs(after(*served_nobody[:-1]), S, serves=True)
    assert hangs(after(*served_nobody), S, serves=True) == "it hangs: it has computed for 5 s and served nobody"
    assert not hangs(after(*served_nobody[:-1], TAKEN, served_nobody[-1]), S, serves=True)


def test_cpu_time_that_a_driver_domain_has_had_counts_whether_or_not_the_broker_looked_in_time():
    pulse = Pulse()
    for n in range(51):
        pulse = judge(pulse, seen(Doing.RUNNABLE, n * S // 10))
        if n < 49:
            pulse = interrupted(pulse)
    assert hangs(pulse, S, serves=True)


def test_a_driver_domain_that_others_keep_from_running_is_not_judged_by_the_clock():
    assert not hangs(after(*[seen(Doing.RUNNABLE, n // 100) for n in range(5000)]), S, serves=True)


def test_a_stop_that_was_interrupted_by_running_begins_anew():
    assert not hangs(after(seen(Doing.STOPPED, steps=1), seen(Doing.STOPPED, steps=2)), S, serves=False)


def test_another_verdict_begins_anew():
    pulse = after(*[seen(Doing.IN_KERNEL)] * 9, seen(Doing.STOPPED))
    assert not hangs(pulse, S, serves=False)


def test_a_look_that_came_too_late_counts_for_nothing_and_what_follows_begins_anew():
    pulse = interrupted(after(seen(Doing.STOPPED), seen(Doing.STOPPED)))
    assert not hangs(pulse, S, serves=False)
    pulse = judge(pulse, seen(Doing.STOPPED))
    assert not hangs(pulse, S, serves=False)
    assert hangs(judge(pulse, seen(Doing.STOPPED)), S, serves=False)


def test_every_verdict_that_may_become_a_hang_has_words_for_it():
    assert GUEST_PATIENCE.keys() <= SERVER_PATIENCE.keys() == REASONS.keys()


EVIDENCE = st.builds(
    Evidence, st.sampled_from(Doing), st.integers(0, 3), st.integers(0, 3), st.booleans()
)


@given(st.lists(st.none() | EVIDENCE, max_size=40), st.sampled_from([S // 20, S, 7 * S]), st.booleans())
def test_nobody_hangs_who_took_the_beat_or_ran_or_wanted_to_since(history, interval_ns, serves):
    pulse = after(*history)
    why = hangs(pulse, interval_ns, serves=serves)
    if not why:
        return
    last = history[-1]
    assert last is not None and last.doing not in (Doing.TRACED, Doing.UNKNOWN)
    if pulse.verdict is Verdict.BUSY:
        assert serves
    else:
        lasting = history[-pulse.beats :]
        assert pulse.beats >= 2 and None not in lasting
        assert {(e.doing, e.cpu_ns, e.steps) for e in lasting if e} == {(last.doing, last.cpu_ns, last.steps)}
