"""Cores of real domains: what they hold, how a dump ends when somebody interferes, what a hostile domain can do."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import which
from typing import Any

import pytest

from hvd.machine.dumper import CORES_KEPT_MAX
from hvd.toolstack.cluster import Cluster, Domain, DomainState
from hvd.transport.ids import DOM0
from hvd.transport.messages import DomainConfig, RestartPolicy
from tests.waiting import wait_for

DEADLINE_S = 40.0
NT_SIGINFO, NT_AUXV, SIGINFO_ADDRESS_AT = 0x53494749, 6, 16
PTRACE_SEIZE, WALL = 0x4206, 0x40000000
PROGRAM_COUNTER = {"x86_64": 16 * 8, "aarch64": 32 * 8}[os.uname().machine]
"""Where it stands in the registers."""
SYS_CLONE = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
BAD_ADDRESS = 0xDEAD000
SEGFAULT = f"ctypes.string_at({BAD_ADDRESS})"

BEGIN = """
import ctypes, os, sys, threading
known = ctypes.c_uint64(0x1122334455667788)

def main(guest):
    if guest.incarnation == 1:
        print(f"known {ctypes.addressof(known):x}")
        secret = "-".join(["marker", "of", "life", str(guest.incarnation)])
        act(guest)
    guest.run_forever()

def act(guest):
"""
ACTS = {
    "raise": ("raise ValueError('boom')", "crash: ValueError: boom"),
    "segfault": (SEGFAULT, "killed by SIGSEGV"),
    "abort": ("os.abort()", "killed by SIGABRT"),
    "watchdog": ("guest.runtime.watchdog(1)\n    while True: pass", "watchdog: its watchdog timer ran out"),
    "stack overflow": ("sys.setrecursionlimit(10**8)\n"
                       "    repeat = lambda: max(1, 2, key=lambda _: repeat())\n"
                       "    repeat()", "killed by SIGSEGV"),
    "a thread's fault": (f"thread = threading.Thread(target=ctypes.string_at, args=({BAD_ADDRESS},))\n"
                         "    thread.start()\n"
                         "    thread.join()", "killed by SIGSEGV"),
}  # fmt: skip
HOLD = f"""
import ctypes, os, time
CLONE_VFORK, SIGCHLD = 0x4000, 17
def main(guest):
    '''The first life waits for a vfork that lasts until a file appears: no tracer can stop it meanwhile.'''
    if guest.incarnation == 1:
        guest.ready()
        if ctypes.PyDLL(None).syscall({SYS_CLONE}, CLONE_VFORK | SIGCHLD, 0, 0, 0, 0) == 0:
            while not os.path.exists(guest.args[0]):
                time.sleep(0.01)
            os._exit(0)
    guest.run_forever()
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster.build() as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def no_domain_is_left_for_the_next_test(cluster: Cluster) -> Iterator[None]:
    yield
    for info in cluster.infos().values():
        if info.domid != DOM0:
            cluster.domain(info.name).destroy()


@pytest.fixture
def kernel(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str) -> str:
        path = tmp_path / "kernel.py"
        path.write_text(text)
        return str(path)

    return write


def dumping(kernel: str, name: str = "car", **fields: Any) -> DomainConfig:
    """A domain each end of which is dumped."""
    actions = dict.fromkeys(("on_crash", "on_watchdog", "on_poweroff"), "coredump-restart")
    return DomainConfig(name, kernel, **{**actions, **fields})


def second_life(domain: Domain) -> str:
    """Wait for it; the reason of the first one's death."""
    return domain.wait_until(lambda i: i.incarnation == 2 and i.ready, "to live again", DEADLINE_S).last_death


def known_address(domain: Domain) -> int:
    """Where the last life that printed it has its global. What the dead have printed comes when it is taken."""
    known = re.compile(r"known ([0-9a-f]+)\n")
    wait_for(lambda: known.search(domain.console_log()), domain.console_log)
    return int(known.findall(domain.console_log())[-1], 16)


