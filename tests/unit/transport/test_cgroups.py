"""Control groups: where they may be made, that a process goes into one and is held there, that none is left."""

import contextlib
import errno
import os
import signal
import traceback
from pathlib import Path

import pytest

from hvd.transport import cgroups
from hvd.transport.cgroups import (
    PREFIX,
    DomainGroups,
    Hierarchy,
    MachineGroups,
    bound_disks,
    bound_memory,
    bound_new_disks,
    lift_disks,
    remove_abandoned,
)
from hvd.transport.run_dir import start_time
from hvd.transport.sandbox import RESERVED_KIB


def group(path, *below):
    path.mkdir(parents=True, exist_ok=True)
    (path / "cgroup.procs").touch()
    for name in below:
        (path / name).mkdir()


@pytest.fixture
def ours(monkeypatch, tmp_path):
    """A hierarchy of version 1 that is a directory."""
    group(tmp_path / "cpu")
    root = str(tmp_path / "cpu")
    monkeypatch.setattr(cgroups, "_ours", lambda: [Hierarchy(1, ("cpu",), root, root)])
    return tmp_path / "cpu"


def test_groups_of_machines_that_are_gone_are_removed_and_no_others(ours):
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    born = start_time(pid)  # nobody has reaped it: it does not live all the same
    gone = ours / f"{PREFIX}{pid}.{born}"
    later = ours / f"{PREFIX}{os.getpid()}.{(start_time(os.getpid()) or 0) - 1}"
    alive = ours / f"{PREFIX}{os.getpid()}.{start_time(os.getpid())}"
    others = [ours / "hvd-audio", ours / "system.slice"]
    for path in (gone, later, alive, *others):
        path.mkdir()
    (gone / "4711").mkdir()
    assert remove_abandoned()
    os.waitpid(pid, 0)
    assert {path.name for path in ours.iterdir() if path.is_dir()} == {path.name for path in (alive, *others)}
    assert not remove_abandoned()


def test_where_we_may_make_no_group_there_is_none(ours):
    (ours / "cgroup.procs").unlink()
    assert MachineGroups().make() == []
    assert list(ours.iterdir()) == []


def test_in_version_2_groups_lie_below_the_topmost_that_we_may_change(tmp_path):
    delegated = tmp_path / "user.slice" / "user@1000.service"
    inner = delegated / "app.slice" / "hvd.scope"
    for path in (delegated, delegated / "app.slice", inner):
        group(path)
    hierarchy = Hierarchy(2, ("memory",), str(tmp_path), str(inner))
    assert cgroups._base(hierarchy) == str(delegated)
    (inner / "cgroup.procs").unlink()
    (delegated / "cgroup.procs").unlink()
    (delegated / "app.slice" / "cgroup.procs").unlink()
    assert cgroups._base(hierarchy) is None


@pytest.mark.parametrize("foreign", [0, 1, 2])
def test_no_group_of_somebody_elses_is_left_for_one_above_it_that_we_may_change(tmp_path, foreign):
    ours, between = tmp_path / "ours", tmp_path / "ours" / "bounded"
    inner = between / "hvd.scope"
    way = [inner, between, ours]
    for path in (tmp_path, *way):
        group(path)
    (way[foreign] / "cgroup.procs").unlink()
    hierarchy = Hierarchy(2, ("memory",), str(tmp_path), str(inner))
    assert cgroups._base(hierarchy) == (str(way[foreign - 1]) if foreign else None)


@pytest.fixture
def machine():
    made = MachineGroups()
    yield made
    made.remove()
    assert not list(Path("/sys/fs/cgroup").glob(f"*/{PREFIX}{os.getpid()}.*"))


def test_domains_that_share_a_group_weigh_together_what_one_process_on_each_cpu_does(machine):
    files = [Path(group.directory, "cpu.shares") for group in machine.make() if group.shares_cpus]
    if not files:
        pytest.skip("no CPU time to share out: that takes root, and version 1")
    assert files[0].read_text().strip() == str(1024 * (os.cpu_count() or 1))


