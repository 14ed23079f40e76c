"""The machine: what it keeps, replaces and ends. First with stand-ins for broker and zygote, then with real domains.

Stand-ins die, hang and lie on cue. Each is a function in a small program that the test starts; it tells the test what
happens through a FIFO.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hvd.domains.standby import NAME as STANDBY
from hvd.domains.zygote import STANDBYS
from hvd.toolstack.cluster import Cluster, DomainState
from hvd.transport.messages import DomainConfig, RestartPolicy
from tests.waiting import wait_for

DEADLINE_S = 60.0

PROGRAM = """
import os, signal, socket, sys
from hvd.machine.machine import Machine
from hvd.transport.descriptors import receive_message, send_message
from hvd.transport.machine_link import *
from hvd.transport.process import die_with_parent, fork_sibling

MACHINE = os.getpid()

def tell(*words):
    fifo = os.open(sys.argv[1], os.O_WRONLY)
    os.write(fifo, (" ".join(map(str, words)) + "\\n").encode())
    os.close(fifo)

def sleep_for_ever():
    while True:
        signal.pause()

def listen(inheritance):
    while (received := receive_message(inheritance.link)) is not None:
        if received[0][0] != "reaped":  # told a while after, at no certain place among the others
            tell(*received[0])

def spawn(inheritance, domid, incarnation):
    read, write = os.pipe()
    send_message(inheritance.link, [SPAWN, domid, incarnation, "test", [], []], (read, write))

def fork_domain():
    pid = fork_sibling(0)
    if pid == 0:
        die_with_parent(MACHINE)
        sleep_for_ever()
    return pid

def zygote(link):
    while (received := receive_message(link)) is not None:
        _, domid, incarnation, *_ = received[0]
        send_message(link, [SPAWNED, domid, incarnation, fork_domain()])

{body}

report = lambda line: tell("report", line)
Machine(sys.argv[2], b"configuration", broker, lambda link, groups, pulse: zygote(link), report).run()
tell("end")
"""


class Bench:
    """A running machine and the lines its stand-ins wrote."""

    def __init__(self, directory: Path, body: str) -> None:
        self._fifo = directory / "fifo"
        os.mkfifo(self._fifo)
        self._read = os.open(self._fifo, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._text = ""
        program = directory / "program.py"
        program.write_text(PROGRAM.format(body=body))
        self.process = subprocess.Popen([sys.executable, program, self._fifo, directory])

    def line(self) -> list[str]:
        """The next line, as words."""
        until = time.monotonic() + DEADLINE_S
        while "\n" not in self._text:
            left = until - time.monotonic()
            assert left > 0, f"no line within {DEADLINE_S} s; so far: {self._text!r}"
            if select.select([self._read], [], [], left)[0]:
                self._text += os.read(self._read, 65_536).decode()
        line, self._text = self._text.split("\n", 1)
        return line.split(" ")

    def expect(self, *words: object) -> list[str]:
        """The next line, which begins with these words; the words after them."""
        line = self.line()
        expected = [str(word) for word in words]
        assert line[: len(expected)] == expected
        return line[len(expected) :]

    def cue(self, name: str) -> None:
        """Tell the stand-ins, which look for a file of this name beside the FIFO."""
        Path(f"{self._fifo}.{name}").touch()

    def power_off(self) -> None:
        self.process.terminate()
        self.expect("end")
        assert self.process.wait(DEADLINE_S) == 0

    def close(self) -> None:
        self.process.kill()
        self.process.wait(DEADLINE_S)
        os.close(self._read)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[object]:
    benches: list[Bench] = []

    def start(body: str) -> Bench:
        benches.append(Bench(tmp_path, body))
        return benches[-1]

    yield start
    for one in benches:
        one.close()


def ended(pid: int) -> bool:
    """Wait for a process to be gone."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            return bool(select.select([descriptor], [], [], DEADLINE_S)[0])
        finally:
            os.close(descriptor)
    return True


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


# ---- the broker ------------------------------------------------------------------------------------------------------


def test_a_broker_that_dies_is_forked_again_and_finds_what_its_predecessor_held(bench):
    one = bench("""
def broker(inheritance):
    if not inheritance.held:
        read, write = os.pipe()
        os.write(write, b"kept")
        send_message(inheritance.link, [HOLD, "pipe"], (read,))
        send_message(inheritance.link, [HOLD, "gone"], (read,))
        send_message(inheritance.link, [DROP, "gone"])
        send_message(inheritance.link, [UP])
        tell("first", inheritance.configuration.decode(), inheritance.brokers_before)
        os._exit(7)
    content = os.read(inheritance.held["pipe"][0], 10).decode()
    tell("second", content, *inheritance.held, inheritance.brokers_before, inheritance.predecessor_end)
    sleep_for_ever()
""")
    first, report, second = sorted(one.line() for _ in range(3))  # the machine reports on a way of its own
    assert first == ["first", "configuration", "0"]
    assert report == ["report", "up"]
    assert second[:4] == ["second", "kept", "pipe", "1"]
    assert "status 7" in " ".join(second)
    one.power_off()


