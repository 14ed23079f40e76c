"""Guests that are programs which know nothing of hvd: how they are started, what they see, how they are stopped.

Run as root, all of it is run once more as nobody.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hvd import Cluster
from hvd.domains.sandbox.limits import PROGRAM_PROCESSES_MAX
from hvd.toolstack.cli.console import terminal_path
from hvd.toolstack.cluster import Domain, DomainState
from hvd.toolstack.cluster.process_times import process_times
from hvd.toolstack.cluster.sandbox_trial import lacking_here
from hvd.toolstack.monitor import snapshot
from hvd.transport.descendants import family
from hvd.transport.limits import CONSOLE_BACKLOG_BYTES_MAX
from hvd.transport.messages import DomainConfig
from hvd.transport.sandbox import LAYERS
from tests.nobody import nobody
from tests.waiting import wait_for

DEADLINE_S = 60.0
BASH = Path("/bin/bash")
PYTHON, SH = "/usr/bin/python3", "/bin/sh"
Start = Callable[..., Domain]

pytestmark = pytest.mark.skipif(not Path(PYTHON).exists(), reason=f"there is no {PYTHON}")


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster.build() as made:
        yield made


@pytest.fixture
def start(cluster: Cluster) -> Start:
    """start(program, argument, ...): a domain of it, which is kept as it ended."""

    def create(program: str, *args: str, **fields: Any) -> Domain:
        kept = {"name": "prog", "on_poweroff": "preserve", "on_crash": "preserve", **fields}
        return cluster.create(DomainConfig(kernel=program, args=list(args), **kept))

    return create


def ended(domain: Domain) -> str:
    """How it ended, once it has."""
    return domain.wait_state(DomainState.PRESERVED, deadline_s=DEADLINE_S).last_death


def printed(domain: Domain) -> str:
    """What a program that ends well has printed."""
    assert ended(domain) == "poweroff", domain.console_log()
    return domain.console_log()


def in_python(start: Start, source: str, **fields: Any) -> Domain:
    return start(PYTHON, "-c", textwrap.dedent(source), **fields)


def states(pid: int) -> dict[int, str]:
    """The state of each process below a domain's first."""
    found = {}
    for member in family(pid)[1:]:
        with contextlib.suppress(OSError):
            found[member] = state(member)
    return found


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


class Console:
    """Somebody attached to a domain's console."""

    def __init__(self, cluster: Cluster, domain: Domain) -> None:
        self._descriptor = os.open(terminal_path(cluster, domain), os.O_RDWR | os.O_NOCTTY)
        self._seen = b""

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def read_until(self, pattern: str) -> str:
        """Everything up to and with the pattern; what follows is for the next call."""
        end = time.monotonic() + DEADLINE_S
        while not (match := re.search(pattern.encode(), self._seen, re.DOTALL)):
            left = end - time.monotonic()
            assert left > 0, f"{pattern!r} did not come; the last was {self._seen[-500:]!r}"
            if select.select([self._descriptor], [], [], left)[0]:
                self._seen += os.read(self._descriptor, 65_536)
        before, self._seen = self._seen[: match.end()], self._seen[match.end() :]
        return before.decode().replace("\r\n", "\n")


# ---- how it ends -----------------------------------------------------------------------------------------------------


def test_a_program_that_ends_well_powers_its_domain_off(start: Start) -> None:
    assert ended(start("/bin/true")) == "poweroff"


def test_an_exit_status_is_the_reason_of_a_crash(start: Start) -> None:
    domain = start(SH, "-c", "echo on its way; exit 7")
    assert ended(domain) == "crash: /bin/sh exited with status 7"
    assert domain.console_log() == "on its way\n/bin/sh exited with status 7\n"


def test_a_signal_is_the_reason_of_a_crash(start: Start) -> None:
    assert ended(start(SH, "-c", "kill -SEGV $$")) == "crash: /bin/sh was killed by SIGSEGV"