def test_a_process_enters_its_groups_and_is_bound_there(machine):
    groups = machine.make()
    if not groups:
        pytest.skip("no group that we may change: that takes root, or a delegated one")
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            for each in groups:
                each.enter(os.getpid())
                each.bound(os.getpid(), {"memory": 64 << 20, "pids": 5})
            os.write(write, b"bound")
            signal.pause()
        finally:
            os._exit(1)
    try:
        assert os.read(read, 5) == b"bound"
        own = Path(f"/proc/{pid}/cgroup").read_text()
        for each in groups:
            inside = Path(each.directory) / str(pid)
            assert f"/{inside.parent.name}/{pid}\n" in own
            for name, value in (("memory.limit_in_bytes", 64 << 20), ("memory.max", 64 << 20), ("pids.max", 5)):
                if (inside / name).exists():
                    assert int((inside / name).read_text()) == value
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(read)
        os.close(write)
    for each in groups:
        each.remove(pid)
        assert not (Path(each.directory) / str(pid)).exists()
        each.remove(pid)


def test_a_domain_that_runs_is_held_to_another_bound(tmp_path: Path):
    ours, other = DomainGroups(2, ("memory",), str(tmp_path)), DomainGroups(2, ("pids",), str(tmp_path))
    (tmp_path / "77").mkdir()
    (tmp_path / "77" / "memory.max").write_text("max")
    assert bound_memory([other, ours], 77, 40 << 10) == ""
    assert int((tmp_path / "77" / "memory.max").read_text()) == ((40 << 10) + RESERVED_KIB) * 1024
    assert bound_memory([ours], 78, 40 << 10) == "", "it is in no group"


def test_what_the_host_refuses_of_a_bound_is_said(tmp_path: Path):
    (tmp_path / "77" / "memory.max").mkdir(parents=True)
    said = bound_memory([DomainGroups(2, ("memory",), str(tmp_path))], 77, 1)
    assert said == "its control group: Is a directory"


READ, WRITE = "blkio.throttle.read_bps_device", "blkio.throttle.write_bps_device"
MAX = "io.max"


@pytest.fixture
def disks(monkeypatch, tmp_path):
    """Two, and one that is hidden behind another."""
    for name, numbers in (("vda", "254:0\n"), ("loop0", "7:0\n"), ("nvme0c0n1", "")):
        (tmp_path / "block" / name).mkdir(parents=True)
        if numbers:
            (tmp_path / "block" / name / "dev").write_text(numbers)
    monkeypatch.setattr(cgroups, "DISKS", str(tmp_path / "block"))
    return {"254:0", "7:0"}


@pytest.fixture
def written(monkeypatch):
    """(file, text) of whatever is written into groups: the kernel's files keep a line for each disk, ours do not."""
    lines = []
    monkeypatch.setattr(cgroups, "write_file", lambda path, text: lines.append((Path(path).name, text)))
    return lines


@pytest.mark.parametrize(("version", "controllers", "expected"), [
    (1, ("blkio",), [(READ, "{} 70000"), (WRITE, "{} 70000")]),
    (2, ("memory", "io"), [(MAX, "{} rbps=70000 wbps=70000")]),
])  # fmt: skip
def test_a_domain_is_held_to_so_much_of_each_disk(disks, written, version, controllers, expected):
    bound_disks([DomainGroups(1, ("pids",), "/nowhere"), DomainGroups(version, controllers, "/there")], 77, 70_000)
    assert sorted(written) == sorted((name, text.format(disk)) for name, text in expected for disk in disks)


@pytest.mark.parametrize(("version", "controller", "expected"), [
    (1, "blkio", [(READ, "254:0 0"), (WRITE, "254:0 0")]),
    (2, "io", [(MAX, "254:0 rbps=max wbps=max")]),
])  # fmt: skip
def test_the_bounds_of_who_was_killed_are_lifted_and_who_has_none_is_left_alone(
    tmp_path, written, version, controller, expected
):
    for pid, text in ((77, "254:0 rbps=1\n"), (78, "")):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / expected[0][0]).write_text(text)
    for pid in (77, 78, 79):
        lift_disks([DomainGroups(version, (controller,), str(tmp_path))], pid)
    assert written == expected


