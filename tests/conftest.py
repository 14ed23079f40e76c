"""Owns what every test session promises: it ends, and nothing that it started outlives it.

Kernel objects (memfds, ptys, sockets without a path) live no longer than the processes that hold them, so two questions
cover them: does a process of this session still run, and does the worker itself hold more descriptors than before? A
third asks for names in /dev/shm, a fourth for control groups. A process belongs to the session if it descends from the
worker, or if its environment holds the session's token, which children carry whatever they rename themselves to, forks
of the zygote and orphans too. An orphan whose environment cannot be read is suspect if its name starts with
"hvd"; it is named, but not killed.

Every worker looks after its last test at what its own tests left; the controller looks again when all workers are gone.
"""

import faulthandler
import gc
import os
import re
import select
import signal
import time
import uuid
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

TOKEN_NAME = "HVD_TEST_SESSION"
GRACE_S = 5.0  # a process that was told to go may still be on its way out
CLOSING_S = 2.0  # for a thread that was told to close a descriptor
STDERR_FD = 2
EXIT_DEADLINE_S = 60  # an interpreter that has nothing left to do but exit

PROC = Path("/proc")
SHARED_MEMORY = Path("/dev/shm")
CONTROL_GROUPS = Path("/sys/fs/cgroup")
MACHINES_GROUP = re.compile(r"hvd-\d+\.\d+")
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever started the tests by nohup: what they start hears it
REPORTS = pytest.StashKey[list[str]]()
BASELINE = pytest.StashKey["Baseline"]()


@dataclass(frozen=True)
class Process:
    """One row of /proc; `born` tells a process from a later one with the same pid."""

    pid: int
    parent: int
    born: int
    name: str
    command: str
    token: str | None
    """What its environment says: "" where it says nothing, None where it cannot be read."""


@dataclass(frozen=True)
class Baseline:
    """What there was before the first test."""

    token: str
    processes: frozenset[tuple[int, int]]
    shared_memory: frozenset[str]
    control_groups: frozenset[str]
    descriptors: dict[int, str]


def read_process(directory: Path) -> Process | None:
    """None where the process went away meanwhile."""
    try:
        stat = (directory / "stat").read_text()
        command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    name, fields = stat[stat.index("(") + 1 : stat.rindex(")")], stat[stat.rindex(")") + 2 :].split()
    return Process(int(directory.name), int(fields[1]), int(fields[19]), name, command, read_token(directory))


def read_token(directory: Path) -> str | None:
    try:
        environment = (directory / "environ").read_bytes().split(b"\0")
    except PermissionError:
        return None
    except (FileNotFoundError, ProcessLookupError):
        return ""  # a zombie, or gone
    prefix = f"{TOKEN_NAME}=".encode()
    return next((entry[len(prefix) :].decode() for entry in environment if entry.startswith(prefix)), "")


def processes() -> dict[int, Process]:
    rows = (read_process(entry) for entry in PROC.iterdir() if entry.name.isdigit())
    return {row.pid: row for row in rows if row is not None}


def line_of_ancestors(pid: int, table: dict[int, Process]) -> list[int]:
    line: list[int] = []
    while pid in table and pid not in line:
        line.append(pid)
        pid = table[pid].parent
    return line


def is_ours(process: Process, token: str, table: dict[int, Process]) -> bool:
    if process.token:
        return process.token == token or process.token.startswith(token + ".")
    return os.getpid() in line_of_ancestors(process.pid, table)


def is_suspect(process: Process, table: dict[int, Process]) -> bool:
    """An orphan of unknown origin with our name. If an ancestor can be read, it is that one's session's business."""
    if any(table[pid].token is not None for pid in line_of_ancestors(process.pid, table)):
        return False
    if not process.command:
        return False  # a zombie, which holds nothing; its new parent will reap it
    return process.name.startswith("hvd") or Path(process.command.partition(" ")[0]).name.startswith("hvd")


def leftover_processes(baseline: Baseline, *, suspects: bool) -> dict[Process, bool]:
    """Each with whether it is certainly ours."""
    table = processes()
    innocent = set(line_of_ancestors(os.getpid(), table))
    left = {}
    for process in table.values():
        if process.pid in innocent or (process.pid, process.born) in baseline.processes:
            continue
        if is_ours(process, baseline.token, table):
            left[process] = True
        elif suspects and is_suspect(process, table):
            left[process] = False
    return left


def wait_for_exit(pid: int, deadline: float) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        select.select([pidfd], [], [], max(0.0, deadline - time.monotonic()))
    finally:
        os.close(pidfd)