def test_a_broker_that_dies_before_it_is_up_is_not_forked_for_ever(bench):
    one = bench("""
def broker(inheritance):
    tell("broker", inheritance.brokers_before)
    os._exit(3)
""")
    for n in range(6):
        one.expect("broker", n)
    assert "5 brokers in a row died before they did anything" in " ".join(one.expect("report"))
    one.expect("end")


def test_brokers_that_were_up_are_forked_as_often_as_they_die(bench):
    one = bench("""
def broker(inheritance):
    send_message(inheritance.link, [UP])
    if inheritance.brokers_before < 20:
        os.kill(os.getpid(), signal.SIGKILL)
    tell("last", inheritance.predecessor_end)
    sleep_for_ever()
""")
    lines = [one.line() for _ in range(22)]
    assert lines.count(["report", "up"]) == 21
    assert ["last", "killed", "by", "SIGKILL"] in lines
    one.power_off()


def test_what_a_broker_said_just_before_its_end_still_counts(bench):
    one = bench("""
def broker(inheritance):
    if inheritance.brokers_before == 0:
        for n in range(500):
            send_message(inheritance.link, [HOLD, str(n)], (0,))
        for n in range(0, 500, 2):
            send_message(inheritance.link, [DROP, str(n)])
        os.kill(os.getpid(), signal.SIGKILL)
    tell("held", len(inheritance.held), *sorted(inheritance.held)[:3])
    sleep_for_ever()
""")
    one.expect("held", 250, "1", "101", "103")
    one.power_off()


def test_what_a_broker_said_counts_though_it_never_read_what_it_was_told(bench):
    one = bench("""
def broker(inheritance):
    if inheritance.brokers_before == 0:
        spawn(inheritance, 1, 1)
        inheritance.link.recv(1, socket.MSG_PEEK)
        for n in range(100):
            send_message(inheritance.link, [HOLD, str(n)], (0,))
        os.kill(os.getpid(), signal.SIGKILL)
    tell("held", len(inheritance.held))
    sleep_for_ever()
""")
    one.expect("held", 100)
    one.power_off()


def test_more_descriptors_than_a_select_can_name_are_held_and_let_go(bench):
    one = bench("""
def broker(inheritance):
    if inheritance.brokers_before == 0:
        for n in range(200):
            send_message(inheritance.link, [HOLD, str(n)], (0,) * 10)
        os.kill(os.getpid(), signal.SIGKILL)
    spawn(inheritance, 1, 1)
    tell("held", sum(len(d) for d in inheritance.held.values()))
    listen(inheritance)
""")
    one.expect("held", 2000)
    domain = int(one.expect("started", 1, 1)[0])
    one.power_off()
    assert ended(domain)


def test_a_broker_that_reads_nothing_is_replaced_and_the_next_is_told_how_things_ended(bench):
    one = bench("""
def broker(inheritance):
    if inheritance.brokers_before == 0:
        for n in range(6000):
            spawn(inheritance, n, 1)
        sleep_for_ever()
    tell("second", len(inheritance.ended) > 4096, *inheritance.ended[5, 1])
    sleep_for_ever()

def zygote(link):
    while (received := receive_message(link)) is not None:
        send_message(link, [SPAWNED, *received[0][1:3], "no room"])
""")
    one.expect("second", True, "never", "started:", "no", "room")
    one.power_off()


# ---- who hangs -------------------------------------------------------------------------------------------------------


BEATING = """
import threading, time

def beat_for(pulse, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pulse.beat()
        time.sleep(0.1)
"""


@pytest.mark.parametrize(
    ("hang", "told"),
    [
        ("os.kill(os.getpid(), signal.SIGSTOP)", "killed by SIGKILL: it was stopped"),
        ("time.sleep(1000)", "hung: it slept and did not come back to its loop for 5 s"),
        ("while True: pass", "hung: it used"),
    ],
)
def test_a_broker_whose_pulse_stands_still_is_replaced_and_the_next_is_told_why(bench, hang, told):
    one = bench(BEATING + f"""
def broker(inheritance):
    if inheritance.brokers_before == 0:
        beat_for(inheritance.pulse, 0.3)
        {hang}
    tell("second", inheritance.predecessor_end)
    beat_for(inheritance.pulse, 1000)
""")
    assert " ".join(one.expect("second")).startswith(told)
    one.power_off()


