"""A stop of all that a domain has started: sent in its PID namespace, again when it failed, and never anywhere else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hvd.machine.children import Child
from hvd.machine.halts import TRIES_MAX, Halts
from hvd.transport.descendants import children
from hvd.transport.process import CLONE_NEWPID, CLONE_NEWUSER, fork_sibling
from tests.waiting import wait_for

DEADLINE_S = 60.0
FAILED = "exited with status 1"


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def domain_with_a_child(flags: int) -> Child:
    """A process in new namespaces that has started another."""
    read, write = os.pipe()
    middle = os.fork()
    if middle == 0:  # whose siblings are our children
        try:
            pid = fork_sibling(flags)
        except OSError:
            os._exit(1)
        if pid == 0:
            if os.fork() == 0:
                os.write(write, b"x")
            while True:
                signal.pause()
        os.write(write, b"%d " % pid)
        os._exit(0)
    os.close(write)
    os.waitpid(middle, 0)
    with open(read, "rb", 0) as said:
        text = b""
        while not (text.strip(b"x").strip() and b"x" in text):
            more = said.read(100)
            if not more:
                pytest.skip("no PID namespaces here")
            text += more
    return Child("domain", int(text.replace(b"x", b"")))


@pytest.fixture
def domain() -> Iterator[Child]:
    made = domain_with_a_child(CLONE_NEWPID | (CLONE_NEWUSER if os.geteuid() else 0))
    yield made
    made.signal(signal.SIGKILL)
    os.waitid(os.P_PIDFD, made.pidfd, os.WEXITED | 0x40000000)
    os.close(made.pidfd)


class Machine:
    """Reaps halters as the machine does."""

    def __init__(self) -> None:
        self.halters: list[Child] = []
        self.halts = Halts(self.halters.append)

    def reap(self) -> None:
        halter = self.halters.pop(0)
        os.waitid(os.P_PIDFD, halter.pidfd, os.WEXITED | os.WNOWAIT)
        how = halter.reap()
        os.close(halter.pidfd)
        assert how is not None
        self.halts.ended(halter, how)


def test_what_a_domain_has_started_is_stopped_and_let_go_on(domain: Child) -> None:
    machine = Machine()
    (child,) = children(domain.pid)
    for number, expected in ((signal.SIGSTOP, "T"), (signal.SIGCONT, "S")):
        domain.signal(number)
        machine.halts.spread(domain, number)
        machine.reap()
        wait_for(lambda expected=expected: state(child) == expected)  # type: ignore[misc]
    assert not machine.halters


def test_the_last_of_several_orders_is_what_comes_of_them(domain: Child) -> None:
    machine = Machine()
    (child,) = children(domain.pid)
    for number in (signal.SIGSTOP, signal.SIGCONT, signal.SIGSTOP, signal.SIGCONT):
        machine.halts.spread(domain, number)
    while machine.halters:
        machine.reap()
    wait_for(lambda: state(child) == "S")


def test_what_is_held_goes_on_when_neither_that_nor_a_stop_keeps_it(domain: Child) -> None:
    machine = Machine()
    (child,) = children(domain.pid)
    hold, spread = machine.halts.hold, machine.halts.spread

    def after(expected: str, order: Callable[[], None]) -> None:
        order()
        while machine.halters:
            machine.reap()
        wait_for(lambda: state(child) == expected)

    after("T", lambda: hold(domain, held=True))
    after("T", lambda: spread(domain, signal.SIGSTOP))
    after("T", lambda: spread(domain, signal.SIGCONT))
    after("T", lambda: hold(domain, held=True))
    after("S", lambda: hold(domain, held=False))
    hold(domain, held=False)
    assert not machine.halters


def test_one_that_fails_is_tried_again_so_often(domain: Child) -> None:
    machine = Machine()
    machine.halts.spread(domain, signal.SIGSTOP)
    tries = 0
    while machine.halters:
        halter = machine.halters.pop()
        os.waitid(os.P_PIDFD, halter.pidfd, os.WEXITED)
        os.close(halter.pidfd)
        machine.halts.ended(halter, FAILED)
        tries += 1
    assert tries == TRIES_MAX


def test_a_process_without_children_needs_no_halter() -> None:
    with subprocess.Popen(["sleep", "1000"]) as lonely:
        child = Child("domain", lonely.pid)
        machine = Machine()
        machine.halts.spread(child, signal.SIGSTOP)
        assert not machine.halters
        os.close(child.pidfd)
        lonely.kill()


NO_NAMESPACE = """
import os, signal, time
from hvd.machine.children import Child
from hvd.machine.halts import Halts
domain = os.fork()
if domain == 0:
    os.fork()
    while True:
        signal.pause()
def states():
    return [open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0]
            for pid in os.listdir("/proc") if pid.isdigit() and pid != str(os.getpid())]
while states() != ["S", "S"]:  # it has started another, and neither is on its way any more
    time.sleep(0.005)
halters = []
Halts(halters.append).spread(Child("domain", domain), signal.SIGSTOP)
os.waitid(os.P_PIDFD, halters[0].pidfd, os.WEXITED)
print(states())
"""


def test_where_a_domain_has_no_namespace_of_its_own_nobody_is_stopped() -> None:
    """In a namespace made for this test: what it looks for would stop the machine it runs on."""
    command = ["unshare", "--pid", "--fork", "--mount-proc", *(["--user", "--map-root-user"] if os.geteuid() else [])]
    if subprocess.run([*command, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no PID namespaces here")
    done = subprocess.run([*command, sys.executable, "-c", NO_NAMESPACE], check=True, capture_output=True, text=True,
                          timeout=DEADLINE_S)  # fmt: skip
    assert done.stdout == "['S', 'S']\n"
