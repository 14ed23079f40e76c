"""What a domain's sandbox gives it and what not. That each layer stops what it is to stop: tests/attacks."""

from __future__ import annotations

import ast
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hvd.domains.sandbox.limits import FILE_BYTES_MAX, PROGRAM_PROCESSES_MAX
from hvd.toolstack.cluster import Cluster, Domain, DomainState, StartFailed
from hvd.toolstack.cluster.sandbox_trial import lacking_here
from hvd.transport import messages as m
from hvd.transport.messages import DomainConfig, RestartPolicy
from hvd.transport.sandbox import LAYERS, RESERVED_KIB

DEADLINE_S = 60.0
IS_ROOT = os.geteuid() == 0
HERE = lacking_here()
KERNEL = """
import ctypes, mmap, os, resource, socket, threading
LIBC = ctypes.CDLL(None, use_errno=True)

def called(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result

def attack(target):
    {attack}

def main(guest):
    target = guest.args[0]
    try:
        outcome = f"worked: {{attack(target)}}"
    except (OSError, MemoryError, RuntimeError) as error:
        outcome = f"stopped: {{type(error).__name__}} {{error}}"
    guest.runtime.store.write("data/outcome", outcome)
    guest.run_forever()
"""
KILL = "os.kill(int(target), 0)"
CONNECT_ABSTRACT = "socket.socket(socket.AF_UNIX).connect('\\0' + target)"
CONNECT_TCP = "socket.create_connection(('127.0.0.1', int(target)), 5)"
OPEN = "return open(target).read()"
NAME = """if os.uname().nodename != target:
        raise OSError("another name")"""
CLONE = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
NAMESPACE = f"""if called(LIBC.syscall({CLONE}, 0x10000000 | 17, 0, 0, 0, 0)) == 0:
        os._exit(0)
    os.wait()"""
RELEASE_MEMORY = "called(LIBC.memfd_create(b'more', 0))"

@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster.build() as made:
        yield made


@pytest.fixture
def run(cluster: Cluster) -> Iterator[Callable[..., str]]:
    """run(attack, target, layers off): what came of it. Anybody may read the attackers' kernels."""
    home = Path(tempfile.mkdtemp(prefix="hvd-attackers-"))
    home.chmod(0o755)

    def create(attack: str, target: object, off: tuple[str, ...], **fields: Any) -> str:
        number = len(list(home.iterdir()))
        kernel = home / f"attacker-{number}.py"
        kernel.write_text(KERNEL.format(attack=attack))
        config = DomainConfig(
            kernel.stem, str(kernel), args=[str(target)], on_crash="preserve",
            sandbox_off=list(off), **{"seccomp": "eperm", **fields},
        )  # fmt: skip
        domain = cluster.create(config)
        domain.wait_until(lambda info: info.ready or info.state is DomainState.PRESERVED, "to begin", DEADLINE_S)
        return outcome(cluster, domain)

    yield create
    shutil.rmtree(home)


def outcome(cluster: Cluster, domain: Domain) -> str:
    path = f"/local/domain/{domain.domid}/data"

    def written(info: Any) -> bool:
        return info.state is not DomainState.RUNNING or "outcome" in cluster.call(m.StoreDirectory(0, path))

    deadline = DEADLINE_S
    while not written(domain.info()):
        with contextlib.suppress(Exception):
            domain.wait_state(DomainState.PRESERVED, deadline_s=0.05)
        deadline -= 0.05
        assert deadline > 0, f"{domain.name} has not said what came of it"
    info = domain.info()
    if info.state is not DomainState.RUNNING:
        return f"stopped: {info.last_death}"
    return str(cluster.call(m.StoreRead(0, f"{path}/outcome")).decode())


def lacking_of(cluster: Cluster, domain: Domain) -> dict[str, str]:
    (row,) = [row for row in cluster.sandboxes() if row["domid"] == domain.domid]
    return dict(row["lacking"])


def test_a_domain_whose_layer_user_is_off_has_a_uid_where_root_gives_it_one(cluster: Cluster) -> None:
    domain = cluster.create(DomainConfig("guest", "hvd:idle", sandbox_off=["user"]))
    domain.wait_ready(DEADLINE_S)
    lacking = lacking_of(cluster, domain)
    assert lacking["user"] == "switched off by sandbox_off"
    if IS_ROOT and "uid" not in HERE:
        assert "uid" not in lacking
        assert Path(f"/proc/{domain.pid}").stat().st_uid not in (0, os.geteuid())
    else:
        assert lacking["uid"] == HERE["uid"]