@pytest.mark.parametrize("group", [
    (1, "blkio", "254:0 70000\n", [(READ, "7:0 70000"), (WRITE, "7:0 70000")]),
    (2, "io", "254:0 rbps=1 wbps=1 riops=max wiops=max\n", [(MAX, "7:0 rbps=70000 wbps=70000")]),
])  # fmt: skip
def test_a_disk_that_came_later_is_bound_and_no_bound_is_set_again(disks, tmp_path, written, group):
    version, controller, known, expected = group
    (tmp_path / "77").mkdir()
    (tmp_path / "77" / expected[0][0]).write_text(known)
    groups = [DomainGroups(1, ("memory",), "/nowhere"), DomainGroups(version, (controller,), str(tmp_path))]
    assert bound_new_disks(groups, 77, 70_000) == ""
    assert written == expected


def test_a_later_bound_that_is_refused_is_told_unless_disk_or_group_has_gone(disks, tmp_path, monkeypatch):
    groups = [DomainGroups(1, ("blkio",), str(tmp_path))]
    assert bound_new_disks(groups, 77, 70_000) == "", "it is in no group"
    for number, said in ((errno.ENODEV, ""), (errno.EPERM, "Operation not permitted")):

        def refuse(path, text, number=number):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(cgroups, "write_file", refuse)
        assert bound_new_disks(groups, 77, 70_000) == said


def test_a_bound_on_disks_that_cannot_be_had_is_told(disks, tmp_path, monkeypatch):
    with pytest.raises(OSError, match="io_bps takes the controller blkio or io, and no group of ours has it"):
        bound_disks([DomainGroups(1, ("memory",), str(tmp_path))], 77, 70_000)
    with pytest.raises(OSError, match=r"io_bps of disk \d+:0: No such file or directory"):
        bound_disks([DomainGroups(1, ("blkio",), str(tmp_path))], 77, 70_000)
    monkeypatch.setattr(cgroups, "DISKS", str(tmp_path / "unmounted"))
    with pytest.raises(OSError, match=r"io_bps: .*unmounted: No such file or directory"):
        bound_disks([DomainGroups(1, ("blkio",), str(tmp_path))], 77, 70_000)


def test_a_disk_that_goes_while_bounds_are_set_needs_none(disks, monkeypatch):
    def gone(path, text):
        raise OSError(errno.ENODEV, "No such device")

    monkeypatch.setattr(cgroups, "write_file", gone)
    bound_disks([DomainGroups(1, ("blkio",), "/there")], 77, 70_000)


def test_a_group_in_which_something_runs_stays(ours):
    made = MachineGroups().make()
    inside = Path(made[0].directory) / "77" / "held"
    inside.mkdir(parents=True)
    made[0].remove(77)
    assert inside.exists()


UNIFIED = next((Path(line.split()[1]) for line in Path("/proc/mounts").read_text().splitlines()
                if line.split()[2] == "cgroup2"), None)  # fmt: skip
CONTROLLERS = (UNIFIED / "cgroup.controllers").read_text().split() if UNIFIED is not None else []
THERE = [each for each in CONTROLLERS if each != cgroups.CPU]
"""Of those that groups of ours may have in version 2."""
NOBODY = 65534


@contextlib.contextmanager
def handed_down(controllers):
    """By the topmost group of version 2, for a while."""
    assert UNIFIED is not None
    control, before = UNIFIED / cgroups.SUBTREE, (UNIFIED / cgroups.SUBTREE).read_text().split()
    control.write_text(" ".join(f"+{each}" for each in controllers))
    yield UNIFIED
    if added := [each for each in controllers if each not in before]:
        control.write_text(" ".join(f"-{each}" for each in added))


@contextlib.contextmanager
def delegated_to_nobody(root):
    """(a group of version 2 that is his, the group in it that he is in)."""
    top = root / f"delegated-{os.getpid()}"
    inner = top / "inner"
    for path in (top, inner):
        path.mkdir()
        for owned in (path, path / cgroups.PROCESSES, path / cgroups.SUBTREE):
            os.chown(owned, NOBODY, NOBODY)
    yield top, inner
    inner.rmdir()
    top.rmdir()