# ---- what a core holds -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("act", ACTS)
def test_a_core_holds_the_memory_and_the_threads_of_the_life_that_ended(cluster, kernel, read_core, act):
    doing, reason = ACTS[act]
    domain = cluster.create(dumping(kernel(f"{BEGIN}    {doing}\n")))
    path = cluster.run_dir / "cores" / "car.1.core"
    assert second_life(domain) == f"{reason}; core: {path}"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    core = read_core(path)
    assert core.memory(known_address(domain), 8) == bytes.fromhex("8877665544332211")
    assert core.holds(b"marker-of-life-1")
    assert len(core.threads()) >= 2  # its own, and the one that its end is seen by
    assert any(path.endswith("libc.so.6") for _, path in core.files())
    assert len(core.note(NT_AUXV)) % 16 == 0
    assert f"hvd: core: {path}\n" in domain.console_log()


JUMP = f"ctypes.CFUNCTYPE(None)({BAD_ADDRESS})()"
THREADS_JUMP = f"""thread = threading.Thread(target=lambda: {JUMP})
    thread.start()
    thread.join()"""


@pytest.mark.parametrize(("doing", "first"), [(JUMP, True), (THREADS_JUMP, False)], ids=["first", "another"])
def test_the_first_thread_of_a_core_is_the_one_that_met_the_fault_as_it_met_it(
    cluster, kernel, read_core, doing, first
):
    domain = cluster.create(dumping(kernel(f"{BEGIN}    {doing}\n")))
    assert second_life(domain).startswith("killed by SIGSEGV; core: ")
    core = read_core(cluster.run_dir / "cores" / "car.1.core")
    tid, number, registers = core.threads()[0]
    assert (tid == 1, number) == (first, signal.SIGSEGV)
    pc = int.from_bytes(registers[PROGRAM_COUNTER : PROGRAM_COUNTER + 8], "little")
    address = core.note(NT_SIGINFO)[SIGINFO_ADDRESS_AT : SIGINFO_ADDRESS_AT + 8]
    assert (pc, int.from_bytes(address, "little")) == (BAD_ADDRESS, BAD_ADDRESS)


@pytest.mark.skipif(which("gdb") is None, reason="no gdb")
def test_gdb_finds_registers_memory_and_the_signals_cause(cluster, kernel):
    domain = cluster.create(dumping(kernel(f"{BEGIN}    {SEGFAULT}\n")))
    second_life(domain)
    questions = (f"x/1xg {known_address(domain)}", "p $_siginfo._sifields._sigfault.si_addr", "p $pc != 0", "bt 1")
    asked = [word for question in questions for word in ("-ex", question)]
    core = cluster.run_dir / "cores" / "car.1.core"
    run = subprocess.run(["gdb", "-nx", "-batch", *asked, sys.executable, core], capture_output=True, text=True,
                         check=True, env=os.environ | {"DEBUGINFOD_URLS": ""})  # fmt: skip
    assert "Program terminated with signal SIGSEGV" in run.stdout
    assert "0x1122334455667788" in run.stdout
    assert f"$1 = (void *) {BAD_ADDRESS:#x}" in run.stdout
    assert "$2 = 1" in run.stdout


@pytest.mark.skipif(which("readelf") is None, reason="no readelf (binutils)")
def test_readelf_reads_headers_notes_and_segments(cluster, kernel):
    domain = cluster.create(dumping(kernel(f"{BEGIN}    {SEGFAULT}\n")))
    second_life(domain)
    core = cluster.run_dir / "cores" / "car.1.core"
    run = subprocess.run(["readelf", "-W", "-h", "-n", "-l", core], capture_output=True, text=True, check=True)
    for word in ("CORE (Core file)", "NT_PRSTATUS", "NT_PRPSINFO", "NT_AUXV", "NT_FILE", "NT_SIGINFO", "LOAD"):
        assert word in run.stdout


def test_pages_of_zeros_take_no_room(cluster, kernel):
    touch = "zeros = bytearray(64 << 20)\n    zeros[::4096] = bytes(16384)\n    raise ValueError"
    domain = cluster.create(dumping(kernel(f"{BEGIN}    {touch}\n")))
    second_life(domain)
    status = (cluster.run_dir / "cores" / "car.1.core").stat()
    assert status.st_size > 64 << 20
    assert status.st_blocks * 512 < 48 << 20


def test_a_domain_of_whom_no_core_is_wanted_dies_as_ever(cluster, kernel):
    domain = cluster.create(DomainConfig("plain", kernel(f"{BEGIN}    {SEGFAULT}\n")))
    assert second_life(domain) == "killed by SIGSEGV"
    assert cores_of(cluster, "plain") == []