def test_a_successor_that_hangs_before_its_first_beat_is_replaced_too(bench):
    one = bench(BEATING + """
def broker(inheritance):
    if inheritance.brokers_before == 0:
        beat_for(inheritance.pulse, 0.3)
        os._exit(1)
    if inheritance.brokers_before == 1:
        sleep_for_ever()
    tell("third", inheritance.predecessor_end)
    beat_for(inheritance.pulse, 1000)
""")
    one.expect("third", "hung:", "it", "slept")
    one.power_off()


def test_a_zygote_whose_pulse_stands_still_is_replaced_though_nobody_asks_it(bench):
    one = bench(BEATING + """
def broker(inheritance):
    listen(inheritance)

def zygote(link, pulse=None):
    sleep_for_ever()

class Once:
    def __call__(self, link, groups, pulse):
        if not os.path.exists(sys.argv[1] + ".hung"):
            open(sys.argv[1] + ".hung", "w").close()
            beat_for(pulse, 0.3)
            os.kill(os.getpid(), signal.SIGSTOP)
        beat_for(pulse, 1000)

run_machine = Machine
def Machine(run_dir, configuration, broker, zygote, report):
    return run_machine(run_dir, configuration, broker, Once(), report)
""")
    one.expect("zygote", "died", "killed", "by", "SIGKILL:", "it", "was", "stopped")
    one.power_off()


def test_what_a_zygote_forks_has_no_part_in_its_pulse(bench):
    """It would be a word that a domain could write for it."""
    one = bench(BEATING + """
class Forking:
    def __call__(self, link, groups, pulse):
        address = ctypes_address(pulse)
        pid = os.fork()
        if pid == 0:
            mapped = [line for line in open("/proc/self/maps") if int(line.split("-")[0], 16) <= address
                      < int(line.split("-")[1].split()[0], 16)]
            tell("mapped", len(mapped))
            os._exit(0)
        beat_for(pulse, 1000)

def ctypes_address(pulse):
    import ctypes
    return ctypes.addressof(ctypes.c_char.from_buffer(pulse._page))

def broker(inheritance):
    beat_for(inheritance.pulse, 1000)

run_machine = Machine
def Machine(run_dir, configuration, broker, zygote, report):
    return run_machine(run_dir, configuration, broker, Forking(), report)
""")
    one.expect("mapped", 0)
    one.power_off()


# ---- domains ---------------------------------------------------------------------------------------------------------


def test_a_domains_start_and_end_are_reported_and_a_signal_reaches_only_its_incarnation(bench):
    one = bench("""
def broker(inheritance):
    spawn(inheritance, 3, 2)
    _, domid, incarnation, pid = receive_message(inheritance.link)[0]
    tell("started", domid, incarnation, pid)
    send_message(inheritance.link, [SIGNAL, 3, 1, signal.SIGKILL])
    send_message(inheritance.link, [SIGNAL, 4, 2, signal.SIGKILL])
    send_message(inheritance.link, [SIGNAL, 3, 2, signal.SIGUSR1])
    listen(inheritance)
""")
    one.expect("started", 3, 2)
    one.expect("died", 3, 2, "killed", "by", "SIGUSR1")
    one.power_off()


def test_the_next_broker_is_told_who_lives_and_how_the_others_ended(bench):
    one = bench("""
def broker(inheritance):
    if inheritance.brokers_before == 0:
        pids = {}
        for domid in (1, 2):
            spawn(inheritance, domid, 1)
            pids[domid] = receive_message(inheritance.link)[0][3]
        os.kill(pids[1], signal.SIGSEGV)
        os.kill(os.getpid(), signal.SIGKILL)
    while (1, 1) not in inheritance.ended:  # the domain's end may come behind the broker's
        message = receive_message(inheritance.link)[0]
        inheritance.ended[message[1], message[2]] = message[3:]
    tell("second", *[domid for domid, _, _ in inheritance.alive if domid == 2], *inheritance.ended[1, 1])
    sleep_for_ever()
""")
    one.expect("second", 2, "killed", "by", "SIGSEGV")
    one.power_off()


def test_the_next_broker_is_told_of_a_domain_that_is_on_its_way(bench):
    one = bench("""
def broker(inheritance):
    if inheritance.brokers_before == 0:
        spawn(inheritance, 1, 1)
        os.kill(os.getpid(), signal.SIGKILL)
    tell("second", *inheritance.alive[0])
    listen(inheritance)

def zygote(link):
    received = receive_message(link)
    while not os.path.exists(sys.argv[1] + ".go"):
        signal.sigtimedwait({signal.SIGUSR1}, 0.01)
    send_message(link, [SPAWNED, *received[0][1:3], fork_domain()])
    sleep_for_ever()
""")
    one.expect("second", 1, 1, 0)
    one.cue("go")
    pid = int(one.expect("started", 1, 1)[0])
    one.power_off()
    assert ended(pid)