@pytest.fixture(params=[True, False], ids=["handed-down", "not-handed-down"])
def delegated(request):
    """(a group of version 2 that is somebody else's, the group in it that he is in, a controller that it has).

    Whether the one that he is in has it too; systemd sees to that, whoever makes groups by hand need not.
    """
    with handed_down(THERE[:1]) as root, delegated_to_nobody(root) as (top, inner):
        if request.param:
            (top / cgroups.SUBTREE).write_text(f"+{THERE[0]}")
        yield top, inner, THERE[0]


@pytest.mark.skipif(os.geteuid() != 0 or not THERE, reason="it takes root and a controller in version 2")
def test_a_user_to_whom_a_group_is_delegated_makes_his_below_it(delegated, monkeypatch):
    """As systemd-run --user --scope -p Delegate=yes does it: he is in a group below the topmost that is his."""
    top, inner, controller = delegated
    monkeypatch.setattr(cgroups, "CONTROLLERS", (controller,))
    assert as_nobody_in(inner, lambda: _makes_enters_and_removes(top))
    assert list(top.rglob("hvd-*")) == []


def as_nobody_in(group, act):
    """Whether this holds in a process of his in this group."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            (group / cgroups.PROCESSES).write_text("0")
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            status = 0 if act() else 2
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _makes_enters_and_removes(top):
    machine = MachineGroups()
    (group,) = machine.make()
    pid = os.fork()
    if pid == 0:
        group.enter(os.getpid())
        here = Path("/proc/self/cgroup").read_text()
        os._exit(0 if f"{Path(group.directory).name}/{os.getpid()}" in here else 1)
    entered = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    group.remove(pid)
    machine.remove()
    return entered and Path(group.directory).parent == top


BOUNDING = [each for each in ("memory", "pids", "io") if each in THERE]
"""Version 2 has a controller only while version 1 has it not mounted anywhere on the host, whatever namespace asks."""
MEMORY, PIDS, BPS = 64 << 20, 5, 1 << 20


@pytest.mark.skipif(os.geteuid() != 0, reason="it takes root to delegate a group")
@pytest.mark.skipif("memory" not in BOUNDING or "pids" not in BOUNDING, reason=(
    f"version 2 has only {' '.join(THERE) or 'no controllers'}, or is not mounted: the others are version 1's"
))  # fmt: skip
def test_what_a_user_bounds_in_a_group_that_is_delegated_to_him_is_held_to_it():
    """By the kernel: processes, memory, and what is written of disks where the host has one."""
    with handed_down(BOUNDING) as root, delegated_to_nobody(root) as (top, inner):
        assert as_nobody_in(inner, _bounds_hold)
        assert list(top.rglob("hvd-*")) == []


def _bounds_hold():
    machine = MachineGroups()
    (group,) = machine.make()
    assert set(group.controllers) == set(BOUNDING), group.controllers
    assert _ends_in(group, _fork_too_often) == 0
    assert _ends_in(group, lambda: bytearray(2 * MEMORY)) == -signal.SIGKILL
    machine.remove()
    return True


def _ends_in(group, act):
    """How a process of a group of its own ends, in which it is bounded."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            group.enter(os.getpid())
            group.bound(os.getpid(), {"memory": MEMORY, "pids": PIDS})
            if group.bounds_disks:
                bound_disks([group], os.getpid(), BPS)
                assert set(group.bounded_disks(os.getpid())) == set(cgroups._disks())
            act()
            status = 0
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            os._exit(status)
    how = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    group.remove(pid)
    assert not Path(group.directory, str(pid)).exists()
    return how


def _fork_too_often():
    made = []
    try:
        with pytest.raises(BlockingIOError):
            for _ in range(PIDS):
                made.append(os.fork())
                if made[-1] == 0:
                    signal.pause()
        assert len(made) == PIDS - 1
    finally:
        for pid in made:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
