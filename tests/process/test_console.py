"""Consoles from a guest's `print` to a log and a pty, and back from the pty to its `input`, whoever dies on the way."""

import errno
import os
import re
import select
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import ExitStack

import pytest

from hvd import Cluster
from hvd.toolstack.cluster import DomainState
from hvd.transport.limits import CONSOLE_LOG_BYTES_MAX
from hvd.transport.messages import DomainConfig, StoreRead, StoreWrite

DEADLINE_S = 60.0
DOM0_KILLS = 4  # its restart limit is five in ten seconds

# A guest is ready when domain 0 serves its console; then its body runs.
GUEST = """
import errno, os, signal, struct, sys, threading, time
from hvd.domains import guest as ends
from hvd.domains.guest import DRAIN_S, GuestShutdown
from hvd.transport.hypercalls import HypercallError
AUTO_READY = False
ends.DRAIN_S = 60.0  # whom domain 0 takes too long for leaves its log what may be taken yet, too

def main(guest):
    store = guest.runtime.store
    store.watch("console/tty", lambda _: None)
    guest.runtime.wait_until(lambda: store.read("console/tty") is not None, "a console", 30)
    guest.ready()
    body(guest)

def body(guest):
"""

PATIENT = """
from hvd.domains.console import daemon
from hvd.domains.programs.dom0 import AUTO_READY, main

daemon.LINGER_S = 1000.0
"""


@pytest.fixture
def guest(tmp_path):
    """guest(name, body, ...): the configuration of a domain that runs this code."""

    def configure(name, body, **options):
        path = tmp_path / f"{name}.py"
        path.write_text(GUEST + textwrap.indent(textwrap.dedent(body), "    "))
        return DomainConfig(name, str(path), **options)

    return configure


@pytest.fixture
def boot():
    """boot(domain, ...): a cluster of them, ready."""
    with ExitStack() as stack:
        dom0 = DomainConfig("Domain-0", "hvd:dom0", driver_domain=True, heartbeat_ms=0)  # tests stop it for a while

        def start(*domains):
            own = any(domain.name == dom0.name for domain in domains)
            return stack.enter_context(Cluster.build(list(domains) if own else [dom0, *domains]))

        yield start


@pytest.fixture
def patient(tmp_path):
    """A domain 0 whose terminals outlive their domains for longer than a busy machine keeps a reader from reading."""
    kernel = tmp_path / "dom0.py"
    kernel.write_text(PATIENT)
    return DomainConfig("Domain-0", str(kernel), driver_domain=True, heartbeat_ms=0)


class Terminal:
    """Somebody attached to a domain's pty."""

    def __init__(self, cluster, name):
        node = f"/local/domain/{cluster.domain(name).domid}/console/tty"
        self.path = cluster.call(StoreRead(0, node)).decode()
        self.descriptor = os.open(self.path, os.O_RDWR | os.O_NOCTTY)
        self.seen = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.descriptor)

    def type(self, text):
        os.write(self.descriptor, text.encode())

    def read_until(self, pattern):
        """Everything up to and with the pattern; what follows is for the next call."""
        until = time.monotonic() + DEADLINE_S
        while not (match := re.search(pattern.encode(), self.seen, re.DOTALL)):
            left = until - time.monotonic()
            assert left > 0, f"{pattern!r} did not come; the last was {self.seen[-500:]!r}"
            if select.select([self.descriptor], [], [], left)[0]:
                data = self._read()
                assert data, f"{pattern!r} did not come before the end; the last was {self.seen[-500:]!r}"
                self.seen += data
        before, self.seen = self.seen[: match.end()], self.seen[match.end() :]
        return before.decode().replace("\r\n", "\n")

    def read_to(self, last):
        """Everything, up to where it ends so: what comes is not looked through again and again, as for a pattern."""
        until = time.monotonic() + DEADLINE_S
        while not self.seen.endswith(last):
            left = until - time.monotonic()
            assert left > 0 and select.select([self.descriptor], [], [], left)[0], f"the last was {self.seen[-500:]!r}"
            data = self._read()
            assert data, f"{last!r} did not come before the end; the last was {self.seen[-500:]!r}"
            self.seen += data

    def read_to_end(self):
        """Until the terminal hangs up."""
        while data := self._read():
            self.seen += data
        return self.seen.decode().replace("\r\n", "\n")

    def _read(self):
        try:
            return os.read(self.descriptor, 65_536)
        except OSError as error:
            assert error.errno == errno.EIO
            return b""