@pytest.mark.parametrize("answered", [True, False], ids=["running", "on its way"])
def test_a_disowned_domain_ends_without_a_word_and_before_the_next_of_its_number_is_forked(bench, answered):
    one = bench("""
def broker(inheritance):
    spawn(inheritance, 1, 1)
    if ANSWERED:
        receive_message(inheritance.link)
    send_message(inheritance.link, [DISOWN, 1, 1])
    send_message(inheritance.link, [DISOWN, 9, 9])
    spawn(inheritance, 1, 1)
    listen(inheritance)

def zygote(link):
    first = None
    while (received := receive_message(link)) is not None:
        pid = fork_domain()
        tell("forked", pid, first is not None and os.path.exists(f"/proc/{first}/exe"))
        first = first or pid
        send_message(link, [SPAWNED, *received[0][1:3], pid])
""".replace("ANSWERED", str(answered)))
    lines = [one.line() for _ in range(5)]
    (stray, _), (second, stray_lived) = [line[1:] for line in lines if line[0] == "forked"]
    assert stray_lived == "False"
    assert [line for line in lines if line[0] != "forked"] == [
        ["disowned", "1", "1"], ["disowned", "9", "9"], ["started", "1", "1", second],
    ]  # fmt: skip
    assert ended(int(stray))
    one.power_off()


def test_powering_off_ends_everything_that_runs(bench):
    one = bench("""
def broker(inheritance):
    for domid in range(5):
        spawn(inheritance, domid, 1)
    tell("broker", os.getpid())
    listen(inheritance)
""")
    pids = [int(one.expect("broker")[0])]
    pids += [int(one.expect("started", domid, 1)[0]) for domid in range(5)]
    one.power_off()
    assert not any(running(pid) for pid in pids)


def test_a_killed_machine_takes_everything_with_it(bench):
    one = bench("""
def broker(inheritance):
    spawn(inheritance, 1, 1)
    tell("broker", os.getpid())
    listen(inheritance)
""")
    pids = [int(one.expect("broker")[0]), int(one.expect("started", 1, 1)[0])]
    one.process.kill()
    assert all(ended(pid) for pid in pids)


def test_a_reboot_ends_everything_and_begins_with_nothing_held(bench):
    one = bench("""
def broker(inheritance):
    tell("broker", len(inheritance.held), len(inheritance.alive), len(inheritance.ended), inheritance.predecessor_end)
    if inheritance.brokers_before == 0:
        spawn(inheritance, 1, 1)
        tell("domain", receive_message(inheritance.link)[0][3])
        send_message(inheritance.link, [HOLD, "x"], (0,))
        send_message(inheritance.link, [STOP, True])
    sleep_for_ever()
""")
    one.expect("broker", 0, 0, 0)
    domain = int(one.expect("domain")[0])
    assert one.expect("broker", 0, 0, 0) == [""]
    assert not running(domain)
    one.power_off()


# ---- the zygote ------------------------------------------------------------------------------------------------------


def test_a_zygote_that_dies_is_forked_again_and_asked_again(bench):
    one = bench("""
def broker(inheritance):
    spawn(inheritance, 1, 1)
    listen(inheritance)

real = zygote
def zygote(link):
    if not os.path.exists(sys.argv[1] + ".died"):
        receive_message(link)
        open(sys.argv[1] + ".died", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    real(link)
""")
    one.expect("zygote", "died", "killed", "by", "SIGKILL")
    one.expect("started", 1, 1)
    one.power_off()


def test_a_zygote_that_hangs_is_replaced_and_the_next_is_asked(bench):
    one = bench("""
def broker(inheritance):
    spawn(inheritance, 1, 1)
    listen(inheritance)

real = zygote
def zygote(link):
    if not os.path.exists(sys.argv[1] + ".hung"):
        open(sys.argv[1] + ".hung", "w").close()
        os.kill(os.getpid(), signal.SIGSTOP)
    real(link)
""")
    one.expect("zygote", "died", "hung:", "it", "did", "not", "answer")
    one.expect("started", 1, 1)
    one.power_off()


