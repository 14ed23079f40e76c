"""Exhaustive model check of the doorbell: every interleaving of notifier and receiver under x86's store buffers (TSO).

No sanitizer can see a missing fence between processes, so the protocol of native/doorbell.hpp, the ring's notification
rule and the waiter's use of both are written down here as programs of one-step instructions, and every reachable state
is visited. A wake-up is lost if a state is reached in which nobody can take a step, yet an event is pending or a ring
has work. Each check has its control: without the fence, or without the kick, the model must find the loss.

TSO: a store goes into its thread's buffer and reaches memory later, in order; a load sees the thread's own buffer
first. Fences and atomic exchanges wait for an empty buffer. A killed thread runs no more, but what it stored arrives.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

NOTIFIER, RECEIVER, BROKER = 0, 1, 2
AWAKE, BY_PIPE, BY_WORD = 0, 1, 2
"""What "waiting" says of the receiver."""


@dataclass(frozen=True)
class Thread:
    at: int
    """Index of the next instruction; DEAD if it was killed."""
    buffer: tuple[tuple[str, int], ...] = ()
    registers: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class State:
    threads: tuple[Thread, ...]
    memory: tuple[tuple[str, int], ...]
    pipe: int = 0
    lain_down: bool = False
    """The receiver, on the word: FUTEX_WAIT found in it what it expected."""


DEAD = -1


def assign(pairs, name, value):
    return tuple(sorted((dict(pairs) | {name: value}).items()))


def load(state, thread, name):
    for buffered, value in reversed(thread.buffer):
        if buffered == name:
            return value
    return dict(state.memory)[name]


def with_thread(state, index, thread):
    return replace(state, threads=(*state.threads[:index], thread, *state.threads[index + 1 :]))


def steps(state: State, programs, killable) -> Iterator[State]:
    """Every state that one step leads to."""
    for index, thread in enumerate(state.threads):
        if thread.buffer:
            (name, value), *rest = thread.buffer
            drained = with_thread(state, index, replace(thread, buffer=tuple(rest)))
            yield replace(drained, memory=assign(state.memory, name, value))
        if thread.at != DEAD and thread.at < len(programs[index]):
            yield from execute(state, index, thread, programs[index][thread.at])
            if index == killable:
                yield with_thread(state, index, replace(thread, at=DEAD))


def execute(state: State, index, thread: Thread, instruction) -> Iterator[State]:
    following = replace(thread, at=thread.at + 1)
    match instruction:
        case ("store", name, value):
            value = value(dict(thread.registers)) if callable(value) else value
            yield with_thread(state, index, replace(following, buffer=(*thread.buffer, (name, value))))
        case ("load", name, register):
            registers = assign(thread.registers, register, load(state, thread, name))
            yield with_thread(state, index, replace(following, registers=registers))
        case ("fence",):
            if not thread.buffer:
                yield with_thread(state, index, following)
        case ("exchange", name, value, register):
            if not thread.buffer:
                registers = assign(thread.registers, register, dict(state.memory)[name])
                moved = with_thread(state, index, replace(following, registers=registers))
                yield replace(moved, memory=assign(state.memory, name, value))
        case ("let", register, compute):
            registers = assign(thread.registers, register, compute(dict(thread.registers)))
            yield with_thread(state, index, replace(following, registers=registers))
        case ("branch", condition, to):
            yield with_thread(state, index, replace(thread, at=to) if condition(dict(thread.registers)) else following)
        case ("maybe", to):  # either, as fate has it
            yield with_thread(state, index, replace(thread, at=to))
            yield with_thread(state, index, following)
        case ("write pipe",):  # one page of pipe: a further byte into a full one is dropped
            yield replace(with_thread(state, index, following), pipe=min(state.pipe + 1, 2))
        case ("sleep",):
            if state.pipe:
                yield with_thread(state, index, following)
        case ("lie down", name, expected):  # compared in one step with lying down; who got up again goes on
            if load(state, thread, name) == expected:
                yield replace(with_thread(state, index, following), lain_down=True)
            else:
                yield with_thread(state, index, following)
        case ("get up",):
            if not state.lain_down:
                yield with_thread(state, index, following)
        case ("get up in time", late):
            if not state.lain_down:
                yield with_thread(state, index, following)
            yield replace(with_thread(state, index, replace(thread, at=late)), lain_down=False)
        case ("wake",):
            yield replace(with_thread(state, index, following), lain_down=False)
        case ("drain",):
            yield replace(with_thread(state, index, following), pipe=0)
        case ("await death of", other):
            # The kernel's own locks on the way out empty a dying thread's buffer before anybody can learn of the death.
            if state.threads[other].at == DEAD and not state.threads[other].buffer:
                yield with_thread(state, index, following)
        case _:
            raise AssertionError(instruction)


def lost_wakeups(programs, memory, work_left: Callable[[State], bool], killable=None) -> tuple[list[State], int]:
    """The states in which all is quiet and work is left, and how many states there are."""
    first = State(tuple(Thread(0) for _ in programs), tuple(sorted(memory.items())))
    seen, frontier, lost = {first}, [first], []
    while frontier:
        state = frontier.pop()
        successors = list(steps(state, programs, killable))
        # A receiver asleep is the only thread that may stand still; a notifier not yet killed still may be.
        if not successors and work_left(state):
            lost.append(state)
        for successor in successors:
            if successor not in seen:
                seen.add(successor)
                frontier.append(successor)
    return lost, len(seen)


def labelled(*lines):
    """Instructions with `"name:"` lines for jump targets."""
    program: list[tuple[Any, ...]] = []
    labels: dict[str, int] = {}
    for line in lines:
        if isinstance(line, str):
            labels[line.rstrip(":")] = len(program)
        elif line is not None:
            program.append(line)
    return [tuple(labels.get(part, part) if isinstance(part, str) else part for part in line) for line in program]


def notify(done, *, fence):
    """Doorbell::notify; every jump target carries `done`, so that it can be used more than once in a program."""
    return (
        ("store", "pending", 1),
        ("fence",) if fence else None,
        ("load", "waiting", "peer waits"),
        ("branch", lambda r: not r["peer waits"], done),
        ("exchange", "waiting", AWAKE, "peer waited"),
        ("branch", lambda r: not r["peer waited"], done),
        ("branch", lambda r: r["peer waited"] == BY_PIPE, f"{done}, by pipe"),
        ("wake",),
        ("branch", lambda r: True, done),
        f"{done}, by pipe:",
        ("write pipe",),
        f"{done}:",
    )


def notifier(*, fence, times=3):
    return labelled(*(line for n in range(times) for line in notify(f"notified {n}", fence=fence)))


def receiver(*, fence, fence_at_pipe=True):
    """Takes events for ever: polls, or arms, looks once more and sleeps at the word, then at the pipe (Doorbell::wait).

    Its time at the word may be over, or be without end: a wake-up that is lost there is not found again at the pipe.
    """
    return labelled(
        "poll:",
        ("load", "pending", "ring"),
        ("branch", lambda r: r["ring"], "take"),
        ("maybe", "poll"),
        ("store", "waiting", BY_WORD),
        ("fence",) if fence else None,
        ("load", "pending", "ring"),
        ("branch", lambda r: r["ring"], "disarm"),
        ("lie down", "waiting", BY_WORD),
        ("maybe", "for a time"),
        ("get up",),
        ("branch", lambda r: True, "disarm"),
        "for a time:",
        ("get up in time", "late"),
        ("branch", lambda r: True, "disarm"),
        "late:",
        ("store", "waiting", AWAKE),
        ("drain",),
        ("store", "waiting", BY_PIPE),
        ("fence",) if fence and fence_at_pipe else None,
        ("load", "pending", "ring"),
        ("branch", lambda r: r["ring"], "disarm"),
        ("sleep",),
        "disarm:",
        ("store", "waiting", 0),
        ("branch", lambda r: True, "poll"),
        "take:",
        ("exchange", "pending", 0, "taken"),
        ("branch", lambda r: True, "poll"),
    )


def pending_left(state):
    return dict(state.memory)["pending"] == 1


DOORBELL = {"pending": 0, "waiting": 0}


def test_with_a_fence_on_both_sides_no_wakeup_is_lost():
    lost, states = lost_wakeups([notifier(fence=True), receiver(fence=True)], DOORBELL, pending_left)
    assert not lost
    assert states > 500, "the model moves at all"


@pytest.mark.parametrize(("ours", "theirs"), [(True, False), (False, True), (False, False)])
def test_without_either_fence_the_model_finds_a_lost_wakeup(ours, theirs):
    lost, _ = lost_wakeups([notifier(fence=ours, times=1), receiver(fence=theirs)], DOORBELL, pending_left)
    assert lost


def test_the_pipe_behind_the_word_needs_a_fence_of_its_own():
    programs = [notifier(fence=True, times=2), receiver(fence=True, fence_at_pipe=False)]
    lost, _ = lost_wakeups(programs, DOORBELL, pending_left)
    assert lost


def test_checking_before_advertising_loses_wakeups_whatever_the_fences():
    looks_first = labelled(
        ("load", "pending", "ring"),
        ("branch", lambda r: r["ring"], "end"),
        ("store", "waiting", 1),
        ("fence",),
        ("sleep",),
        ("exchange", "pending", 0, "taken"),
        "end:",
    )
    lost, _ = lost_wakeups(
        [notifier(fence=True, times=1), looks_first],
        DOORBELL,
        lambda s: pending_left(s) and s.threads[RECEIVER].at == 4,
    )
    assert lost


RAISE = (("store", "pending", 1), ("fence",))
CLEAR = (("exchange", "waiting", AWAKE, "peer waited"),)
WAKE = (("wake",), ("write pipe",))


def broker(*kick):
    """Doorbell::kick, once the kernel has said that the notifier is dead."""
    return labelled(("await death of", NOTIFIER), *kick)


def receiver_sleeps_on_an_event(state):
    return state.threads[NOTIFIER].at == DEAD and pending_left(state)


def test_a_notifier_killed_anywhere_costs_no_wakeup_if_the_broker_kicks():
    programs = [notifier(fence=True, times=2), receiver(fence=True), broker(*RAISE, *CLEAR, *WAKE)]
    lost, _ = lost_wakeups(programs, DOORBELL, receiver_sleeps_on_an_event, killable=NOTIFIER)
    assert not lost


@pytest.mark.parametrize(
    "careless",
    {
        "nobody kicks": (),
        "the byte comes before the word": (*CLEAR, *WAKE, *RAISE),
        "who is about to lie down finds the word as it left it": (*RAISE, *WAKE),
        "who sleeps on the word is left there": (*RAISE, *CLEAR, ("write pipe",)),
        "who sleeps at the pipe is left there": (*RAISE, *CLEAR, ("wake",)),
    }.items(),
    ids=lambda careless: careless[0],
)
def test_a_notifier_killed_half_way_costs_the_wakeup_if(careless):
    careless = broker(*careless[1])
    programs = [notifier(fence=True, times=1), receiver(fence=True), careless]
    lost, _ = lost_wakeups(programs, DOORBELL, receiver_sleeps_on_an_event, killable=NOTIFIER)
    assert lost


# ---- the ring's event index together with the doorbell, as a waiter with an attached ring uses them


def producer(*, fence, messages=2):
    """Ring::publish, one message at a time, and Doorbell::notify if it says so."""

    def push(number):
        return (
            ("store", "prod", number + 1),
            ("fence",) if fence else None,
            ("load", "event", "event"),
            ("branch", lambda r: not must_notify(r["event"], number, number + 1), f"pushed {number}"),
            *notify(f"notified {number}", fence=fence),
            f"pushed {number}:",
        )

    return labelled(*(line for number in range(messages) for line in push(number)))


def must_notify(event, old, new):
    return (new - event) % 2**32 < (new - old) % 2**32


def consumer(*, fence):
    """Waiter with an attached ring: polls both words; arms ring and doorbell, looks at both once more, sleeps."""
    return labelled(
        ("let", "cons", lambda r: 0),
        "poll:",
        ("load", "prod", "seen"),
        ("branch", lambda r: r["seen"] != r["cons"], "consume"),
        ("load", "pending", "ring"),
        ("branch", lambda r: r["ring"], "take"),
        ("maybe", "poll"),
        ("store", "waiting", 1),
        ("fence",) if fence else None,
        ("store", "event", lambda r: r["cons"] + 1),
        ("fence",) if fence else None,
        ("load", "pending", "ring"),
        ("branch", lambda r: r["ring"], "disarm"),
        ("load", "prod", "seen"),
        ("branch", lambda r: r["seen"] != r["cons"], "disarm"),
        ("sleep",),
        ("drain",),
        "disarm:",
        ("store", "waiting", 0),
        ("branch", lambda r: True, "poll"),
        "take:",
        ("exchange", "pending", 0, "taken"),
        ("branch", lambda r: True, "poll"),
        "consume:",
        ("let", "cons", lambda r: r["cons"] + 1),
        ("branch", lambda r: True, "poll"),
    )


def ring_has_work(state):
    return dict(state.memory)["prod"] != dict(state.threads[RECEIVER].registers)["cons"]


# The event begins far away, as after a batch that nobody armed for; or armed, as in a fresh ring.
RINGS = [DOORBELL | {"prod": 0, "event": event} for event in (1, 2**31)]


@pytest.mark.parametrize("memory", RINGS)
def test_a_waiter_that_arms_ring_and_doorbell_sleeps_over_no_message(memory):
    lost, states = lost_wakeups([producer(fence=True), consumer(fence=True)], memory, ring_has_work)
    assert not lost
    assert states > 500


@pytest.mark.parametrize(("ours", "theirs"), [(True, False), (False, True)])
def test_without_either_fence_a_message_is_slept_over(ours, theirs):
    lost, _ = lost_wakeups([producer(fence=ours), consumer(fence=theirs)], RINGS[1], ring_has_work)
    assert lost