def wait_dmesg(cluster, text):
    cluster.wait_until(lambda: any(text in line for line in cluster.dmesg()), f"{text!r} in dmesg", DEADLINE_S)


# ---- out and in ------------------------------------------------------------------------------------------------------


def test_what_a_guest_prints_is_in_its_log_when_it_is_gone(boot, guest):
    lines = 3000
    body = f"""
        for number in range({lines}):
            print("line", number)
        print("to stderr", file=sys.stderr)
        os.write(1, b"straight to the log\\n")
        guest.console.write(b"a return \\r")
        guest.console.write(b"\\nand no end")
        print(", unflushed", end="")
    """
    cluster = boot(guest("printer", body, on_poweroff="preserve"))
    printer = cluster.domain("printer")
    printer.wait_state(DomainState.PRESERVED)
    log = printer.console_log()
    raw = "straight to the log\n"
    assert raw in log
    expected = "".join(f"line {number}\n" for number in range(lines))
    assert log.replace(raw, "") == expected + "to stderr\na return \nand no end, unflushed"


def test_a_guests_children_print_to_the_log_and_leave_its_console_alone(boot, guest):
    cluster = boot(guest("parent", """
        import subprocess
        print("before")
        child = os.fork()
        if child == 0:
            print("from the child")
            assert sys.stdin.readline() == ""
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        subprocess.run(["echo", "from a program"], check=True)
        print("after")
    """, on_poweroff="preserve", sandbox="program"))
    with Terminal(cluster, "parent") as terminal:
        assert terminal.read_until("after\r\n") == "before\nafter\n"
    parent = cluster.domain("parent")
    parent.wait_state(DomainState.PRESERVED)
    assert {"from the child", "from a program", "before", "after"} == set(parent.console_log().splitlines())


def test_a_conversation_over_the_pty(boot, guest):
    cluster = boot(guest("talker", """
        while (name := input("name? ")) != "nobody":
            print(f"hello {name!r}")
    """, on_poweroff="preserve"))
    with Terminal(cluster, "talker") as terminal:
        for name in ("World", "Wörld", ""):
            terminal.read_until(r"name\? ")
            terminal.type(f"{name}\r")
            assert terminal.read_until(r"'\r\n") == f"{name}\nhello {name!r}\n"
        terminal.type("nobody\r")
        assert terminal.read_until(r"nobody\r\n") == "name? nobody\n"
        cluster.domain("talker").destroy()
        assert terminal.read_to_end() == ""


def test_more_is_typed_than_a_ring_holds_while_nobody_reads(boot, guest):
    cluster = boot(guest("sleeper", """
        print("asleep")
        signal.signal(signal.SIGUSR1, lambda *_: woken.append(1))
        woken = []
        guest.log("sleeps")
        while not woken:
            time.sleep(0.01)
        print(sum(len(input()) for _ in range(100)))
    """))
    with Terminal(cluster, "sleeper") as terminal:
        wait_dmesg(cluster, "sleeps")
        for _ in range(100):
            terminal.type("x" * 30 + "\r")
        cluster.domain("sleeper").kill(signal.SIGUSR1)
        assert terminal.read_until(r"\d+\r\n").endswith("3000\n")


def test_a_guests_driver_loop_goes_on_while_it_waits_for_input(boot, guest):
    """`input` waits in the runtime: a watch that fires meanwhile is handled."""
    cluster = boot(guest("waiter", """
        guest.runtime.store.watch("data/news", lambda _: print("news", guest.runtime.store.read_text("data/news")))
        input("waiting ")
    """))
    with Terminal(cluster, "waiter") as terminal:
        terminal.read_until("waiting ")
        cluster.call(StoreWrite(0, f"/local/domain/{cluster.domain('waiter').domid}/data/news", b"arrived"))
        terminal.read_until("news arrived")
        terminal.type("\r")
        terminal.read_to_end()