def test_a_zygote_that_the_kernel_keeps_waiting_is_not_replaced_and_answers_late(bench):
    one = bench(BEATING + """
def broker(inheritance):
    spawn(inheritance, 1, 1)
    listen(inheritance)

def wait_in_the_kernel():
    fifo = sys.argv[1] + ".fifo"
    os.mkfifo(fifo)
    later = os.fork()
    if later == 0:
        time.sleep(9)
        os.close(os.open(fifo, os.O_WRONLY))
        os._exit(0)
    # Until its child, which opens this first, has become another program: no signal but SIGKILL reaches it.
    opens_it = (os.POSIX_SPAWN_OPEN, 9, fifo, os.O_RDONLY, 0)
    return later, os.posix_spawn("/bin/true", ["true"], {}, file_actions=[opens_it])

class Zygote:
    def __call__(self, link, groups, pulse):
        pulse.beat()
        received = receive_message(link)
        children, beats = wait_in_the_kernel(), pulse.beats
        pulse.beat()
        for child in children:
            os.waitpid(child, 0)
        tell("answers", beats)  # which it had not moved meanwhile
        send_message(link, [SPAWNED, *received[0][1:3], fork_domain()])
        beat_for(pulse, 1000)

run_machine = Machine
def Machine(run_dir, configuration, broker, zygote, report):
    return run_machine(run_dir, configuration, broker, Zygote(), report)
""")
    one.expect("answers", 1)
    one.expect("started", 1, 1)
    one.power_off()


def test_what_a_zygote_forked_and_did_not_live_to_report_is_ended_before_it_is_forked_again(bench):
    one = bench("""
def broker(inheritance):
    spawn(inheritance, 1, 1)
    listen(inheritance)

real = zygote
def zygote(link):
    if not os.path.exists(sys.argv[1] + ".stray"):
        receive_message(link)
        with open(sys.argv[1] + ".stray", "w") as file:
            file.write(str(fork_domain()))
        os.kill(os.getpid(), signal.SIGKILL)
    received = receive_message(link)
    tell("asked", os.path.exists(f"/proc/{open(sys.argv[1] + '.stray').read()}/exe"))
    send_message(link, [SPAWNED, *received[0][1:3], fork_domain()])
    sleep_for_ever()
""")
    told = [one.line()[:2] for _ in range(3)]  # the next zygote, and a broker that may be behind it
    assert sorted(told) == [["asked", "False"], ["started", "1"], ["zygote", "died"]]
    one.power_off()


def test_a_zygote_that_cannot_live_ends_the_machine(bench):
    one = bench("""
def broker(inheritance):
    listen(inheritance)

def zygote(link):
    tell("forked")
    os._exit(1)
""")
    lines = [""]
    while lines[-1] != "end":
        lines.append(" ".join(one.line()))
    assert lines.count("forked") == 6
    assert sum(line.startswith("report 5 zygotes in a row died") for line in lines) == 1
    told = lines.count("zygote died exited with status 1 without a shutdown hypercall")
    assert told <= 5, "of the last ones the broker may not hear before it is ended with the machine"


def test_a_fork_that_the_kernel_refuses_is_the_domains_end(bench):
    one = bench("""
def broker(inheritance):
    spawn(inheritance, 1, 1)
    listen(inheritance)

def zygote(link):
    while (received := receive_message(link)) is not None:
        send_message(link, [SPAWNED, *received[0][1:3], "fork: Resource temporarily unavailable"])
""")
    one.expect("died", 1, 1, "never", "started:", "fork:", "Resource")
    one.power_off()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_each_way_of_asking_a_program_to_end_powers_off(bench, number):
    one = bench("""
def broker(inheritance):
    tell("broker", os.getpid())
    sleep_for_ever()
""")
    broker = int(one.expect("broker")[0])
    one.process.send_signal(number)
    one.expect("end")
    assert one.process.wait(DEADLINE_S) == 0
    assert not running(broker)


# ---- with real domains -----------------------------------------------------------------------------------------------

PARENT = """
import os, signal, subprocess

AUTO_READY = False

def main(guest):
    # a family of three, one of them in a session of its own, one a grandchild
    subprocess.Popen(["sleep", "1000"], start_new_session=True)
    if os.fork() == 0:
        os.fork()
        signal.pause()
    guest.runtime.store.write("data/ready", "1")
    guest.ready()
    guest.run_forever()
"""


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster.build() as made:
        yield made


def processes() -> dict[int, tuple[str, int]]:
    """Name and parent of every process that runs."""
    found = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            before, _, after = (entry / "stat").read_text().rpartition(")")
            if after.split()[0] != "Z":
                found[int(entry.name)] = (before.partition("(")[2], int(after.split()[1]))
    return found


