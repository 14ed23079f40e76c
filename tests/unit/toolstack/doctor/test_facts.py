"""Control groups as /proc tells of them, on machines of every kind, and the facts of this one."""

import os
import resource
from pathlib import Path

import pytest

from hvd.toolstack.doctor.facts import cgroups_of, look

V1 = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:5 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
"""
V1_OWN = "4:memory:/user\n3:cpu,cpuacct:/\n1:name=systemd:/init.scope\n0::/\n"
V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V2_OWN = "0::/user.slice/user-1000.slice/hvd.scope\n"
CONTAINER = "30 23 0:26 /docker/4f1d /sys/fs/cgroup ro - cgroup2 cgroup rw\n"


@pytest.mark.parametrize(
    ("own", "mounts", "controllers", "writable", "found"),
    [
        (
            V1_OWN,
            V1,
            {},
            {"/sys/fs/cgroup/memory/user"},
            {"v1 cpu": False, "v1 cpuacct": False, "v1 memory": True},
        ),
        (
            V2_OWN,
            V2,
            {"/sys/fs/cgroup/user.slice/user-1000.slice/hvd.scope/cgroup.controllers": "cpu memory pids"},
            {"/sys/fs/cgroup/user.slice/user-1000.slice/hvd.scope"},
            {"v2 cpu": True, "v2 memory": True, "v2 pids": True},
        ),
        (
            V2_OWN,
            V2,
            {"/sys/fs/cgroup/user.slice/user-1000.slice/cgroup.controllers": "memory pids"},
            {"/sys/fs/cgroup/user.slice/user-1000.slice", "/sys/fs/cgroup/user.slice/user-1000.slice/hvd.scope"},
            {"v2 memory": True, "v2 pids": True},
        ),
        (V2_OWN, V2, {}, set(), {"v2": False}),
        (
            V1_OWN,
            V1 + V2.replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified"),
            {"/sys/fs/cgroup/unified/cgroup.controllers": "hugetlb"},
            {"/sys/fs/cgroup/unified"},
            {"v1 cpu": False, "v1 cpuacct": False, "v1 memory": False, "v2 hugetlb": True},
        ),
        (
            "0::/docker/4f1d/inner\n",
            CONTAINER,
            {"/sys/fs/cgroup/inner/cgroup.controllers": "cpu"},
            {"/sys/fs/cgroup/inner"},
            {"v2 cpu": True},
        ),
        ("0::/\n", CONTAINER, {"/sys/fs/cgroup/cgroup.controllers": "cpu"}, {"/sys/fs/cgroup"}, {"v2 cpu": True}),
        ("0::/\n", "", {}, set(), {}),
        ("", "", {}, set(), {}),
    ],
)
def test_controllers_are_found_where_this_process_may_use_them(
    own: str, mounts: str, controllers: dict[str, str], writable: set[str], found: dict[str, bool]
) -> None:
    assert cgroups_of(own, mounts, lambda path: controllers.get(path, ""), writable.__contains__) == found


def test_the_facts_of_this_machine_are_its_own(tmp_path: Path) -> None:
    facts = look(str(tmp_path / "cluster"))
    assert facts.release == os.uname().release
    assert facts.cpus == len(os.sched_getaffinity(0))
    assert facts.descriptors == resource.getrlimit(resource.RLIMIT_NOFILE)
    assert facts.clock_ns > 0
    assert facts.answers["run_dir"] == 0


@pytest.mark.parametrize(
    ("environment", "run_dir"),
    [
        ({"HVD_RUN_DIR": "/a", "XDG_RUNTIME_DIR": "/b"}, "/a"),
        ({"XDG_RUNTIME_DIR": "/b"}, f"/b/hvd-{os.geteuid()}"),
        ({"TMPDIR": "/no/such/place"}, None),
    ],
)
def test_the_cluster_that_is_asked_about_is_the_one_that_would_start(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], run_dir: str | None
) -> None:
    for name in ("HVD_RUN_DIR", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = look().run_dir
    assert found == run_dir if run_dir else found.endswith(f"/hvd-{os.geteuid()}")
