"""The trials on this machine: they answer, they see what is taken away, and they leave nothing behind."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hvd.toolstack.doctor import examine
from hvd.toolstack.doctor.trials import answer_all, landlock_abi

DEADLINE_S = 60
EXAMINE = """
import json
from hvd.toolstack.doctor import examine
print(json.dumps([finding.as_dict() for finding in examine()]))
"""


def examined(*before: str, prelude: str = "") -> dict[str, dict[str, str]]:
    """The findings of a process of its own, by name: started by `before`, having done `prelude`."""
    command = [*before, sys.executable, "-c", f"{prelude}\n{EXAMINE}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=DEADLINE_S)
    return {finding["name"]: finding for finding in json.loads(done.stdout)}


def state() -> dict[str, object]:
    """What a trial could leave behind in this process or on this machine."""
    own = Path("/proc/self")
    devices = Path("/sys/class/net")
    return {
        "descriptors": sorted(int(entry.name) for entry in (own / "fd").iterdir()),
        "namespaces": sorted(str(entry.readlink()) for entry in (own / "ns").iterdir()),
        "children": (own / "task" / str(os.getpid()) / "children").read_text(),
        "mounts": (own / "mountinfo").read_text(),
        "network": sorted(entry.name for entry in devices.glob("tap*")),
        "filters": [
            line for line in (own / "status").read_text().splitlines() if line.startswith(("Seccomp", "NoNew"))
        ],
    }


def test_an_examination_leaves_nothing_behind(tmp_path: Path) -> None:
    before = state()
    findings = examine(str(tmp_path / "a" / "b"))
    assert state() == before
    assert list(tmp_path.iterdir()) == []
    assert all(finding.found for finding in findings)
    assert all(bool(finding.cost) == bool(finding.remedy) == (finding.status != "ok") for finding in findings)


def test_every_trial_answers_with_an_errno(tmp_path: Path) -> None:
    answers = answer_all(str(tmp_path))
    assert set(answers) == {
        *("pidfd", "clone3", "memfd", "close_range", "proc", "pty", "fuse", "run_dir"),
        *("seccomp", "user_namespace", "pid_namespace", "network_namespace", "tap", "empty_root"),
    }
    assert all(code == 0 or code in errno.errorcode for code in answers.values())
    assert answers["pidfd"] == answers["memfd"] == answers["proc"] == 0


def test_landlock_is_a_version_or_an_errno() -> None:
    abi = landlock_abi()
    assert abi > 0 or -abi in errno.errorcode


def test_a_child_that_says_nothing_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for program in ("/bin/false", "/bin/true", "/no/such/program"):
        monkeypatch.setattr(sys, "executable", program)
        assert "user_namespace" not in answer_all(str(tmp_path))


@pytest.mark.parametrize("name", ["new", "new/and/deeper"])
def test_a_run_directory_need_not_be_there_and_is_not_made(tmp_path: Path, name: str) -> None:
    assert answer_all(str(tmp_path / name))["run_dir"] == 0
    assert list(tmp_path.iterdir()) == []


def test_a_run_directory_may_be_deeper_than_a_sockets_path_is_long(tmp_path: Path) -> None:
    deep = tmp_path / "/".join(["a-long-directory-name"] * 12)
    deep.mkdir(parents=True)
    assert answer_all(str(deep))["run_dir"] == 0
    assert list(deep.iterdir()) == []


def test_a_run_directory_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    if os.geteuid() == 0:
        os.chown(foreign, 65534, 65534)
    places = {
        str(tmp_path / "file"): errno.ENOTDIR,
        str(tmp_path / "file" / "below"): errno.ENOTDIR,
        str(foreign) if os.geteuid() == 0 else "/": errno.EPERM,
        "/proc/no/such/process": errno.ENOENT,
    }
    assert {place: answer_all(place)["run_dir"] for place in places} == places


def test_a_limit_that_was_lowered_is_seen() -> None:
    finding = examined(prelude="import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (256, 512))")["descriptors"]
    assert finding["status"] == "limited"
    assert finding["found"] == "soft 256, hard 512: about 51 event channels"


def test_namespaces_that_are_switched_off_are_seen_with_the_switch() -> None:
    """In a user namespace the switch is the namespace's own, so a test may turn it."""
    switch_off = 'echo 0 >/proc/sys/user/max_user_namespaces && exec "$@"'
    forbid = ("unshare", "--user", "--map-root-user", "sh", "-c", switch_off, "sh")
    if not shutil.which("unshare"):
        pytest.skip("no program unshare")
    if subprocess.run([*forbid, "true"], check=False, capture_output=True, timeout=DEADLINE_S).returncode:
        pytest.skip("no user namespaces here to turn the switch in")
    finding = examined(*forbid)["user namespaces"]
    assert finding["status"] == "limited"
    assert finding["found"] == "No space left on device (ENOSPC)"
    assert finding["remedy"] == "sysctl -w user.max_user_namespaces=15000"


def test_one_cpu_is_seen_as_one() -> None:
    prelude = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"
    assert examined(prelude=prelude)["CPUs"]["status"] == "limited"