def test_a_domain_whose_layer_cgroups_is_off_is_in_no_group_of_its_machines(cluster: Cluster) -> None:
    for off in (["cgroups"], []):
        domain = cluster.create(DomainConfig(f"without-{len(off)}", "hvd:idle", sandbox_off=off))
        domain.wait_ready(DEADLINE_S)
        assert ("cgroups" in lacking_of(cluster, domain)) == bool(off or "cgroups" in HERE)
        groups = Path(f"/proc/{domain.pid}/cgroup").read_text()
        assert ("/hvd-" in groups) == (not off and "cgroups" not in HERE), groups


WITHOUT_MOUNTS = f"""
import select
from hvd.toolstack.cluster import Cluster
from hvd.transport.messages import DomainConfig

with open("/proc/self/mountinfo") as mounts, Cluster.build() as cluster:
    changes = select.poll()
    changes.register(mounts, select.POLLPRI | select.POLLERR)
    mounts.read()
    changes.poll(0)
    for off in (["mount"], ["mount", "root"]):
        cluster.create(DomainConfig("-".join(["without", *off]), "hvd:idle", sandbox_off=off)).wait_ready({DEADLINE_S})
    print("changed" if changes.poll(0) else "as they were")
"""


@pytest.mark.skipif(not IS_ROOT or shutil.which("unshare") is None, reason="nobody else may change the host's mounts")
def test_a_domain_whose_layer_mount_is_off_changes_none_of_the_hosts_mounts() -> None:
    """Its root was once put together over the host's /proc, which was gone for everybody meanwhile."""
    alone = ["unshare", "--mount"]  # where nobody but it mounts anything
    done = subprocess.run(
        [*alone, sys.executable, "-P", "-c", WITHOUT_MOUNTS], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "as they were\n"), done.stderr


@pytest.fixture
def port() -> Iterator[str]:
    """Somebody listens at this port of the host's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield str(listener.getsockname()[1])


def test_a_system_call_that_is_not_allowed_is_the_domains_end(run: Callable[..., str]) -> None:
    assert run(RELEASE_MEMORY, "", (), seccomp="kill") == "stopped: killed by SIGSYS"


def test_all_layers_are_in_force_here_or_named_with_the_reason(cluster: Cluster) -> None:
    cluster.create(DomainConfig("guest", "hvd:idle")).wait_ready(DEADLINE_S)
    for sandbox in cluster.sandboxes():
        assert set(sandbox["in_force"]) | set(sandbox["lacking"]) == set(LAYERS)
        assert sandbox["lacking"] == HERE
    assert [line for line in cluster.dmesg() if line.startswith("(XEN) domain 1 guest: sandbox guest: ")]


def test_a_domain_sees_what_it_was_given_and_nothing_else(run: Callable[..., str], tmp_path: Path) -> None:
    look = "return sorted(os.listdir('/')), os.listdir('/run/hvd'), os.listdir('/run'), os.path.exists(target)"
    told = run(look, tmp_path, ()).removeprefix("worked: ")
    seen, endpoint, runs, others = ast.literal_eval(told)
    assert {"proc", "sys", "home"} & set(seen) == set()
    assert sorted(endpoint) == ["hypercall", "socket"]
    assert runs == ["hvd"]
    assert not others


@pytest.mark.parametrize(("suffix", "works"), [("", "stopped"), (":w", "worked")])
def test_a_path_is_given_to_read_unless_it_is_said_otherwise(
    run: Callable[..., str], tmp_path: Path, suffix: str, works: str
) -> None:
    (tmp_path / "given").write_text("")
    paths = [f"{tmp_path / 'given'}{suffix}"]
    assert run(OPEN, tmp_path / "given", (), paths=paths).startswith("worked")
    assert run("open(target, 'a').write('x')", tmp_path / "given", (), paths=paths).startswith(works)
    assert (tmp_path / "given").read_text() == ("x" if works == "worked" else "")


def test_a_file_to_be_written_that_is_not_there_is_made(run: Callable[..., str], tmp_path: Path) -> None:
    run("open(target, 'w').write('made')", tmp_path / "new", (), paths=[f"{tmp_path / 'new'}:w"])
    assert (tmp_path / "new").read_text() == "made"


def test_the_run_directory_beside_a_kernel_is_not_seen(tmp_path: Path) -> None:
    """Its control socket is domain 0's."""
    (tmp_path / "attacker.py").write_text(KERNEL.format(attack="return os.listdir(target)"))
    run_dir = tmp_path / "run"
    config = DomainConfig("attacker", str(tmp_path / "attacker.py"), args=[str(run_dir)], sandbox_off=["landlock"])
    with Cluster.build([config], run_dir=run_dir) as cluster:
        assert outcome(cluster, cluster.domain("attacker")) == "worked: []"