def test_a_sigkill_from_outside_leaves_nothing_to_dump(cluster):
    domain = cluster.create(dumping("hvd:idle"))
    domain.wait_ready()
    domain.kill()
    assert second_life(domain) == "no core: killed by SIGKILL"


def test_a_fatal_signal_from_outside_is_dumped(cluster):
    domain = cluster.create(dumping("hvd:idle"))
    domain.wait_ready()
    domain.kill(signal.SIGQUIT)
    assert second_life(domain).startswith("killed by SIGQUIT; core: ")


def test_a_fault_of_what_a_domain_has_forked_is_not_its_own(cluster, kernel):
    act = f"""
    pid = os.fork()
    if pid == 0:
        {SEGFAULT}
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 128 + 11
    guest.ready()
"""
    domain = cluster.create(dumping(kernel(f"AUTO_READY = False\n{BEGIN}{act}"), sandbox="program"))
    domain.wait_ready(DEADLINE_S)
    assert (domain.incarnation, domain.last_death) == (1, "")


def test_a_domain_whose_fault_nobody_hears_ends_by_itself(cluster, kernel):
    act = f"""
    import socket
    kept = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    os.dup2(kept[0].fileno(), 3)
    {SEGFAULT}
"""
    domain = cluster.create(dumping(kernel(BEGIN + act)))
    assert second_life(domain) == "no core: killed by SIGSEGV"


# ---- a dump that somebody interferes with ----------------------------------------------------------------------------


def hold(cluster: Cluster, kernel: str, go: Path) -> Domain:
    """A domain whose dump has begun and does not go on until that file is there."""
    domain = cluster.create(dumping(kernel, "held", args=[str(go)], sandbox="program"))
    domain.wait_ready()
    children = Path(f"/proc/{domain.pid}/task/{domain.pid}/children")
    while not children.read_text():
        continue  # it is not held yet
    domain.shutdown(grace_s=0)
    domain.wait_state(DomainState.DUMPING, deadline_s=DEADLINE_S)
    return domain


@pytest.fixture
def held(cluster: Cluster, kernel: Callable[[str], str], tmp_path: Path) -> Domain:
    return hold(cluster, kernel(HOLD), tmp_path / "go")


def cores_of(cluster: Cluster, name: str) -> list[str]:
    return sorted(path.name for path in (cluster.run_dir / "cores").glob(f"{name}.*"))


def test_a_core_is_finished_although_the_broker_dies_meanwhile(cluster, held, tmp_path, read_core):
    broker = cluster.info()["broker_pid"]
    os.kill(broker, signal.SIGKILL)
    while cluster.info()["broker_pid"] == broker:
        continue
    assert held.state is DomainState.DUMPING
    (tmp_path / "go").touch()
    path = cluster.run_dir / "cores" / "held.1.core"
    assert second_life(held) == f"poweroff: killed after its grace; core: {path}"
    assert cores_of(cluster, "held") == ["held.1.core"]
    assert len(read_core(path).threads()) >= 2
    path.unlink()


def test_destroy_does_not_wait_for_a_core(cluster, held):
    held.destroy()
    assert cores_of(cluster, "held") == []


def test_whoever_is_killed_while_its_core_is_written_gets_none_and_lives_again(cluster, held):
    held.kill()
    assert second_life(held) == "poweroff: killed after its grace; no core: it was killed while its core was written"
    assert cores_of(cluster, "held") == []


def test_whoever_is_killed_behind_the_machines_back_gets_none_and_lives_again(cluster, held):
    pid = held.pid
    while "TracerPid:\t0" in Path(f"/proc/{pid}/status").read_text():
        continue  # its dumper is on its way
    os.kill(pid, signal.SIGKILL)
    assert second_life(held) == "poweroff: killed after its grace; no core: it ended before its core was written"
    assert cores_of(cluster, "held") == []


def test_a_machine_that_is_told_to_stop_waits_for_no_core_and_leaves_no_half_of_one(kernel, tmp_path):
    with Cluster.build(run_dir=tmp_path / "run") as cluster:
        hold(cluster, kernel(HOLD), tmp_path / "go")
        cluster.down(grace_s=0)
    assert cores_of(cluster, "held") == []


