"""What /proc says of real processes that run, nap, wait, are stopped, are traced, and are gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hvd.broker.heartbeats import Doing
from hvd.broker.process_evidence import HIDDEN, Process
from tests.waiting import wait_for

PRELUDE = "import sys, time, threading, subprocess\nprint(flush=True)\n"


@contextmanager
def running(code: str) -> Iterator[tuple[subprocess.Popen[bytes], Process]]:
    child = subprocess.Popen([sys.executable, "-c", PRELUDE + code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process = None
    try:
        assert child.stdout is not None
        child.stdout.readline()
        process = Process(child.pid)
        yield child, process
    finally:
        if process is not None:
            process.close()
        child.kill()
        child.communicate()


def test_one_that_computes_is_runnable_and_its_cpu_time_grows():
    with running("while True: pass") as (_, process):
        wait_for(lambda: process.look()[0] is Doing.RUNNABLE)
        first = process.look()[1]
        wait_for(lambda: process.look()[1] > first)


def test_a_thread_that_computes_is_enough():
    with running("threading.Thread(target=lambda: any(iter(int, 1)), daemon=True).start()\nsys.stdin.read()") as (_, p):
        wait_for(lambda: p.look()[0] is Doing.RUNNABLE)


def test_one_that_is_stopped_does_nothing_and_has_run_when_it_goes_on():
    with running("while True: pass") as (child, process):
        child.send_signal(signal.SIGSTOP)
        wait_for(lambda: process.look()[0] is Doing.STOPPED)
        first = process.look()
        assert process.look() == first
        child.send_signal(signal.SIGCONT)
        child.send_signal(signal.SIGSTOP)
        wait_for(lambda: process.look()[2] > first[2])


@pytest.mark.parametrize(
    "code", ["time.sleep(1000)", "subprocess.run(['sleep', '1000'], stdin=subprocess.PIPE)"], ids=["sleep", "program"]
)
def test_one_that_sleeps_by_its_own_clock_or_for_its_program_naps(code):
    with running(code) as (child, process):
        wait_for(lambda: process.look()[0] is Doing.NAPPING)
        for number in Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split():
            os.kill(int(number), signal.SIGKILL)


def test_one_that_waits_for_a_lock_or_its_input_is_asleep_where_that_may_be_seen():
    for code in ("lock = threading.Lock(); lock.acquire(); lock.acquire()", "sys.stdin.read()"):
        with running(code) as (child, process):
            wait_for(lambda child=child, process=process: process.look()[0] is seen_asleep(child))  # type: ignore[misc]
            wait_for(lambda process=process: process.look() == process.look())  # type: ignore[misc]


def seen_asleep(child: subprocess.Popen[bytes]) -> Doing:
    """What one that sleeps is found to do: to wait for something, where that may be seen."""
    return Doing.NAPPING if Path(f"/proc/{child.pid}/wchan").read_text() in HIDDEN else Doing.ASLEEP


def test_one_that_may_not_be_seen_into_counts_as_napping(monkeypatch):
    with running("sys.stdin.read()") as (_, process):
        wait_for(lambda: process.look()[0] in (Doing.ASLEEP, Doing.NAPPING))
        monkeypatch.setattr("hvd.broker.process_evidence._text", lambda path: "0" if path.endswith("/wchan") else "")
        assert process.look()[0] is Doing.NAPPING


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may trace whom it likes")
def test_one_with_a_debugger_is_traced_whatever_it_does():
    with running("time.sleep(1000)") as (child, process):
        code = f"from hvd.transport import _native; _native.ptrace_stop({child.pid})"
        with running(f"{code}\nsys.stdin.read()"):  # whoever it traces is let go when it ends
            wait_for(lambda: process.look()[0] is Doing.TRACED)
        wait_for(lambda: process.look()[0] is not Doing.TRACED)


def test_one_that_is_gone_is_unknown_even_if_its_number_was_given_away():
    with running("pass") as (child, process):
        child.wait()
        assert process.look()[0] is Doing.UNKNOWN


def test_a_process_that_does_not_exist_cannot_be_opened():
    with pytest.raises(OSError):
        Process(2**22 + 1)
