"""What a guest asks of the scheduler, from inside: sched_op poll, and a crash whose reason no hypercall could carry."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from hvd.toolstack.cluster import Cluster, DomainState
from hvd.transport.messages import DomainConfig

DEADLINE_S = 40.0
POLL = """
import signal
from hvd.transport.errors import LocalError

VIRQ_TIMER, VIRQ_DEBUG = 0, 1
SOON_NS, LONG_S, SHORT_S = 20_000_000, 30.0, 0.05


def main(guest):
    runtime, ran = guest.runtime, []
    timer = runtime.bind_virq(VIRQ_TIMER, lambda: ran.append("timer"))
    quiet = runtime.bind_virq(VIRQ_DEBUG, lambda: ran.append("debug"))
    while runtime.wait(SHORT_S):
        pass
    ran.clear()
    {body}
"""
WAITING = """
import time
from hvd.domains.runtime import WaitTimeout

AUTO_READY = False


def main(guest):
    runtime = guest.runtime

    def paused_s():
        return (time.monotonic_ns() - runtime.system_time_ns()) / 1e9

    before = paused_s()
    guest.ready()
    while paused_s() - before < 1:  # until one of the rounds has been paused in
        start = runtime.system_time_ns()
        guest.sleep(0.5)
        try:
            runtime.wait_until(lambda: False, "nothing", 0.5)
        except WaitTimeout:
            passed_s = (runtime.system_time_ns() - start) / 1e9
            assert passed_s >= 1, passed_s
"""
BODIES = {
    "finds a port that is raised and leaves its handler to the next wait": """
    runtime.set_timer(runtime.system_time_ns() + SOON_NS)
    assert runtime.poll((timer, quiet), LONG_S) == (timer,)
    assert ran == []
    assert runtime.poll((timer,), LONG_S) == (timer,)
    assert runtime.wait(0)
    assert ran == ["timer"]
    assert runtime.poll((timer,), SHORT_S) == ()""",
    "leaves what happens elsewhere to the next wait": """
    runtime.set_timer(runtime.system_time_ns() + SOON_NS)
    assert runtime.poll((quiet,), 0.2) == ()
    assert runtime.wait(LONG_S)
    assert ran == ["timer"]""",
    "leaves a mask as it was": """
    runtime.waiter.mask(timer)
    runtime.poll((quiet,), 0)
    runtime.set_timer(runtime.system_time_ns() + SOON_NS)
    assert not runtime.wait(0.2)
    runtime.waiter.unmask(timer)
    assert runtime.wait(LONG_S)
    assert ran == ["timer"]""",
    "goes on sleeping after a signal": """
    signal.signal(signal.SIGALRM, lambda *_: ran.append("alarm"))
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    before = runtime.system_time_ns()
    assert runtime.poll((quiet,), 0.3) == ()
    assert runtime.system_time_ns() - before >= 300_000_000
    assert ran == ["alarm"]""",
    "refuses a port that is not bound": """
    try:
        runtime.poll((999,), SHORT_S)
    except LocalError as error:
        assert "no port 999" in str(error)
    else:
        raise AssertionError("polled nothing")""",
}


@pytest.fixture(scope="module")
def cluster() -> Any:
    with Cluster.build() as cluster:
        yield cluster


def last_death(cluster: Cluster, tmp_path: Path, text: str) -> str:
    """How a domain ends that runs this kernel once; a heartbeat would be one more thing that happens to it."""
    kernel = tmp_path / "kernel.py"
    kernel.write_text(text)
    config = DomainConfig("guest", str(kernel), on_crash="preserve", on_poweroff="preserve", heartbeat_ms=0)
    domain = cluster.create(config)
    death = domain.wait_state(DomainState.PRESERVED, deadline_s=DEADLINE_S).last_death
    domain.destroy()
    return death


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_poll(cluster, tmp_path, body):
    assert last_death(cluster, tmp_path, POLL.format(body=body.strip())) == "poweroff"


def test_a_wait_goes_on_for_as_much_system_time_as_it_was_to_whatever_the_pause(cluster, tmp_path):
    kernel = tmp_path / "kernel.py"
    kernel.write_text(WAITING)
    domain = cluster.create(DomainConfig("guest", str(kernel), on_crash="preserve", on_poweroff="preserve"))
    domain.wait_ready(DEADLINE_S)
    domain.pause()
    time.sleep(1.5)  # host time in which both waits would have ended
    domain.unpause()
    assert domain.wait_state(DomainState.PRESERVED, deadline_s=DEADLINE_S).last_death == "poweroff"
    domain.destroy()


def test_a_crash_whose_text_is_no_text_keeps_its_reason(cluster, tmp_path):
    death = last_death(cluster, tmp_path, "def main(guest):\n    raise ValueError('\\udcff and \\0')\n")
    assert death == "crash: ValueError: \\udcff and \\x00"


def test_a_line_for_the_hypervisors_console_may_hold_anything(cluster, tmp_path):
    kernel = "def main(guest):\n    guest.log('x\\udcff\\0' + '\\U0001f697' * 5000)\n"
    assert last_death(cluster, tmp_path, kernel) == "poweroff"
    assert any("x\\udcff\\x00" in line for line in cluster.dmesg())
