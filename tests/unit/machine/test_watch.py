"""A process that hangs is told from one that is kept waiting: real processes; the clock is the number of looks."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hvd.machine.watch import BUSY_CPU_S, SILENT_MAX, STOPPED, Watch
from hvd.transport.pulse import Pulse

DEADLINE_S = 60.0


class Patient:
    """A forked process that does one thing, and the watch on it."""

    def __init__(self, body: Callable[[], None], *, expected: bool = True) -> None:
        self.pulse = Pulse()
        self.pid = os.fork()
        if self.pid == 0:
            with contextlib.suppress(BaseException):
                body()
            os._exit(0)
        self.watch = Watch(self.pid, self.pulse, expected=expected)

    def state(self) -> tuple[str, float]:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return fields[0], (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def until(self, condition: Callable[[str, float], bool]) -> None:
        end = time.monotonic() + DEADLINE_S
        while not condition(*self.state()):
            assert time.monotonic() < end
            time.sleep(0.005)

    def looks(self, count: int) -> list[str | None]:
        return [self.watch.look() for _ in range(count)]

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.pulse.close()


@pytest.fixture
def start() -> Iterator[Callable[..., Patient]]:
    patients: list[Patient] = []

    def begin(body: Callable[[], None], *, expected: bool = True) -> Patient:
        patients.append(Patient(body, expected=expected))
        return patients[-1]

    yield begin
    for patient in patients:
        patient.close()


def sleep() -> None:
    while True:
        time.sleep(100)


def spin() -> None:
    while True:
        pass


def test_who_beats_between_looks_is_at_work(start):
    patient = start(sleep)
    for _ in range(10 * SILENT_MAX):
        patient.pulse.beat()
        assert patient.watch.look() is None


def test_who_sleeps_and_does_not_beat_is_killed_at_the_last_look_of_silent_max(start):
    patient = start(sleep)
    patient.until(lambda state, _: state == "S")
    told = patient.looks(SILENT_MAX)
    assert told[:-1] == [None] * (SILENT_MAX - 1)
    assert told[-1] == f"it slept and did not come back to its loop for {SILENT_MAX} s"


def test_who_waits_for_a_thread_of_its_own_that_gets_no_cpu_time_is_not_killed(start):
    patient = start(wait_for_a_thread)
    patient.until(lambda state, _: state == "S")
    stats = list(Path(f"/proc/{patient.pid}/task").glob("*/stat"))
    end = time.monotonic() + DEADLINE_S
    while not any(stat.read_text().rpartition(")")[2].split()[0] == "R" for stat in stats):
        stats = list(Path(f"/proc/{patient.pid}/task").glob("*/stat"))
        assert time.monotonic() < end
    told = patient.looks(2 * SILENT_MAX)
    assert told == [None] * 2 * SILENT_MAX or patient.state()[1] >= BUSY_CPU_S, told


def wait_for_a_thread() -> None:
    thread = threading.Thread(target=spin)
    thread.start()
    thread.join()


def test_who_is_silent_is_so_from_the_first_look_without_a_beat_to_the_next_with_one(start):
    patient = start(sleep)
    patient.pulse.beat()
    patient.watch.look()
    assert not patient.watch.is_silent
    patient.watch.look()
    assert patient.watch.is_silent
    patient.pulse.beat()
    patient.watch.look()
    assert not patient.watch.is_silent


def test_one_beat_begins_the_count_anew(start):
    patient = start(sleep)
    patient.until(lambda state, _: state == "S")
    for _ in range(5):
        assert patient.looks(SILENT_MAX - 1) == [None] * (SILENT_MAX - 1)
        patient.pulse.beat()
        assert patient.watch.look() is None


def test_who_wants_to_run_and_gets_no_cpu_time_is_never_killed_and_who_has_had_some_is(start):
    patient = start(spin)
    patient.until(lambda state, _: state == "R")
    used = patient.state()[1]  # or it would have had more than the watch knows of
    patient.watch.look()
    began = patient.state()[1]
    while patient.state()[1] - used < BUSY_CPU_S / 2:
        why = patient.watch.look()
        assert why is None or patient.state()[1] - used >= BUSY_CPU_S, why
    patient.until(lambda _, cpu_s: cpu_s - began > BUSY_CPU_S)
    patient.until(lambda state, _: state == "R")
    (why,) = patient.looks(1)
    used_at_most = patient.state()[1] - used
    told = re.match(r"it used (\d+\.\d) s of CPU time and did not come back", why or "")
    assert told and BUSY_CPU_S <= float(told[1]) <= used_at_most + 0.05, (why, used_at_most)


def test_who_was_stopped_is_killed_for_that(start):
    patient = start(sleep)
    os.kill(patient.pid, signal.SIGSTOP)
    patient.until(lambda state, _: state == "T")
    assert patient.looks(SILENT_MAX)[-1] == STOPPED


def test_whom_a_debugger_holds_is_left_alone(start):
    patient = start(trace_me_and_stop)
    patient.until(lambda state, _: state == "t")
    assert patient.looks(10 * SILENT_MAX) == [None] * 10 * SILENT_MAX


def trace_me_and_stop() -> None:
    import ctypes

    ptrace_traceme = 0
    ctypes.CDLL(None).ptrace(ptrace_traceme, 0, None, None)
    os.kill(os.getpid(), signal.SIGSTOP)


def test_who_is_not_expected_to_beat_is_watched_from_its_first_beat_on(start):
    patient = start(sleep, expected=False)
    patient.until(lambda state, _: state == "S")
    assert patient.looks(10 * SILENT_MAX) == [None] * 10 * SILENT_MAX
    patient.pulse.beat()
    assert patient.looks(SILENT_MAX + 1)[-1] is not None


def test_who_has_gone_is_not_killed(start):
    patient = start(sleep)
    os.kill(patient.pid, signal.SIGKILL)
    patient.until(lambda state, _: state == "Z")
    assert patient.looks(2 * SILENT_MAX) == [None] * 2 * SILENT_MAX
