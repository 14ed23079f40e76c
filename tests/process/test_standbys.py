"""Who stands by has let go of the host's files, is missed by nobody, and is as shut in as one forked for its domain."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from hvd.domains.birth_pages import LEARNT_FROM, SHARED_BY
from hvd.domains.standby import NAME
from hvd.domains.zygote import STANDBYS
from hvd.toolstack.cluster import Cluster
from hvd.toolstack.cluster.sandbox_trial import lacking_here
from hvd.transport.cgroups import BOUNDS
from hvd.transport.messages import DomainConfig
from hvd.transport.run_dir import DOMAINS
from hvd.transport.sandbox import RESERVED_KIB
from tests.waiting import wait_for

has_root = pytest.mark.skipif("root" in lacking_here(), reason="domains have no root of their own here")


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster.build() as made:
        yield made


def children(cluster: Cluster, name: str) -> list[int]:
    machine, found = psutil.Process(cluster.info()["machine_pid"]), []
    for child in machine.children():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has gone meanwhile
            if Path(f"/proc/{child.pid}/comm").read_text().strip() == name:
                found.append(child.pid)
    return found


def standbys(cluster: Cluster) -> list[int]:
    """Those that have done what they can, and sleep."""
    found = list[int]()

    def stand_by() -> bool:
        found[:] = children(cluster, NAME)
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, psutil.NoSuchProcess):
            return len(found) == STANDBYS and all(has_moved(pid) and is_asleep(pid) for pid in found)
        return False

    wait_for(stand_by, lambda: f"{STANDBYS} that stand by: {found}")
    return found


def zygote(cluster: Cluster) -> int:
    """What it has just forked is called so too, until it stands by."""
    found = list[int]()

    def is_alone() -> bool:
        found[:] = children(cluster, "hvd-zygote")
        return len(found) == 1

    wait_for(is_alone, lambda: f"one zygote: {found}")
    return found[0]


def mounts(pid: int | None) -> set[tuple[str, str, str]]:
    """(where, options, kind) of what a process has mounted."""
    lines = [line.split() for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
    return {(fields[4], fields[5], fields[fields.index("-") + 1]) for fields in lines}


def has_moved(pid: int) -> bool:
    """Whether its root is its own, and /proc nowhere."""
    return [kind for where, _, kind in mounts(pid) if where in ("/", "/proc")] == ["tmpfs"]


def is_asleep(pid: int) -> bool:
    return psutil.Process(pid).status() == psutil.STATUS_SLEEPING


def stopped(pid: int) -> bool:
    return psutil.Process(pid).status() == psutil.STATUS_STOPPED


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def own_kib(pid: int) -> int:
    """What it has written to, and shares with nobody."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.findall(r"^Private_Dirty: +(\d+)", rollup, re.MULTILINE)[0])


def is_namespace(descriptor: Path) -> bool:
    return str(descriptor.readlink()).startswith(("mnt:", "user:"))


def descriptors(pid: int) -> list[str]:
    """What kinds of things it has open; where a file is says less than its name, once its mount is let go of."""
    links = [each.readlink().name for each in Path(f"/proc/{pid}/fd").iterdir()]
    return sorted(re.sub(r"\[\d+\]", "", link) for link in links)


def privileges(pid: int) -> list[str]:
    """What /proc/PID/status says of its users, groups, capabilities and filters; its uid is its own."""
    fields = ("Groups", "Cap", "NoNewPrivs", "Seccomp")
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    users = [len(set(line.split()[1:])) for line in lines if line.startswith(("Uid", "Gid"))]
    return [line for line in lines if line.startswith(fields)] + [str(users)]


def limits_of(pid: int) -> dict[str, str]:
    """By name; of data more for who had more as he was bounded, and so not alike."""
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()[1:]
    return {line[:26].strip(): line[26:].strip() for line in lines if not line.startswith("Max data")}