def test_the_console_command_attaches_and_detaches(boot, guest):
    cluster = boot(guest("talker", """
        while True:
            print(f"hello {input('name? ')!r}")
    """))
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "hvd", "console", "talker"]
    environment = os.environ | {"HVD_RUN_DIR": str(cluster.run_dir)}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    try:
        terminal = Terminal.__new__(Terminal)
        terminal.descriptor, terminal.seen = ours, b""
        terminal.read_until(r"detaches.*name\? ")
        terminal.type("World\r")
        terminal.read_until(r"World\r\nhello 'World'\r\n")
        terminal.type("\x1d")
        assert "detached" in terminal.read_to_end()
        assert process.wait(DEADLINE_S) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    with Terminal(cluster, "talker") as terminal:
        terminal.type("again\r")
        terminal.read_until("hello 'again'")


# ---- deaths ----------------------------------------------------------------------------------------------------------


def test_a_dying_guests_traceback_is_on_its_console_and_in_its_log(boot, guest):
    cluster = boot(guest("failing", """
        input()
        print("x" * 5000)
        raise ValueError("farewell")
    """, on_crash="preserve"))
    failing = cluster.domain("failing")
    with Terminal(cluster, "failing") as terminal:
        terminal.type("\r")
        seen = terminal.read_until("farewell\r\n")
        failing.wait_state(DomainState.PRESERVED)
        failing.destroy()
        seen += terminal.read_to_end()
    for text in (seen, failing.console_log()):
        assert "x" * 5000 + "\nTraceback (most recent call last):\n" in text
        assert text.endswith("ValueError: farewell\n")


def test_the_last_words_can_be_read_for_a_moment_after_the_domain_is_gone(boot, guest, patient):
    cluster = boot(patient, guest("failing", "input(); raise ValueError('farewell')", on_crash="destroy"))
    failing = cluster.domain("failing")
    with Terminal(cluster, "failing") as terminal:
        terminal.type("\r")
        failing.wait_gone()
        cluster.create(guest("next", "input()")).wait_ready()  # domain 0 has dealt with one end and one beginning
        terminal.read_until("ValueError: farewell\r\n")


def test_a_kernel_that_does_not_import_says_so_in_its_log(boot, guest, tmp_path):
    cluster = boot()
    (tmp_path / "broken.py").write_text("import nothing_like_it\n")
    broken = cluster.create(DomainConfig("broken", str(tmp_path / "broken.py"), on_crash="preserve"))
    broken.wait_state(DomainState.PRESERVED)
    assert "No module named 'nothing_like_it'" in broken.console_log()


def test_a_native_crash_is_in_the_log(boot, guest):
    cluster = boot(guest("native", """
        import ctypes
        print("before")
        guest.console.drain(30)
        ctypes.string_at(8)
    """, on_crash="preserve"))
    native = cluster.domain("native")
    native.wait_state(DomainState.PRESERVED)
    log = native.console_log()
    assert log.startswith("before\n")
    assert "Segmentation fault" in log


def test_a_restarted_guest_keeps_its_terminal(boot, guest):
    cluster = boot(guest("again", """
        print("incarnation", guest.incarnation)
        if input() == "crash":
            raise RuntimeError("as told")
        print("bye")
    """))
    with Terminal(cluster, "again") as terminal:
        for incarnation in (1, 2):
            terminal.read_until(f"incarnation {incarnation}\r\n")
            terminal.type("crash\r")
            assert "RuntimeError: as told" in terminal.read_until("as told\r\n")
        terminal.read_until("incarnation 3\r\n")
        cluster.domain("again").kill()
        terminal.read_until("incarnation 4\r\n")
        terminal.type("\r")
        terminal.read_until("bye\r\n")
        terminal.read_to_end()


def test_what_a_killed_guest_left_in_its_ring_comes_before_its_successors_words(boot, guest):
    """Domain 0 is stopped meanwhile, so that nothing is taken from the ring while its owner lives."""
    cluster = boot(guest("again", """
        told = []
        signal.signal(signal.SIGUSR1, lambda *_: told.append(1))
        print("incarnation", guest.incarnation)
        while not told:
            guest.wait()
        print("last words of", guest.incarnation)
        guest.log(f"incarnation {guest.incarnation} has spoken")
        guest.run_forever()
    """))
    again, dom0 = cluster.domain("again"), cluster.domain("dom0")
    with Terminal(cluster, "again") as terminal:
        terminal.read_until("incarnation 1\r\n")
        dom0.kill(signal.SIGSTOP)
        again.kill(signal.SIGUSR1)
        wait_dmesg(cluster, "incarnation 1 has spoken")
        again.kill()
        again.wait_ready()
        dom0.kill(signal.SIGCONT)
        assert terminal.read_until("incarnation 2\r\n") == "last words of 1\nincarnation 2\n"