def descendants(pid: int | None) -> set[int]:
    assert pid is not None
    table = processes()
    found = {pid}
    while more := {child for child, (_, parent) in table.items() if parent in found} - found:
        found |= more
    return found - {pid}


def named(name: str, machine: int) -> list[int]:
    """The machine's own children of this name."""
    return [pid for pid, row in processes().items() if row == (name, machine)]


def zygote_of(cluster: Cluster) -> int:
    machine = cluster.info()["machine_pid"]
    wait_for(lambda: len(named("hvd-zygote", machine)) == 1)
    return named("hvd-zygote", machine)[0]


@pytest.mark.parametrize("how", ["kill", "destroy"])
def test_what_a_domain_has_started_is_gone_when_its_death_is_heard(cluster: Cluster, tmp_path: Path, how: str) -> None:
    (tmp_path / "parent.py").write_text(PARENT)
    domain = cluster.create(DomainConfig("parent", str(tmp_path / "parent.py"), on_crash="preserve", sandbox="program"))
    domain.wait_ready(DEADLINE_S)
    wait_for(lambda: len(descendants(domain.pid)) == 3)
    family = descendants(domain.pid)
    if how == "kill":
        domain.kill()
        domain.wait_state(DomainState.PRESERVED, deadline_s=DEADLINE_S)
    else:
        domain.destroy()
    assert family & processes().keys() == set()


def test_domains_are_created_whatever_becomes_of_the_zygote(cluster: Cluster) -> None:
    for n in range(8):
        zygote = zygote_of(cluster)
        os.kill(zygote, signal.SIGKILL)
        domain = cluster.create(DomainConfig(f"domain-{n}", "hvd:idle"))
        domain.wait_ready(DEADLINE_S)
        assert (domain.incarnation, ended(zygote)) == (1, True)
    machine = cluster.info()["machine_pid"]
    assert [len(named(f"hvd:domain-{n}", machine)) for n in range(8)] == [1] * 8


def standbys_of(cluster: Cluster) -> list[int]:
    """The processes that stand by, once there are as many as there should be."""
    machine = cluster.info()["machine_pid"]
    wait_for(lambda: len(named(STANDBY, machine)) == STANDBYS)
    return named(STANDBY, machine)


def test_who_stands_by_becomes_the_next_domain_and_another_takes_its_place(cluster: Cluster) -> None:
    waiting = standbys_of(cluster)
    domain = cluster.create(DomainConfig("guest", "hvd:idle"))
    domain.wait_ready(DEADLINE_S)
    assert domain.pid in waiting
    assert domain.pid not in standbys_of(cluster)


def test_who_stands_by_and_dies_is_missed_by_nobody(cluster: Cluster) -> None:
    waiting = standbys_of(cluster)
    for pid in waiting:
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda pid=pid: not running(pid))  # type: ignore[misc]
    domain = cluster.create(DomainConfig("guest", "hvd:idle"))
    domain.wait_ready(DEADLINE_S)
    assert domain.incarnation == 1
    assert set(waiting) & {domain.pid, *standbys_of(cluster)} == set()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in waiting), "each to be reaped")


def test_who_stands_by_ends_with_its_zygote(cluster: Cluster) -> None:
    waiting = standbys_of(cluster)
    os.kill(zygote_of(cluster), signal.SIGKILL)
    cluster.create(DomainConfig("guest", "hvd:idle")).wait_ready(DEADLINE_S)
    assert set(waiting) & set(standbys_of(cluster)) == set()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in waiting), "each to be reaped")


def test_a_stopped_zygote_is_replaced(cluster: Cluster) -> None:
    zygote = zygote_of(cluster)
    os.kill(zygote, signal.SIGSTOP)
    cluster.create(DomainConfig("guest", "hvd:idle")).wait_ready(DEADLINE_S)
    assert zygote_of(cluster) != zygote


def test_restarts_go_on_while_zygotes_die(cluster: Cluster) -> None:
    domain = cluster.create(DomainConfig("guest", "hvd:idle", restart=RestartPolicy(limit=0)))
    domain.wait_ready(DEADLINE_S)
    for n in range(10):
        zygote = zygote_of(cluster)
        domain.kill()
        os.kill(zygote, signal.SIGKILL)
        domain.wait_ready(DEADLINE_S)
        assert domain.incarnation == n + 2
    machine = cluster.info()["machine_pid"]
    wait_for(lambda: named("hvd:guest", machine) == [domain.pid])  # an end is told before its remains are reaped