def test_cores_outlive_the_machine_as_logs_do(tmp_path):
    with Cluster.build(run_dir=tmp_path / "run") as cluster:
        domain = cluster.create(dumping("hvd:idle", on_crash="coredump-destroy"))
        domain.wait_ready()
        domain.kill(signal.SIGABRT)
        domain.wait_gone(DEADLINE_S)
    assert (tmp_path / "run" / "cores" / "car.1.core").exists()


def test_a_domain_that_somebody_debugs_has_no_core_and_lives_again(cluster):
    domain = cluster.create(dumping("hvd:idle"))
    domain.wait_ready()
    libc, pid = ctypes.CDLL(None, use_errno=True), domain.pid or 0
    assert libc.ptrace(PTRACE_SEIZE, ctypes.c_long(pid), None, None) == 0, os.strerror(ctypes.get_errno())
    domain.shutdown(grace_s=0)
    while not os.WIFSIGNALED(os.waitpid(pid, WALL)[1]):  # before its tracer has seen its end the machine cannot
        continue
    told = "poweroff: killed after its grace; no core: the host does not let it be traced"
    assert second_life(domain).startswith(told)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small filesystem needs root")
def test_a_full_disk_keeps_nobody_from_living_again(tmp_path):
    cores = tmp_path / "run" / "cores"
    with Cluster.build(run_dir=tmp_path / "run") as cluster:
        cores.mkdir(mode=0o700)
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "hvd-test", cores], check=False)
        if mounted.returncode:
            pytest.skip("this container forbids mounting")
        try:
            domain = cluster.create(dumping("hvd:idle"))
            domain.wait_ready()
            domain.kill(signal.SIGABRT)
            assert second_life(domain) == "killed by SIGABRT; no core: No space left on device"
            assert list(cores.iterdir()) == []
        finally:
            subprocess.run(["umount", cores], check=True)


# ---- hostile domains -------------------------------------------------------------------------------------------------

LIAR = """
import os, struct
def main(guest):
    os.write(3, {notice})
    guest.ready()
    guest.run_forever()
"""
WILD = ("struct.pack('<IIQQ', 11, 1, 2**64 - 8, 1)", "struct.pack('<IIQQ', 11, 4000000000, 0, 2**63)",
        "struct.pack('<IIQQ', 4, 1, id(guest) & ~7, 0x7fffffffffff)")  # fmt: skip


@pytest.mark.parametrize("notice", WILD)
def test_a_domain_that_claims_fault_after_fault_meets_the_restart_limit_and_fills_no_disk(cluster, kernel, notice):
    policy = RestartPolicy(limit=CORES_KEPT_MAX + 1, window_ms=600_000)  # however long a core takes
    domain = cluster.create(dumping(kernel(LIAR.format(notice=notice)), "liar", restart=policy))
    info = domain.wait_state(DomainState.FAILED, deadline_s=DEADLINE_S)
    assert re.search(r"killed by SIG\w+; core: ", info.last_death)
    lives = range(3, CORES_KEPT_MAX + 3)
    assert cores_of(cluster, "liar") == [f"liar.{life}.core" for life in lives]


@pytest.mark.parametrize("notice", ["b'x' * 4000", "struct.pack('<IIQQ', 9, 1, 0, 0)"])
def test_a_domain_that_says_something_else_on_its_upcall_socket_has_crashed(cluster, kernel, notice):
    with cluster.events() as events:
        cluster.create(dumping(kernel(LIAR.format(notice=notice)), "liar", on_crash="coredump-destroy"))
        while (event := events.next(DEADLINE_S)).event != "destroyed":
            continue
    assert event.detail.startswith("crash: what it wrote to its upcall socket is no fault notice; core: ")


def test_what_a_domain_of_whom_no_core_is_wanted_writes_to_its_upcall_socket_is_not_read(cluster, kernel):
    domain = cluster.create(DomainConfig("plain", kernel(f"AUTO_READY = False\n{LIAR.format(notice=WILD[0])}")))
    domain.wait_ready(DEADLINE_S)
    assert (domain.state, domain.incarnation) == (DomainState.RUNNING, 1)
    domain.destroy()