def kill(process: Process) -> None:
    """So that one careless test does not fail the next session too."""
    try:
        os.kill(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def open_descriptors() -> dict[int, str]:
    links = {}
    for entry in (PROC / "self" / "fd").iterdir():
        try:
            links[int(entry.name)] = str(entry.readlink())
        except FileNotFoundError:
            continue  # the one that listed the directory
    return links


def descriptors_gained(before: dict[int, str]) -> list[str]:
    """What is open beyond `before`; a descriptor that was merely replaced is no leak."""
    gc.collect()
    after = open_descriptors()
    gained = [f"descriptor {fd}: {link}" for fd, link in after.items() if before.get(fd) != link]
    return gained if len(after) > len(before) else []


def descriptors_left(before: dict[int, str]) -> list[str]:
    """The same when there was time to close them: libzmq closes its own on a thread of its own, a moment later."""
    until = time.monotonic() + CLOSING_S
    while (gained := descriptors_gained(before)) and time.monotonic() < until:
        time.sleep(0.01)
    return gained


def processes_left(baseline: Baseline, *, suspects: bool) -> list[str]:
    deadline = time.monotonic() + GRACE_S
    for process in leftover_processes(baseline, suspects=suspects):
        wait_for_exit(process.pid, deadline)
    lines = []
    for process, certain in leftover_processes(baseline, suspects=suspects).items():
        lines.append(f"process {process.pid} ({process.name}), child of {process.parent}: {process.command}")
        if certain:
            kill(process)
    return lines


def shared_memory_left(baseline: Baseline) -> list[str]:
    names = {entry.name for entry in SHARED_MEMORY.glob("*hvd*")} - baseline.shared_memory
    return [f"shared memory: {SHARED_MEMORY / name}" for name in sorted(names)]


def machines_control_groups() -> frozenset[str]:
    """Each machine's own, in every hierarchy, whether it lives or not."""
    below = ((directory, name) for directory, names, _ in os.walk(CONTROL_GROUPS) for name in names)
    return frozenset(f"{directory}/{name}" for directory, name in below if MACHINES_GROUP.fullmatch(name))


def control_groups_left(baseline: Baseline) -> list[str]:
    """Of machines that are gone: what one that was killed leaves, until somebody cleans up behind it.

    None of those that there were before: a session that was cut off may have left them, or one beside this leaves them.
    """
    names = machines_control_groups() - baseline.control_groups
    return [f"control group: {name}" for name in sorted(names) if not _is_of_a_living_machine(name)]


def _is_of_a_living_machine(group: str) -> bool:
    pid, _, born = group.rpartition("hvd-")[2].partition(".")
    return _is_alive(int(pid), born)


def _is_alive(pid: int, born: str) -> bool:
    process = read_process(PROC / str(pid))
    return process is not None and str(process.born) == born


def kernel_objects_left(baseline: Baseline) -> list[str]:
    gained = descriptors_gained(baseline.descriptors)
    return [line for line in gained if any(kind in line for kind in ("memfd:", "ptmx", "/pts/"))]


def pytest_configure(config: pytest.Config) -> None:
    settings.register_profile("hvd", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("hvd")
    os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(config.rootpath / "build" / "hypothesis"))
    token = os.environ.setdefault(TOKEN_NAME, uuid.uuid4().hex)
    if (worker := worker_name(config)) is not None:
        token = os.environ[TOKEN_NAME] = f"{token}.{worker}"
    config.stash[REPORTS] = []
    config.stash[BASELINE] = Baseline(
        token=token,
        processes=frozenset((process.pid, process.born) for process in processes().values()),
        shared_memory=frozenset(entry.name for entry in SHARED_MEMORY.iterdir()),
        control_groups=machines_control_groups(),
        descriptors=open_descriptors(),
    )


def pytest_collection_finish(session: pytest.Session) -> None:
    """What was collected lives as long as the session: to look for garbage among it took each test 0.1 s and more."""
    gc.collect()
    gc.freeze()


def worker_name(config: pytest.Config) -> str | None:
    """None in the controller, and where pytest runs without xdist."""
    worker_input: dict[str, Any] | None = getattr(config, "workerinput", None)
    return None if worker_input is None else worker_input["workerid"]


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, object, object]:
    """Runs inside the wrappers of the terminal and of xdist: after the workers have gone, before the summary."""
    worker = worker_name(session.config)
    if worker is None:  # a worker has to wait for the others first, and is ended by the controller
        faulthandler.dump_traceback_later(EXIT_DEADLINE_S, exit=True, file=STDERR_FD)
    result = yield
    baseline, reports = session.config.stash[BASELINE], session.config.stash[REPORTS]
    if session.testsfailed == 0:  # a failed test's traceback holds what it had open
        reports.extend(kernel_objects_left(baseline))
    reports.extend(processes_left(baseline, suspects=worker is None))
    if worker is not None:
        session.config.workeroutput["left"] = [f"{worker}: {line}" for line in reports]  # type: ignore[attr-defined]
        return result
    reports.extend(shared_memory_left(baseline))
    reports.extend(control_groups_left(baseline))
    if reports and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    return result


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """The controller learns what a worker found; for one that crashed, the controller's own look must do."""
    output: dict[str, Any] = getattr(node, "workeroutput", None) or {}
    node.config.stash[REPORTS].extend(output.get("left", []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if reports := config.stash[REPORTS]:
        terminalreporter.section("left behind by this session", sep="=", red=True, bold=True)
        for report in reports:
            terminalreporter.line(report)


@pytest.fixture(autouse=True)
def descriptors_are_closed(request: pytest.FixtureRequest) -> Generator[None, None, None]:
    """A test in tests/process that passed has closed what it opened; one that failed keeps it in its traceback."""
    if request.config.rootpath / "tests" / "process" not in request.path.parents:
        yield
        return
    failed, before = request.session.testsfailed, open_descriptors()
    yield
    if request.session.testsfailed == failed and (gained := descriptors_left(before)):
        pytest.fail("left open:\n" + "\n".join(gained), pytrace=False)