def test_many_domains_at_once_do_not_make_the_zygote_look_stuck(cluster: Cluster) -> None:
    zygote = zygote_of(cluster)
    gate = cluster.create(DomainConfig("gate", "hvd:idle", paused=True))
    domains = [cluster.create(DomainConfig(f"many-{n}", "hvd:idle", after=["gate"])) for n in range(30)]
    gate.wait_state(DomainState.PAUSED, deadline_s=DEADLINE_S)
    gate.unpause()
    cluster.wait_ready(DEADLINE_S, domains)
    assert zygote_of(cluster) == zygote
    assert all(domain.incarnation == 1 for domain in domains)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_with_the_machine_everything_ends(tmp_path: Path, number: int) -> None:
    (tmp_path / "parent.py").write_text(PARENT)
    parent = DomainConfig("parent", str(tmp_path / "parent.py"), sandbox="program")
    cluster = Cluster.build([parent], run_dir=tmp_path / "run")
    cluster.start()
    machine = cluster.info()["machine_pid"]
    everything = descendants(machine)
    assert len(everything) >= 5  # broker, zygote, dom0, the domain and some of its family
    os.kill(machine, number)
    for pid in everything:
        assert ended(pid)
    assert ended(machine)
    cluster.down(grace_s=0)
    if number == signal.SIGTERM:
        assert [entry.name for entry in (tmp_path / "run").iterdir()] == ["log"]


# ---- cores -----------------------------------------------------------------------------------------------------------

DUMPING = """
import ctypes, hvd.machine.dumper, hvd.machine.dumps
CORES = os.path.join(sys.argv[2], "cores")
SYS_CLONE, VFORK = {"x86_64": 56, "aarch64": 220}[os.uname().machine], 0x4000 | signal.SIGCHLD
HELD = 7

def zygote(link):
    '''Domain 7 waits for a vfork without an end, which no tracer can stop.'''
    while (received := receive_message(link)) is not None:
        _, domid, incarnation, *_ = received[0]
        pid = fork_sibling(0)
        if pid == 0:
            die_with_parent(MACHINE)
            held = os.getpid()
            if domid == HELD and ctypes.PyDLL(None).syscall(SYS_CLONE, VFORK, 0, 0, 0, 0) == 0:
                die_with_parent(held)
            sleep_for_ever()
        send_message(link, [SPAWNED, domid, incarnation, pid])

def start(inheritance, domid):
    spawn(inheritance, domid, 1)
    pid = receive_message(inheritance.link)[0][3]
    while domid == HELD and not open(f"/proc/{pid}/task/{pid}/children").read():
        continue  # it is not held yet
    return pid

def dump(inheritance, domid):
    send_message(inheritance.link, [DUMP, domid, 1, f"car.{domid}", []])

def tell_end(inheritance):
    '''The next word: who died, how, and of the core.'''
    while (word := receive_message(inheritance.link)[0])[0] == "reaped":
        continue  # told a while after an end, at no certain place among the others
    _, domid, _, how, core = word
    part = os.path.join(CORES, f"car.{domid}.core.part")
    tell("died", domid, how, core.replace(CORES, "CORES"), "with half a core" if os.path.exists(part) else ".")
"""


def dumping(body: str) -> str:
    return f"{DUMPING}\n{body}"


def words(line: str) -> list[str]:
    return [*line.split(" "), "."]


def test_a_process_is_killed_when_its_core_is_written_and_not_dumped_twice(bench):
    one = bench(dumping("""
def broker(inheritance):
    start(inheritance, 1)
    dump(inheritance, 1)
    dump(inheritance, 1)
    tell_end(inheritance)
    dump(inheritance, 1)
    tell("cores", *os.listdir(CORES))
    sleep_for_ever()
"""))
    one.expect(*words("died 1 killed by SIGKILL core: CORES/car.1.core"))
    assert one.line() == ["cores", "car.1.core"]
    one.power_off()


def test_a_dump_that_takes_too_long_is_given_up_and_its_process_killed(bench):
    one = bench(dumping("""
hvd.machine.dumps.PATIENCE_S = 0.2

def broker(inheritance):
    start(inheritance, HELD)
    dump(inheritance, HELD)
    tell_end(inheritance)
    sleep_for_ever()
"""))
    one.expect(*words("died 7 killed by SIGKILL no core: it was not written within 0.2 s"))
    one.power_off()


def test_so_many_are_dumped_at_a_time_and_the_others_wait_and_those_that_are_killed_meanwhile_go(bench):
    one = bench(dumping("""
hvd.machine.dumps.DUMPS_AT_A_TIME = 1

def broker(inheritance):
    for domid in (HELD, 1, 2):
        start(inheritance, domid)
    for domid in (HELD, 1, 2):
        dump(inheritance, domid)
    send_message(inheritance.link, [SIGNAL, 1, 1, signal.SIGKILL])
    tell_end(inheritance)
    send_message(inheritance.link, [SIGNAL, HELD, 1, signal.SIGKILL])
    tell_end(inheritance)
    tell_end(inheritance)
    sleep_for_ever()
"""))
    killed = "killed by SIGKILL no core: it was killed while its core was written"
    one.expect(*words(f"died 1 {killed}"))
    one.expect(*words(f"died 7 {killed}"))
    one.expect(*words("died 2 killed by SIGKILL core: CORES/car.2.core"))
    one.power_off()


