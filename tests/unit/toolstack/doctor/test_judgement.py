"""What each fact about a machine is judged to be, from a machine that has everything downwards."""

import errno
import json
from dataclasses import replace
from typing import Any

import pytest

from hvd.toolstack.doctor import Finding, Status
from hvd.toolstack.doctor.facts import Facts
from hvd.toolstack.doctor.judgement import judge

TRIAL_TEXT = """
    pidfd clone3 memfd close_range proc pty run_dir tap fuse
    user_namespace pid_namespace empty_root network_namespace seccomp
"""
TRIALS = TRIAL_TEXT.split()
GOOD = Facts(
    system="Linux",
    release="6.1.0-13-amd64",
    architecture="x86_64",
    implementation="CPython",
    python=(3, 11, 2),
    cpus=4,
    clock_source="tsc",
    clock_ns=40,
    is_root=False,
    run_dir="/run/user/1000/hvd",
    answers=dict.fromkeys(TRIALS, 0),
    landlock=4,
    sandbox={"uid": "not started by root"},
    descriptors=(1024, 20_000),
    locked_bytes=(8 << 20, 8 << 20),
    processes=(-1, -1),
    sysctls={"fs/pipe-user-pages-soft": "16384", "fs/pipe-user-pages-hard": "0"},
    cgroups={"v2 cpu": True, "v2 memory": True},
)


def lacking(facts: Facts) -> list[Finding]:
    return [finding for finding in judge(facts) if finding.status is not Status.OK]


def the_one_lack(**changes: Any) -> Finding:
    [finding] = lacking(replace(GOOD, **changes))
    return finding


def test_a_machine_that_has_everything_is_found_well() -> None:
    findings = judge(GOOD)
    assert lacking(GOOD) == []
    assert all(finding.found and not finding.cost and not finding.remedy for finding in findings)
    assert len({finding.name for finding in findings}) == len(findings)


@pytest.mark.parametrize(
    ("changes", "name", "status"),
    [
        ({"release": "5.14.99"}, "kernel", Status.MISSING),
        ({"release": "4.19"}, "kernel", Status.MISSING),
        ({"release": "strange"}, "kernel", Status.MISSING),
        ({"system": "FreeBSD", "release": "14.1"}, "kernel", Status.MISSING),
        ({"architecture": "riscv64"}, "architecture", Status.MISSING),
        ({"python": (3, 10, 12)}, "Python", Status.MISSING),
        ({"implementation": "PyPy"}, "Python", Status.MISSING),
        ({"cpus": 1}, "CPUs", Status.LIMITED),
        ({"clock_source": "hpet"}, "clock", Status.LIMITED),
        ({"clock_source": ""}, "clock", Status.LIMITED),
        ({"landlock": -errno.ENOSYS}, "Landlock", Status.LIMITED),
        ({"landlock": -errno.EOPNOTSUPP}, "Landlock", Status.LIMITED),
        ({"descriptors": (1024, 8191)}, "descriptors", Status.LIMITED),
        ({"locked_bytes": (65536, 65536)}, "locked memory", Status.LIMITED),
        ({"processes": (1023, 1023)}, "processes", Status.LIMITED),
        ({"sysctls": {"fs/pipe-user-pages-hard": "100"}}, "pipes", Status.LIMITED),
        ({"cgroups": {}}, "cgroups", Status.MISSING),
        ({"cgroups": {"v2": True}}, "cgroups", Status.LIMITED),
        ({"cgroups": {"v2 cpu": True, "v2 memory": False}}, "cgroups", Status.LIMITED),
    ],
)
def test_each_lack_is_found_alone_with_its_cost_and_its_remedy(
    changes: dict[str, Any], name: str, status: Status
) -> None:
    finding = the_one_lack(**changes)
    assert (finding.name, finding.status) == (name, status)
    assert finding.found
    assert finding.cost
    assert finding.remedy