def test_a_guest_that_dies_while_domain_0_hangs_still_leaves_its_traceback(boot, guest):
    cluster = boot(guest("failing", """
        ends.DRAIN_S = DRAIN_S
        try:
            print("before")
            guest.run_forever()
        except GuestShutdown:
            print("x" * 5000)
            raise RuntimeError("nobody listens")
    """, on_crash="preserve"))
    failing = cluster.domain("failing")
    with Terminal(cluster, "failing") as terminal:
        terminal.read_until("before\r\n")
        cluster.domain("dom0").kill(signal.SIGSTOP)
        failing.kill(signal.SIGTERM)
        failing.wait_state(DomainState.PRESERVED)
        assert failing.info().last_death == "crash: RuntimeError: nobody listens"
        log = failing.console_log()
        assert "x" * 5000 in log
        assert log.endswith("RuntimeError: nobody listens\n")
        cluster.domain("dom0").kill(signal.SIGCONT)
        terminal.read_until("x{1000}")
    failing.destroy()
    with cluster.events(after=0) as events:
        while (events.next(DEADLINE_S)).event != "destroyed":
            continue
    assert failing.console_log() == log, "what it has written down itself is not written down again"


def test_domain_0s_death_loses_nothing_and_new_terminals_are_there_when_it_is_ready(boot, guest):
    cluster = boot(guest("counter", """
        number = 0
        while b"stop" not in guest.console.read(0.001):
            print(f"line {number:06d}")
            number += 1
        print("stopped after", number)
    """))
    counter, dom0 = cluster.domain("counter"), cluster.domain("dom0")
    with Terminal(cluster, "counter") as terminal:
        terminal.read_until("line")
    for _ in range(DOM0_KILLS):
        dom0.kill()
        dom0.wait_ready()
        with Terminal(cluster, "counter") as terminal:
            terminal.read_until("line")
    assert counter.incarnation == 1
    with Terminal(cluster, "counter") as terminal:
        terminal.type("stop")
        terminal.read_until("stopped after")
    counter.wait_gone()
    log = counter.console_log()
    (count,) = (int(number) for number in re.findall(r"^stopped after (\d+)$", log, re.MULTILINE))
    # A death between writing down and consuming repeats at most a ring's worth; what is new is in order and complete.
    numbers = [int(number) for number in re.findall(r"^line (\d{6})$", log, re.MULTILINE)]
    assert list(dict.fromkeys(numbers)) == list(range(count))


@pytest.mark.parametrize("reads", ["all along", "at the end"])
def test_who_reads_a_flood_to_its_end_sees_the_last_words(boot, guest, patient, reads):
    """It has no output of its domain's to wait for when that is gone."""
    cluster = boot(patient, guest("talker", """
        input()
        for number in range(400_000):
            print(f"line {number} of a flood")
        print("last words")
    """))
    with Terminal(cluster, "talker") as terminal:
        terminal.type("\r")
        if reads == "at the end":
            cluster.domain("talker").wait_gone(DEADLINE_S)
        terminal.read_to(b"last words\r\n")


def test_who_attaches_to_a_flood_that_nobody_has_read_sees_the_newest_and_goes_on(boot, guest):
    cluster = boot(guest("talker", """
        number, until = 0, time.monotonic() + 2
        while number < 1000 or time.monotonic() < until:
            print(f"line {number} of a flood")
            number += 1
        print(f"{number} lines")
        guest.console.drain(30)
        guest.log("has printed all")
        print(f"hello {input()!r}")
        guest.run_forever()
    """))
    wait_dmesg(cluster, "has printed all")  # and domain 0 has passed it on
    with Terminal(cluster, "talker") as terminal:
        seen = terminal.read_until("[0-9]+ lines\r\n")
        numbers = [int(number) for number in re.findall(r"line (\d+) of", seen)][1:]  # the first may have lost its head
        assert numbers == list(range(numbers[0], numbers[-1] + 1))
        assert seen.endswith(f"\n{numbers[-1] + 1} lines\n")
        terminal.type("you\r")
        terminal.read_until("hello 'you'")