def test_a_dumper_that_dies_costs_the_core_and_nothing_else(bench):
    one = bench(dumping("""
def die(*_):
    os.kill(os.getpid(), signal.SIGABRT)

hvd.machine.dumper.dump = die

def broker(inheritance):
    start(inheritance, 1)
    dump(inheritance, 1)
    tell_end(inheritance)
    sleep_for_ever()
"""))
    one.expect(*words("died 1 killed by SIGKILL no core: its dumper died: killed by SIGABRT"))
    one.power_off()


def test_the_next_broker_is_told_of_a_core_that_was_written_meanwhile(bench):
    one = bench(dumping("""
def broker(inheritance):
    if inheritance.brokers_before == 0:
        start(inheritance, 1)
        dump(inheritance, 1)
        receive_message(inheritance.link)
        os._exit(1)
    tell("second", *inheritance.ended[1, 1])
    sleep_for_ever()
"""))
    assert one.expect("second", "killed", "by", "SIGKILL", "core:")[0].endswith("/car.1.core")
    one.power_off()


def test_a_power_off_leaves_no_half_of_a_core_and_no_dumper(bench, tmp_path):
    one = bench(dumping("""
def broker(inheritance):
    start(inheritance, HELD)
    dump(inheritance, HELD)
    while not os.path.exists(os.path.join(CORES, "car.7.core.part")):
        continue
    tell("half")
    sleep_for_ever()
"""))
    one.expect("half")
    one.power_off()
    assert list((tmp_path / "cores").iterdir()) == []


def test_a_core_that_would_be_too_large_is_cut_off_where_its_largest_mapping_is(bench, tmp_path):
    one = bench(dumping("""
hvd.machine.dumper.CORE_BYTES_MAX = 4 << 20
filling = os.urandom(64 << 20)

def broker(inheritance):
    start(inheritance, 1)
    dump(inheritance, 1)
    tell_end(inheritance)
    sleep_for_ever()
"""))
    one.expect(*words("died 1 killed by SIGKILL core: CORES/car.1.core (cut off at 4 MiB)"))
    one.power_off()
    assert (tmp_path / "cores" / "car.1.core").stat().st_blocks * 512 <= 6 << 20


def test_a_file_that_the_host_does_not_let_grow_costs_the_core_and_nothing_else(bench):
    one = bench(dumping("""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

def broker(inheritance):
    start(inheritance, 1)
    dump(inheritance, 1)
    tell_end(inheritance)
    sleep_for_ever()
"""))
    one.expect(*words("died 1 killed by SIGKILL no core: File too large"))
    one.power_off()


def test_of_mappings_without_number_only_the_first_are_in_a_core(bench, tmp_path, read_core):
    one = bench(dumping("""
import hvd.machine.elf_core
hvd.machine.elf_core.SEGMENTS_MAX = 5

def broker(inheritance):
    start(inheritance, 1)
    dump(inheritance, 1)
    tell_end(inheritance)
    sleep_for_ever()
"""))
    one.expect(*words("died 1 killed by SIGKILL core: CORES/car.1.core"))
    one.power_off()
    assert len(read_core(tmp_path / "cores" / "car.1.core").loads) == 5


def test_a_process_that_is_killed_while_its_dumper_waits_for_it_ends_at_once(bench):
    one = bench(dumping("""
def broker(inheritance):
    pid = start(inheritance, HELD)
    dump(inheritance, HELD)
    while "TracerPid:\\t0" in open(f"/proc/{pid}/status").read():
        continue
    os.kill(pid, signal.SIGKILL)
    tell_end(inheritance)
    sleep_for_ever()
"""))
    one.expect(*words("died 7 killed by SIGKILL no core: it ended before its core was written"))
    one.power_off()


def test_a_directory_of_cores_that_is_none_costs_the_core_and_nothing_else(bench, tmp_path):
    (tmp_path / "cores").touch()
    one = bench(dumping("""
def broker(inheritance):
    start(inheritance, 1)
    dump(inheritance, 1)
    tell_end(inheritance)
    sleep_for_ever()
"""))
    one.expect(*words("died 1 killed by SIGKILL no core: File exists"))
    one.power_off()