@pytest.mark.parametrize(
    "changes",
    [
        {"release": "5.15.0-rc1"},
        {"release": "10.0"},
        {"cpus": 2},
        {"architecture": "aarch64", "clock_source": "arch_sys_counter"},
        {"python": (4, 0, 0)},
        {"descriptors": (-1, -1)},
        {"locked_bytes": (0, -1)},
        {"sysctls": {}},
        {"sysctls": {"fs/pipe-user-pages-hard": "100"}, "is_root": True},
        {"cgroups": {"v1 cpu": True, "v1 memory": True, "v1 devices": False, "v2": False}},
    ],
)
def test_what_is_enough_is_well(changes: dict[str, Any]) -> None:
    assert lacking(replace(GOOD, **changes)) == []


@pytest.mark.parametrize("trial", TRIALS)
def test_a_trial_that_failed_is_told_in_the_kernels_words(trial: str) -> None:
    finding = the_one_lack(answers=GOOD.answers | {trial: errno.EPERM})
    assert "Operation not permitted (EPERM)" in finding.found
    assert finding.cost
    assert finding.remedy


def test_a_trial_that_was_not_heard_of_is_no_success() -> None:
    found = {finding.name: finding.found for finding in lacking(replace(GOOD, answers={}))}
    assert len(found) == len(TRIALS)
    assert all("the trial did not come to an end" in text for text in found.values())


@pytest.mark.parametrize(
    ("sysctls", "remedy"),
    [
        ({"kernel/unprivileged_userns_clone": "0"}, "sysctl -w kernel.unprivileged_userns_clone=1"),
        (
            {"kernel/apparmor_restrict_unprivileged_userns": "1"},
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        ({"user/max_user_namespaces": "0"}, "sysctl -w user.max_user_namespaces=15000"),
        ({"kernel/unprivileged_userns_clone": "1", "user/max_user_namespaces": "9"}, "root; in a container"),
    ],
)
def test_the_switch_that_forbids_namespaces_is_named(sysctls: dict[str, str], remedy: str) -> None:
    finding = the_one_lack(answers=GOOD.answers | {"user_namespace": errno.EPERM}, sysctls=sysctls)
    assert finding.remedy.startswith(remedy)
    assert finding.status is Status.MISSING


def test_root_needs_no_user_namespace() -> None:
    finding = the_one_lack(answers=GOOD.answers | {"user_namespace": errno.ENOSPC}, is_root=True)
    assert finding.status is Status.LIMITED


def test_what_a_limit_on_descriptors_allows_is_worked_out() -> None:
    assert "about 3948 event channels" in next(each for each in judge(GOOD) if each.name == "descriptors").found
    assert the_one_lack(descriptors=(64, 64)).cost.startswith("about 0 event channels")


def test_what_a_limit_on_pipes_allows_is_worked_out() -> None:
    assert "512 channels with full pipes" in next(each for each in judge(GOOD) if each.name == "pipes").found
    assert "at most 25 event channels" in the_one_lack(sysctls={"fs/pipe-user-pages-hard": "100"}).cost


def test_a_finding_is_one_json_object() -> None:
    finding = the_one_lack(cpus=1)
    assert json.loads(json.dumps(finding.as_dict())) == {
        "name": "CPUs",
        "status": "limited",
        "found": "1 may be used",
        "cost": finding.cost,
        "remedy": finding.remedy,
    }


@pytest.mark.parametrize("spare", ["user", "uid"])
def test_one_of_user_and_uid_is_enough(spare: str) -> None:
    assert lacking(replace(GOOD, sandbox={spare: "the other is in force"})) == []


def test_a_layer_that_lacks_is_named_with_its_cost_and_its_reason() -> None:
    finding = the_one_lack(sandbox={"uid": "no root", "seccomp": "no library: apt-get install libseccomp2"})
    assert finding.status is Status.LIMITED
    assert finding.cost == "nothing stops system calls it has no use for, and so most holes of the kernel"
    assert finding.remedy == "seccomp: no library: apt-get install libseccomp2"


def test_neither_user_nor_uid_is_a_lack() -> None:
    assert "files and processes of whoever started" in the_one_lack(sandbox={"uid": "no", "user": "no"}).cost