def test_domain_0_has_a_console_of_its_own(boot, guest):
    lines = 2000
    dom0 = guest("Domain-0", "", on_poweroff="destroy")
    body = f"""
        from hvd.domains.console.daemon import ConsoleDaemon

        AUTO_READY = False

        def main(guest):
            consoles = ConsoleDaemon(guest.runtime, guest.console, guest.log)
            for number in range({lines}):
                print("line", number)
            assert guest.console.drain(10)
            guest.ready()
            guest.run_forever()
    """
    with open(dom0.kernel, "w", encoding="utf-8") as file:
        file.write(textwrap.dedent(body))
    cluster = boot(dom0)
    assert cluster.domain("dom0").console_log() == "".join(f"line {number}\n" for number in range(lines))


# ---- bad neighbours --------------------------------------------------------------------------------------------------


def test_a_flooding_guest_takes_neither_the_others_turn_nor_the_disk(boot, guest):
    cluster = boot(
        guest("flood", """
            while True:
                print("x" * 200)
        """),
        guest("talker", """
            while True:
                print(f"hello {input('name? ')!r}")
        """),
    )
    logs = [cluster.domain("flood").log_path().with_suffix(suffix) for suffix in (".log", ".log.1")]
    until = time.monotonic() + DEADLINE_S
    with Terminal(cluster, "talker") as terminal:
        turns = 0
        while turns < 50 or not logs[1].exists():
            assert time.monotonic() < until
            terminal.type(f"{turns}\r")
            terminal.read_until(f"hello '{turns}'\r\n")
            turns += 1
    assert all(log.stat().st_size <= CONSOLE_LOG_BYTES_MAX for log in logs)
    assert cluster.domain("dom0").incarnation == 1


@pytest.mark.parametrize(("offset", "verb"), [(3084, "produced"), (3072, "consumed")])
def test_a_guest_that_lies_about_its_ring_loses_its_console_and_nothing_else(boot, guest, offset, verb):
    cluster = boot(
        guest("liar", f"""
            print("incarnation", guest.incarnation)
            guest.console.drain(30)
            if guest.incarnation == 1:
                input()
                struct.pack_into("<I", guest.runtime.console_extent.view, {offset}, 0x12345678)
                guest.runtime.console_endpoint.notify()
            guest.run_forever()
        """),
        guest("talker", """
            while True:
                print(f"hello {input('name? ')!r}")
        """),
    )
    liar = cluster.domain("liar")
    with Terminal(cluster, "liar") as theirs, Terminal(cluster, "talker") as ours:
        theirs.read_until("incarnation 1\r\n")
        theirs.type("lie\r")
        if verb == "consumed":
            theirs.type("x" * 5000)  # domain 0 looks at in_cons when it has something for the ring
        fault = f"console back closed by the peer's fault: it says it has {verb}"
        wait_dmesg(cluster, f"console of domain {liar.domid}: {fault}")
        ours.type("World\r")
        ours.read_until("hello 'World'\r\n")
        assert liar.incarnation == 1
        liar.reboot()
        theirs.read_until("incarnation 2\r\n")
    assert cluster.domain("dom0").incarnation == 1


def test_a_guest_can_read_where_its_console_is_and_not_change_it(boot, guest):
    cluster = boot(guest("mover", """
        store = guest.runtime.store
        def refused(action):
            try:
                action()
            except HypercallError as error:
                return errno.errorcode[error.errno]
        for number, action in enumerate((
            lambda: store.write("console/tty", "/dev/tty"),
            lambda: store.write("console/other", ""),
            lambda: store.remove("console/tty"),
            lambda: store.remove("console"),
        )):
            print(number, refused(action))
        print("tty", store.read_text("console/tty"))
        input()
    """))
    with Terminal(cluster, "mover") as terminal:
        seen = terminal.read_until(r"tty /.*\r\n")
        assert seen == "0 EACCES\n1 EACCES\n2 EACCES\n3 EACCES\n" + f"tty {terminal.path}\n"


# ---- leaving nothing behind ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["down", "destroy", "kill everything"])
def test_no_terminal_outlives_its_domain(boot, guest, end):
    cluster = boot(guest("talker", "input()"))
    with Terminal(cluster, "talker") as terminal, Terminal(cluster, "dom0") as dom0s:
        match end:
            case "down":
                cluster.down()
            case "destroy":
                cluster.domain("talker").destroy()
            case "kill everything":
                os.kill(cluster.info()["machine_pid"], signal.SIGKILL)
        terminal.read_to_end()
        if end != "destroy":
            dom0s.read_to_end()