def bounds(pid: int) -> dict[str, str]:
    """Of its control groups: of memory and processes."""
    found = {}
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for name in set(BOUNDS.values()):
            for top in (Path("/sys/fs/cgroup", controllers), Path("/sys/fs/cgroup")):
                if (file := top / path.strip("/") / name).exists():
                    found[name] = file.read_text().strip()
    return found


def idle(cluster: Cluster, name: str, off: tuple[str, ...] = (), **fields: Any) -> int:
    domain = cluster.create(DomainConfig(name, "hvd:idle", sandbox_off=list(off), **fields))
    domain.wait_ready()
    assert domain.pid is not None
    return domain.pid


@has_root
def test_one_that_stood_by_and_one_that_was_forked_have_the_same_mounted_and_no_way_to_more(cluster: Cluster) -> None:
    waiting = standbys(cluster)
    stood_by, forked = idle(cluster, "stood-by"), idle(cluster, "forked", off=("ipc",))
    assert (stood_by in waiting, forked in waiting) == (True, False)
    assert mounts(stood_by) == mounts(forked)
    assert all("ro" in options.split(",") for where, options, _ in mounts(stood_by) if not where.startswith("/dev"))
    if os.geteuid() == 0:  # nobody else sees what is opaque
        for pid in (stood_by, forked):
            assert not [each for each in Path(f"/proc/{pid}/fd").iterdir() if each.is_dir() or is_namespace(each)]


def test_one_that_stood_by_and_one_that_was_forked_may_do_the_same_and_have_the_same_open(
    cluster: Cluster, tmp_path: Path
) -> None:
    waiting = standbys(cluster)
    fields: dict[str, Any] = {"memory": 48, "paths": [f"{tmp_path}/made:w", f"{tmp_path}", f"{tmp_path}/absent"]}
    stood_by, forked = idle(cluster, "stood-by", **fields), idle(cluster, "forked", ("ipc",), **fields)
    assert (stood_by in waiting, forked in waiting) == (True, False)
    assert privileges(stood_by) == privileges(forked)
    assert bounds(stood_by) == bounds(forked)
    limits = [limits_of(pid) for pid in (stood_by, forked)]
    assert limits[0] == limits[1]
    if os.geteuid() == 0:
        assert descriptors(stood_by) == descriptors(forked)
    reports = {row["name"]: row["lacking"] for row in cluster.sandboxes()}
    assert reports["stood-by"] == {name: why for name, why in reports["forked"].items() if name != "ipc"}


def test_one_that_stood_by_is_bound_as_its_config_says_and_so_is_what_it_is_started_again_as(cluster: Cluster) -> None:
    standbys(cluster)
    domain = cluster.create(DomainConfig("small", "hvd:idle", memory=40, on_crash="restart"))
    domain.wait_ready()
    first = domain.pid or 0
    before = bounds(first), privileges(first)
    hard = {value for name, value in before[0].items() if name.startswith("memory")}
    assert hard <= {str((40 * 1024 + RESERVED_KIB) * 1024)}
    standbys(cluster)
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: domain.incarnation == 2)
    domain.wait_ready()
    assert (bounds(domain.pid or 0), privileges(domain.pid or 0)) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="others' descriptors are seen by root")
def test_one_that_stands_by_has_none_of_the_privileges_taken_that_it_may_be_asked_to_keep(cluster: Cluster) -> None:
    forked_by = zygote(cluster)
    for pid in standbys(cluster):
        wait_for(lambda pid=pid: privileges(pid) == privileges(forked_by))  # type: ignore[misc]


@has_root
@pytest.mark.parametrize("off", ["root", "cgroups", "landlock", "uid"])
def test_one_that_stood_by_and_is_to_do_without_a_layer_lacks_that_one(cluster: Cluster, off: str) -> None:
    standbys(cluster)
    pid = idle(cluster, "bare", off=(off,))
    (row,) = [row for row in cluster.sandboxes() if row["name"] == "bare"]
    assert row["lacking"][off] == "switched off by sandbox_off"
    assert has_moved(pid) == (off != "root")
    if os.geteuid() == 0:
        assert not [each for each in descriptors(pid) if "landlock" in each or each in BOUNDS.values()]
        assert not [each for each in Path(f"/proc/{pid}/fd").iterdir() if is_namespace(each)]