def test_a_program_that_cannot_be_run_is_told(start: Start, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("nothing to run")
    (tmp_path / "data").chmod(0o755)
    tmp_path.chmod(0o755)
    path = str(tmp_path / "data")
    assert ended(start(path)) == f"crash: {path} cannot be run: {path}: Exec format error"


def test_a_crashed_program_is_run_again_by_the_policy_of_its_domain(cluster: Cluster, start: Start) -> None:
    domain = start(SH, "-c", "sleep 1000", on_crash="restart")
    domain.wait_ready(DEADLINE_S)
    before = domain.pid
    assert before is not None
    os.kill(family(before)[1], 9)
    domain.wait_until(lambda info: info.incarnation == 2 and info.ready, "to be run again", DEADLINE_S)
    assert domain.last_death == "crash: /bin/sh was killed by SIGKILL"


def test_processes_that_lost_their_parent_are_reaped_by_init(start: Start) -> None:
    domain = start(SH, "-c", "for i in 1 2 3 4 5 6 7 8; do (true &); done; echo made; exec sleep 1000")
    domain.wait_ready(DEADLINE_S)
    wait_for(lambda: "made" in domain.console_log(), "the last of them")
    pid = domain.pid
    assert pid is not None
    wait_for(lambda: len(family(pid)) == 2, "only init and the program to be left")


# ---- what it is started with -----------------------------------------------------------------------------------------


def test_it_starts_with_clean_descriptors_signals_and_a_session_of_its_own(start: Start) -> None:
    source = """
        import os, re
        status = open("/proc/self/status").read()
        signals = {name: int(re.search(rf"{name}:\\t(.*)", status)[1], 16) for name in ("SigBlk", "SigIgn")}
        ignored = signals["SigIgn"] & ~(1 << 12 | 1 << 24 | 3 << 31)  # Python's SIGPIPE, SIGXFSZ; what is libc's own
        print(sorted(os.listdir("/proc/self/fd")), signals["SigBlk"], ignored)
        print(os.getsid(0) == os.getpid() == os.getpgrp() == os.tcgetpgrp(0), os.ttyname(0), os.getcwd())
        print(*sorted(os.environ))
    """  # descriptor 3 is the directory that is listed
    assert printed(in_python(start, source)) == textwrap.dedent("""\
        ['0', '1', '2', '3'] 0 0
        True /dev/pts/0 /
        HOME LANG LC_CTYPE LOGNAME PATH SHELL TERM USER
    """).replace(" LC_CTYPE", "")


def test_arguments_reach_it_as_they_were_given(start: Start) -> None:
    told = printed(start(PYTHON, "-c", "import sys; print(sys.argv[1:])", "a b", "", "ä", "--help", "$HOME"))
    assert told == "['a b', '', 'ä', '--help', '$HOME']\n"


# ---- what it sees ----------------------------------------------------------------------------------------------------


def test_it_sees_the_hosts_programs_and_may_write_nowhere_but_in_what_is_its_own(start: Start) -> None:
    source = """
        import os
        print(*sorted(os.listdir("/")))
        for place in ("/usr/x", "/etc/x", "/x", "/dev/x", "/tmp/x", "/run/x", "/root/x", "/var/lib/x", "/dev/shm/x"):
            try:
                open(place, "w").write("x")
            except OSError:
                print(place, end=" ")
    """
    lines = printed(in_python(start, source)).splitlines()
    assert set(lines[0].split()) >= {"bin", "dev", "etc", "lib", "proc", "root", "run", "tmp", "usr", "var"}
    assert not set(lines[0].split()) & {"home", "boot", "sys", "work", "srv", "opt"}
    assert lines[1].split() == ["/usr/x", "/etc/x", "/x", "/dev/x"]


def test_what_it_writes_is_gone_with_the_incarnation(start: Start) -> None:
    domain = start(SH, "-c", "ls /tmp /root; echo end; touch /tmp/mine /root/mine; sleep 1000", on_reboot="restart")
    domain.wait_ready(DEADLINE_S)
    wait_for(lambda: "end" in domain.console_log(), "its list")
    domain.kill()
    domain.wait_state(DomainState.PRESERVED, deadline_s=DEADLINE_S)
    domain.reboot()
    wait_for(lambda: domain.console_log().count("end") == 2, "its second list")
    assert "mine" not in domain.console_log()


def test_it_sees_no_process_but_its_domains(start: Start) -> None:
    told = printed(in_python(start, "import os; print(sorted(int(p) for p in os.listdir('/proc') if p.isdigit()))"))
    pids = [int(pid) for pid in re.findall(r"\d+", told)]
    assert pids[0] == 1 and len(pids) == 2 and pids[1] < 20


def test_it_is_root_at_home_and_has_a_name_for_itself(start: Start) -> None:
    assert printed(start(SH, "-c", "id -un; id -gn; hostname; cd; pwd")) == "root\nroot\nprog\n/root\n"


def test_paths_are_shown_to_it_and_those_that_it_may_write_are_written(start: Start, tmp_path: Path) -> None:
    (tmp_path / "read").write_text("what is read\n")
    (tmp_path / "written").write_text("")
    (tmp_path / "written").chmod(0o666)
    script = f"cat {tmp_path}/read; echo anew > {tmp_path}/written; echo no > {tmp_path}/read; ls {tmp_path.parent}"
    domain = start(SH, "-c", script, paths=[f"{tmp_path}/read", f"{tmp_path}/written:w"])
    told = printed(domain)
    assert told.startswith("what is read\n") and told.endswith(f"{tmp_path.name}\n")
    assert (tmp_path / "written").read_text() == "anew\n"
    assert (tmp_path / "read").read_text() == "what is read\n"


def test_its_network_has_a_loopback_that_is_up_and_it_may_set_addresses(start: Start) -> None:
    if shutil.which("ip") is None:
        pytest.skip("there is no ip")
    told = printed(start(SH, "-c", "ip -o addr add 10.1.2.3/24 dev lo && ip -o -4 addr show && ip -o link"))
    assert re.findall(r"inet (\S+)", told) == ["127.0.0.1/8", "10.1.2.3/24"]
    assert re.findall(r"^\d+: (\w+)", told.splitlines()[-1]) == ["lo"]


def test_an_unmodified_server_and_its_client_meet_in_a_domain(start: Start) -> None:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl")
    script = """
        echo hello > /tmp/page; cd /tmp
        python3 -m http.server 80 >/dev/null 2>&1 &
        curl -sS --retry 100 --retry-delay 0 --retry-connrefused --retry-max-time 60 http://localhost/page
    """
    assert "hello" in printed(start(SH, "-c", script))


def test_it_may_make_no_namespace_and_mount_nothing(start: Start) -> None:
    script = "unshare -U true; unshare -n true; mount -t tmpfs x /tmp; chroot / unshare -m true; echo end"
    told = printed(start(SH, "-c", script))
    assert told.count("not permitted") >= 3 and "mount: " in told and told.endswith("end\n")


def test_of_the_kernels_network_it_reaches_no_packet_filter(start: Start) -> None:
    source = """
        import socket
        def tried(act):
            try:
                act()
            except OSError as error:
                return error.errno
        inet, inet6 = (socket.socket(family, socket.SOCK_RAW, 255) for family in (socket.AF_INET, socket.AF_INET6))
        print(tried(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)))  # netfilter
        print(tried(lambda: inet.setsockopt(0, 64, bytes(100))), tried(lambda: inet6.setsockopt(41, 64, bytes(100))))
        print(tried(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)),
              tried(lambda: inet.setsockopt(0, 1, 16)), tried(lambda: inet6.setsockopt(41, 67, 16)))
    """
    assert printed(in_python(start, source)) == "1\n1 1\nNone None None\n"


@pytest.mark.parametrize("off", [[layer] for layer in LAYERS] + [list(LAYERS)], ids="-".join)
def test_it_runs_without_a_layer_and_without_all(start: Start, off: list[str]) -> None:
    domain = start(SH, "-c", "echo here; tty >/dev/null && exit 9", sandbox_off=off)
    assert ended(domain) == "crash: /bin/sh exited with status 9"
    assert domain.console_log().startswith("here\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="nobody's programs are not the host's root")
def test_one_that_is_the_hosts_root_changes_no_setting_of_the_host(start: Start) -> None:
    source = """
        import os
        open("/root/mine", "w").close()
        try:
            os.open("/proc/sys/kernel/core_pattern", os.O_WRONLY)
        except OSError as error:
            print(error.strerror)
    """
    assert printed(in_python(start, source, sandbox_off=["uid", "landlock"])) == "Read-only file system\n"


# ---- how it is stopped -----------------------------------------------------------------------------------------------


def test_a_shutdown_is_a_sigterm_that_it_may_clean_up_at(start: Start) -> None:
    domain = start(SH, "-c", 'trap "echo cleaned; exit 3" TERM; echo up; while :; do sleep 0.05; done')
    domain.wait_ready(DEADLINE_S)
    wait_for(lambda: "up" in domain.console_log(), "its trap")
    domain.shutdown(grace_s=DEADLINE_S)
    assert ended(domain) == "poweroff"
    assert domain.console_log().endswith("cleaned\n")


def test_a_shell_which_ignores_sigterm_is_hung_up(cluster: Cluster, start: Start) -> None:
    domain = start("/bin/bash", "-i") if BASH.exists() else start(SH, "-i")
    domain.wait_ready(DEADLINE_S)
    with Console(cluster, domain) as console:
        console.read_until(r"[$#] $")
    domain.shutdown(grace_s=DEADLINE_S)
    assert ended(domain) == "poweroff"


def test_one_that_is_hung_up_and_misses_it_is_again(start: Start) -> None:
    """As a shell does that is about to read a line: it has looked whether there was a signal, and waits then."""
    until_hung_up = "while [ -z $ended ]; do sleep 0.01; done"
    script = f'trap "" TERM; trap ended=yes HUP; echo up; {until_hung_up}; ended=; {until_hung_up}'
    domain = start(SH, "-c", script)
    domain.wait_ready(DEADLINE_S)
    wait_for(lambda: "up" in domain.console_log(), "its trap")
    domain.shutdown(grace_s=DEADLINE_S)
    assert ended(domain) == "poweroff"


def test_one_that_does_not_stop_is_killed_when_its_grace_is_over(start: Start) -> None:
    domain = start(SH, "-c", 'trap "" TERM HUP; echo up; while :; do sleep 0.05; done')
    domain.wait_ready(DEADLINE_S)
    wait_for(lambda: "up" in domain.console_log(), "its trap")
    domain.shutdown(grace_s=0.2)
    assert ended(domain) == "poweroff: killed after its grace"


def test_a_reboot_runs_it_again(start: Start) -> None:
    domain = start(SH, "-c", "echo up; exec sleep 1000")
    wait_for(lambda: "up" in domain.console_log(), "its first line")
    domain.reboot()
    domain.wait_ready(DEADLINE_S)
    assert (domain.incarnation, domain.ready) == (2, True)
    wait_for(lambda: domain.console_log().count("up") == 2, "its second line")


@pytest.mark.parametrize("how", ["destroy", "kill"])
def test_nothing_of_it_is_left_when_its_domain_ends(start: Start, how: str) -> None:
    script = "setsid sleep 1000 & (setsid sleep 1000 &) ; sleep 1000 & echo up; wait"
    domain = start(SH, "-c", script, on_crash="destroy")
    domain.wait_ready(DEADLINE_S)
    wait_for(lambda: "up" in domain.console_log() and len(family(domain.pid)) == 5, "all of its processes")
    members = family(domain.pid)
    getattr(domain, how)()
    domain.wait_gone(DEADLINE_S)
    left = [pid for pid in members if Path(f"/proc/{pid}").exists()]
    assert left in ([], members[:1]), "none of them runs on, and the first, which ends last, is about to be reaped"
    wait_for(lambda: not [pid for pid in members if Path(f"/proc/{pid}").exists()], lambda: f"{left} to be reaped")


# ---- while others die -----------------------------------------------------------------------------------------------


def test_a_brokers_death_is_nothing_to_a_program_that_runs_or_is_paused(cluster: Cluster, start: Start) -> None:
    domain = start(SH, "-c", "while :; do echo tick; sleep 0.05; done")
    domain.wait_ready(DEADLINE_S)

    def ticks() -> int:
        return domain.console_log().count("tick")

    def broker_dies() -> None:
        with cluster.events() as events:
            os.kill(cluster.info()["broker_pid"], 9)
            assert events.next_until(time.monotonic() + DEADLINE_S) is not None

    wait_for(lambda: ticks() > 0, "it to tick")
    broker_dies()
    before = ticks()
    wait_for(lambda: ticks() > before + 3, "it to go on")
    domain.pause()
    pid = domain.pid
    assert pid is not None
    wait_for(lambda: all_stopped(pid), "it to stop")
    broker_dies()
    assert all_stopped(pid) and domain.state is DomainState.PAUSED
    domain.unpause()
    before = ticks()
    wait_for(lambda: ticks() > before + 3, "it to go on")
    assert domain.incarnation == 1


def test_a_spare_of_a_program_runs_it_when_it_takes_over(start: Start) -> None:
    domain = start(SH, "-c", "echo begun; exec sleep 1000", spare=True, on_crash="restart")
    domain.wait_until(lambda info: info.ready and info.spare == "stands by", "a spare to stand by", DEADLINE_S)
    wait_for(lambda: "begun" in domain.console_log(), "its first line")
    assert domain.console_log().count("begun") == 1
    domain.kill()
    domain.wait_until(lambda info: info.incarnation > 1 and info.ready, "its spare to take over", DEADLINE_S)
    wait_for(lambda: domain.console_log().count("begun") == 2, "its second line")


# ---- pause -----------------------------------------------------------------------------------------------------------


def all_stopped(pid: int) -> bool:
    """What is read while they run may be anything: only two looks that agree say something.

    And only while the first is stopped: it reaps nobody then, so that whoever ran away from one look is in the next.
    """
    if state(pid) != "T":
        return False
    found = states(pid)
    return bool(found) and set(found.values()) <= {"T", "Z", "D"} and states(pid) == found  # D: in vfork, for its child


def test_a_pause_stops_every_process_and_its_end_lets_them_go_on(start: Start) -> None:
    domain = start(SH, "-c", "setsid sh -c 'while :; do :; done' & while :; do sleep 0.01; done")
    domain.wait_ready(DEADLINE_S)
    pid = domain.pid
    assert pid is not None
    wait_for(lambda: len(family(pid)) >= 3, "its processes")
    domain.pause()
    wait_for(lambda: all_stopped(pid), "all to stop")
    used = process_times(pid).seconds
    time.sleep(0.2)
    assert all_stopped(pid) and process_times(pid).seconds == used
    domain.unpause()
    wait_for(lambda: process_times(pid).seconds > used + 0.05 and "T" not in states(pid).values(), "them to go on")


def test_a_storm_of_forks_does_not_escape_a_pause(start: Start) -> None:
    storm = """
        import os, time
        for _ in range(8):
            if os.fork() == 0:
                while True:  # it runs away into a child of its own
                    time.sleep(0.002)
                    try:
                        if os.fork():
                            os._exit(0)
                    except BlockingIOError:
                        pass
        time.sleep(1000)
    """
    domain = in_python(start, storm, memory=1024)
    domain.wait_ready(DEADLINE_S)
    pid = domain.pid
    assert pid is not None
    for _ in range(5):
        wait_for(lambda: len(family(pid)) > 5, "the storm")
        domain.pause()
        wait_for(lambda: all_stopped(pid), "the storm to stand still")
        before = set(family(pid))
        time.sleep(0.05)
        assert set(family(pid)) == before
        domain.unpause()
        wait_for(lambda: "T" not in states(pid).values(), "it to go on")
    domain.destroy()
    domain.wait_gone(DEADLINE_S)


def armed(wake: str) -> str:
    """A program that has its kernel wake it with SIGCONT again and again, so far as that is let."""
    return f"""
        import ctypes, fcntl, os, signal, socket
        signal.signal(signal.SIGCONT, lambda *_: None)
        try:
            {wake}
        except OSError:
            pass
        print("armed", flush=True)
        while True:
            pass
    """


BY_TIMER = """libc = ctypes.CDLL(None)
            event, timer = (ctypes.c_int * 16)(0, 0, signal.SIGCONT), ctypes.c_void_p()
            if libc.timer_create(1, event, ctypes.byref(timer)) == 0:
                libc.timer_settime(timer, 0, (ctypes.c_long * 4)(0, 20_000_000, 0, 20_000_000), None)"""
BY_SOCKET = """server = socket.create_server(("127.0.0.1", 0))
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
            client = socket.create_connection(server.getsockname())
            ours = server.accept()[0]
            fcntl.fcntl(ours, fcntl.F_SETOWN, os.getpid())
            fcntl.fcntl(ours, fcntl.F_SETFL, os.O_ASYNC)
            client.setsockopt(socket.SOL_SOCKET, 47, 20_000)  # SO_MAX_PACING_RATE: the kernel sends on
            client.setblocking(False)
            fcntl.fcntl(ours, fcntl.F_SETSIG, signal.SIGCONT)
            while True:
                client.send(bytes(1000))"""


@pytest.mark.skipif("seccomp" in lacking_here(), reason="no seccomp here")
@pytest.mark.parametrize("wake", [BY_TIMER, BY_SOCKET], ids=["timer", "socket"])
def test_no_signal_of_the_kernels_ends_a_pause(start: Start, wake: str) -> None:
    domain = in_python(start, armed(wake))
    domain.wait_ready(DEADLINE_S)
    wait_for(lambda: "armed" in domain.console_log(), "it to be armed")
    pid = domain.pid
    assert pid is not None
    domain.pause()
    wait_for(lambda: all_stopped(pid), "it to stop")
    used = process_times(pid).seconds
    time.sleep(0.5)
    assert all_stopped(pid) and process_times(pid).seconds == used


# ---- what is counted -------------------------------------------------------------------------------------------------


def test_time_and_memory_of_all_its_processes_are_the_domains(cluster: Cluster, start: Start) -> None:
    source = """
        import os, time
        kept = bytearray(60 << 20)
        if os.fork() == 0:
            end = time.process_time() + 0.5
            while time.process_time() < end:
                pass
            print("used", flush=True)
        time.sleep(1000)
    """
    domain = in_python(start, source, memory=256)
    domain.wait_ready(DEADLINE_S)
    wait_for(lambda: "used" in domain.console_log(), "half a second of CPU time")
    (process,) = [process for info, process in snapshot.take(cluster).domains if info.name == "prog"]
    assert process.times.seconds >= 0.45 and process.cpu_ns >= 0.45e9
    assert process.resident_kib > 60 * 1024


@pytest.mark.skipif("limits" in lacking_here(), reason="no limits here")
def test_it_has_no_more_processes_than_a_program_may_have(start: Start) -> None:
    source = f"""
        import os, time
        made = 0
        try:
            for made in range({PROGRAM_PROCESSES_MAX} + 10):
                if os.fork() == 0:
                    time.sleep(1000)
        except BlockingIOError:
            print("made", made)
    """
    told = printed(in_python(start, source, memory=4096))
    assert 0 < int(told.split()[1]) < PROGRAM_PROCESSES_MAX


def test_it_has_no_more_memory_than_its_domain(start: Start) -> None:
    domain = in_python(start, "bytearray(2 << 30)", memory=64)
    assert ended(domain) == "crash: /usr/bin/python3 exited with status 1"
    assert "MemoryError" in domain.console_log()


def test_what_is_its_own_is_no_larger_than_its_memory(start: Start) -> None:
    source = """
        import itertools
        try:
            with open("/tmp/large", "wb") as large:
                while True:
                    large.write(bytes(1 << 20))
        except OSError as error:
            print(error.strerror)
        open("/tmp/large", "w").close()
        try:
            for number in itertools.count():
                open(f"/run/{number}", "w").close()
        except OSError as error:
            print(error.strerror, number > 60000)
    """
    assert printed(in_python(start, source, memory=32)) == "No space left on device\nNo space left on device True\n"


# ---- its console -----------------------------------------------------------------------------------------------------


@pytest.fixture
def shell(cluster: Cluster, start: Start) -> Iterator[Console]:
    """An interactive shell's console, after its first prompt."""
    domain = start(SH, "-i")
    domain.wait_ready(DEADLINE_S)
    with Console(cluster, domain) as console:
        console.type("PS1='now''> '\n")  # not as it is printed: what is echoed may come in parts
        console.read_until("now> $")
        yield console


def test_what_is_typed_is_run_and_echoed(shell: Console) -> None:
    shell.type("echo $((6 * 7))\n")
    assert shell.read_until("now> ") == "echo $((6 * 7))\n42\nnow> "


def test_control_c_reaches_the_foreground_job_and_not_the_shell(shell: Console) -> None:
    shell.type("sh -c 'echo begun; exec sleep 1000'\n")
    shell.read_until("\nbegun\r\n")  # before that the shell may still be in the foreground
    shell.type("jobs; echo typed ahead\n\x03")
    shell.read_until(r"\^C.*now> ")
    shell.type("echo still here\n")
    shell.read_until(r"\nstill here\r\n")


def test_jobs_are_stopped_and_brought_back(shell: Console) -> None:
    shell.type("sh -c 'echo begun; read x; echo got $x'\n")
    shell.read_until("\nbegun\r\n")
    shell.type("\x1a")
    shell.read_until("Stopped.*now> ")
    shell.type("fg\n")
    shell.read_until("read x.*\n")
    shell.type("line\n")
    shell.read_until("got line.*now> ")


def test_a_terminal_is_the_domains_console_by_every_name(shell: Console) -> None:
    shell.type("tty; echo by name > /dev/console; echo $TERM; stty size\n")
    shell.read_until("/dev/pts/0\r\nby name\r\nvt220\r\n0 0\r\nnow> ")


def test_a_flood_of_output_arrives_whole_and_in_order(cluster: Cluster, start: Start) -> None:
    """In parts that may wait for domain 0: what is more is lost when it takes nothing for a second."""
    part = CONSOLE_BACKLOG_BYTES_MAX // len("59999\r\n\r\n")
    source = f"""
        for i in range(60000):
            print(i)
            if i % {part} == {part - 1}:
                input()
    """
    domain = in_python(start, source)
    domain.wait_ready(DEADLINE_S)
    with Console(cluster, domain) as console:
        for last in range(part - 1, 60000, part):
            wait_for(lambda last=last: f"\n{last}\n" in domain.console_log(), f"line {last}")  # type: ignore[misc]
            console.type("\n")
    told = printed(domain)
    assert "bytes lost" not in told
    assert told.split() == [str(i) for i in range(60000)]


def test_a_program_that_ends_takes_nothing_of_its_last_words_along(start: Start) -> None:
    for words in range(4):
        told = printed(start(SH, "-c", f"printf %3000s | tr ' ' {words}; echo end", name=f"last{words}"))
        assert told == f"{str(words) * 3000}end\n"


def test_a_domain_whose_console_nobody_serves_goes_on(cluster: Cluster, start: Start) -> None:
    script = "echo up; sleep 0.2; i=0; while [ $i -lt 3000 ]; do echo line $i of a long text; i=$((i + 1)); done"
    domain = start(SH, "-c", script)
    domain.wait_ready(DEADLINE_S)
    wait_for(lambda: "up" in domain.console_log(), "its first line")
    with cluster.fault("hang", "Domain-0", for_s=4):
        assert ended(domain) == "poweroff"


# ---- without root ----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="everything else here is as nobody already")
@pytest.mark.timeout(600)
def test_all_of_it_holds_without_root() -> None:
    with nobody() as somebody:  # what it leaves behind this session looks for, which may see everybody's processes
        if somebody is None:
            pytest.skip("no interpreter of this version that other users may execute")
        options = ["-q", "-x", "--noconftest", "-o", f"cache_dir={somebody.home}/cache"]
        done = subprocess.run(
            [*somebody.python, "-P", "-m", "pytest", *options, __file__], check=False,
            cwd=Path(__file__).parents[2], env=somebody.environment, text=True, capture_output=True, timeout=580,
        )  # fmt: skip
    sys.stdout.write(done.stdout)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