def test_a_file_that_a_guest_writes_has_an_end(run: Callable[..., str], tmp_path: Path) -> None:
    """It is sparse: nothing of it takes room."""
    paths = [f"{tmp_path / 'file'}:w"]
    grow = "os.truncate(target, {})"
    assert run(grow.format(FILE_BYTES_MAX), tmp_path / "file", (), paths=paths).startswith("worked")
    assert "File too large" in run(grow.format(FILE_BYTES_MAX + 1), tmp_path / "file", (), paths=paths)


def test_a_program_domain_has_so_many_processes_and_no_more(run: Callable[..., str]) -> None:
    fork = f"""pids = []
    try:
        for _ in range({PROGRAM_PROCESSES_MAX}):
            pids.append(os.fork())
            if pids[-1] == 0:
                LIBC.pause()
                os._exit(0)
    finally:
        for pid in pids:
            os.kill(pid, 9)"""
    assert "BlockingIOError" in run(fork, "", (), sandbox="program", memory=2048)


def test_a_program_domain_starts_programs_and_makes_no_namespaces(run: Callable[..., str]) -> None:
    echo = "import subprocess; return subprocess.run(['echo', 'hello'], capture_output=True, check=True).stdout"
    assert run(echo, "", (), sandbox="program", seccomp="kill") == "worked: b'hello\\n'"
    assert run(NAMESPACE, "", (), sandbox="program").startswith("stopped")


def test_a_network_domain_is_in_the_hosts_network(run: Callable[..., str], port: str) -> None:
    assert run(CONNECT_TCP, port, (), sandbox="network", seccomp="kill").startswith("worked")


def test_what_is_required_and_lacks_keeps_a_domain_from_running() -> None:
    config = DomainConfig(
        "guest", "hvd:idle", sandbox_off=["seccomp"], sandbox_require=["root", "seccomp"],
        restart=RestartPolicy(limit=0),
    )  # fmt: skip
    with pytest.raises(StartFailed, match="lacks what is required of it: seccomp: switched off by sandbox_off"):
        Cluster.build([config]).start()


def test_what_no_limit_of_a_process_counts_its_control_group_does(run: Callable[..., str]) -> None:
    """Pages of a shared mapping are no process's own data, and what each of many may have is not what all may have."""
    if "cgroups" in HERE:
        pytest.skip(f"no control groups: {HERE['cgroups']}")
    fill = f"""pages = mmap.mmap(-1, {(RESERVED_KIB >> 10) + 200} << 20)
    for page in range(0, len(pages), 4096):
        pages[page] = 1"""
    assert run(fill, "", (), memory=64) == "stopped: killed by SIGKILL"
    assert run(fill, "", ("cgroups",), memory=64).startswith("worked")


@pytest.mark.skipif(not IS_ROOT, reason="whoever is not root has no mount namespace to spoil without one of his own")
def test_a_domain_without_a_mount_namespace_leaves_the_hosts_mounts_alone(cluster):
    domain = cluster.create(DomainConfig("open", "hvd:idle", sandbox_off=["mount"]))
    domain.wait_ready()
    assert Path("/proc/self").resolve().name == str(os.getpid())
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    assert [fields for fields in mounts if fields[4].startswith("/proc/")] == []
    (row,) = [row for row in cluster.sandboxes() if row["name"] == "open"]
    assert row["lacking"]["root"] == "it takes a mount namespace, and there is none"