@pytest.mark.skipif(os.geteuid() != 0, reason="others' pages are counted for root")
def test_who_stands_by_when_a_few_have_been_born_has_the_pages_that_births_use(cluster: Cluster) -> None:
    before = max(own_kib(pid) for pid in standbys(cluster))
    for number in range(SHARED_BY + 1):
        idle(cluster, f"guest-{number}")
        standbys(cluster)
    assert max(own_kib(pid) for pid in standbys(cluster)) > before + 500
    idle(cluster, "who-has-them")


@pytest.mark.skipif(os.geteuid() != 0, reason="others' pages are counted for root")
def test_who_stands_by_while_births_are_looked_at_gets_little_of_its_own_by_that(cluster: Cluster) -> None:
    """What its zygote writes to is left to it alone: the look took a MiB of each."""
    for number in range(LEARNT_FROM):
        before = {pid: own_kib(pid) for pid in standbys(cluster)}
        idle(cluster, f"guest-{number}")
        left = set(standbys(cluster)) & before.keys()
        assert left and all(own_kib(pid) - before[pid] < 700 for pid in left)


def test_one_that_dies_while_it_stands_by_leaves_nothing_though_nobody_has_asked_for_it(cluster: Cluster) -> None:
    for pid in standbys(cluster):
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda pid=pid: gone(pid))  # type: ignore[misc]
    idle(cluster, "guest")
    standbys(cluster)


@pytest.mark.parametrize("dies", ["it", "its zygote"])
def test_one_that_was_chosen_and_has_not_heard_of_it(cluster: Cluster, dies: str) -> None:
    """Dead, it is started again as any domain; when only its zygote is dead it hears of it all the same."""
    waiting = standbys(cluster)
    for pid in waiting:
        os.kill(pid, signal.SIGSTOP)
        wait_for(lambda pid=pid: stopped(pid))  # type: ignore[misc]
    domain = cluster.create(DomainConfig("guest", "hvd:idle", on_crash="restart"))
    wait_for(lambda: domain.pid in waiting)
    chosen, incarnation = domain.pid or 0, 1
    if dies == "it":
        os.kill(chosen, signal.SIGKILL)
        incarnation = 2
        wait_for(lambda: (domain.pid, domain.incarnation) == (waiting[waiting[0] == chosen], incarnation))
    else:
        forked_by = zygote(cluster)
        os.kill(forked_by, signal.SIGKILL)
        wait_for(lambda: gone(forked_by))
    os.kill(domain.pid or 0, signal.SIGCONT)
    domain.wait_ready()
    assert (domain.incarnation, domain.pid == chosen) == (incarnation, dies != "it")


def endpoints(cluster: Cluster) -> set[str]:
    return {entry.name for entry in Path(cluster.run_dir, DOMAINS).iterdir()}


def test_what_is_made_for_the_next_domain_is_made_again_by_the_next_broker_and_nothing_is_left_of_it(
    cluster: Cluster,
) -> None:
    wait_for(lambda: endpoints(cluster) == {"0.1", "1.1"})
    before = cluster.info()
    os.kill(before["broker_pid"], signal.SIGKILL)
    idle(cluster, "first")
    wait_for(lambda: endpoints(cluster) == {"0.1", "1.1", "2.1"})
    first = cluster.domain("first")
    first.destroy()
    first.wait_gone()
    wait_for(lambda: endpoints(cluster) == {"0.1", "2.1"})
    assert cluster.info()["broker_restarts"] == before["broker_restarts"] + 1
    wait_for(lambda: cluster.info()["descriptors"] == before["descriptors"], lambda: f"{before}, {cluster.info()}")
