"""Turns facts about a machine into findings: what is there, what its lack costs, how to get it."""

import errno
import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from hvd.toolstack.doctor.facts import Facts, Pair
from hvd.toolstack.doctor.finding import Finding, Status
from hvd.transport.sandbox import LAYERS, in_force

KERNEL_MIN = (5, 15)
PYTHON_MIN = (3, 11)
ARCHITECTURES = ("x86_64", "aarch64")
FAST_CLOCKS = ("tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page", "xen")
"""Read without a system call, through the vDSO."""
DESCRIPTORS_PER_CHANNEL = 5
"""The page, and both ends of a pipe in either direction."""
DESCRIPTORS_OF_BROKER = 256
DESCRIPTORS_WANTED = 8192
LOCKED_BYTES_WANTED = 8 << 20
PROCESSES_WANTED = 1024
PIPE_PAGES, SMALL_PIPE_PAGES = 16, 2
_APPARMOR = "kernel.apparmor_restrict_unprivileged_userns=0"
CONTAINER = "in a container: --security-opt seccomp=unconfined --security-opt apparmor=unconfined, or --privileged"
_NEWER_KERNEL = "a newer kernel; " + CONTAINER


class Trial(NamedTuple):
    """What it means when one of trials.py's answers is not 0."""

    answer: str
    name: str
    works: str
    lacking: Status
    cost: str
    remedy: str


KERNEL_TRIALS = (
    Trial("pidfd", "pidfd", "a process can be signalled and awaited by descriptor", Status.MISSING,
          "deaths cannot be told for certain: no cluster starts", _NEWER_KERNEL),
    Trial("clone3", "clone3", "permitted", Status.MISSING,
          "the zygote cannot give its children to the machine: no domain starts", _NEWER_KERNEL),
    Trial("memfd", "memfd seals", "F_SEAL_FUTURE_WRITE holds", Status.MISSING,
          "a page granted read-only could be made writable by its receiver: such grants are refused", _NEWER_KERNEL),
    Trial("close_range", "close_range", "permitted", Status.LIMITED,
          "a new domain closes inherited descriptors one by one: slower to boot", _NEWER_KERNEL),
    Trial("proc", "/proc", "mounted", Status.MISSING,
          "descriptors cannot be re-opened read-only, processes cannot be looked at: no cluster starts",
          "mount -t proc proc /proc"),
    Trial("pty", "pseudo-terminals", "/dev/ptmx and devpts", Status.MISSING,
          "hvd console has no terminal to attach to", "mount -t devpts -o newinstance,ptmxmode=0666 devpts /dev/pts"),
)  # fmt: skip

ISOLATION_TRIALS = (
    Trial("pid_namespace", "PID namespaces", "a domain's death ends all that it started", Status.LIMITED,
          "what a domain's program started may outlive it, and the domain sees other processes", ""),
    Trial("empty_root", "mount namespaces", "a domain can have an empty root", Status.LIMITED,
          "a domain sees this machine's files, and /proc", ""),
    Trial("network_namespace", "network namespaces", "a domain can be kept from the network", Status.LIMITED,
          "a domain reaches the network and abstract sockets of this machine", ""),
    Trial("seccomp", "seccomp filters", "a filter can be set", Status.LIMITED,
          "a domain may use every system call", "a kernel with CONFIG_SECCOMP_FILTER"),
)  # fmt: skip

DEVICE_TRIALS = (
    Trial("tap", "/dev/net/tun", "a TAP device was made and is gone again", Status.MISSING,
          "no domain's network can reach this machine's",
          "modprobe tun; in a container: --device /dev/net/tun; without root: /dev/net/tun with mode 0666"),
    Trial("fuse", "/dev/fuse", "opens", Status.MISSING,
          "a domain's files cannot be mounted on this machine",
          "modprobe fuse; in a container: --device /dev/fuse; without root: /dev/fuse with mode 0666"),
)  # fmt: skip


def judge(facts: Facts) -> list[Finding]:
    """Every finding, what a cluster cannot run without first."""
    return [
        _kernel(facts),
        _architecture(facts),
        _python(facts),
        *_tried(facts, KERNEL_TRIALS),
        _run_dir(facts),
        _descriptors(facts),
        _processes(facts),
        _pipes(facts),
        _user_namespaces(facts),
        *_tried(facts, ISOLATION_TRIALS),
        _landlock(facts),
        _sandbox(facts),
        _cgroups(facts),
        _locked_memory(facts),
        _cpus(facts),
        _clock(facts),
        *_tried(facts, DEVICE_TRIALS),
    ]


def _named(code: int | None) -> str:
    """An errno in words; None is a trial of which nothing was heard."""
    return (
        "the trial did not come to an end"
        if code is None
        else f"{os.strerror(code)} ({errno.errorcode.get(code, code)})"
    )


def _tried(facts: Facts, trials: tuple[Trial, ...]) -> Iterator[Finding]:
    for trial in trials:
        code = facts.answers.get(trial.answer)
        if code == 0:
            yield Finding(trial.name, Status.OK, trial.works)
        else:
            yield Finding(trial.name, trial.lacking, _named(code), trial.cost, trial.remedy or _namespace_remedy(facts))


def _namespace_remedy(facts: Facts) -> str:
    """What keeps this machine from making namespaces, as far as its switches tell."""
    switches = (
        ("kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "sysctl -w " + _APPARMOR),
        ("user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=15000"),
    )
    off = [remedy for name, value, remedy in switches if facts.sysctls.get(name) == value]
    return "; ".join(off) or ("" if facts.is_root else "root; ") + CONTAINER


def _kernel(facts: Facts) -> Finding:
    found = f"{facts.system} {facts.release}"
    numbers = tuple(int(number) for number in re.findall(r"\d+", facts.release)[:2])
    if facts.system == "Linux" and numbers >= KERNEL_MIN:
        return Finding("kernel", Status.OK, found)
    wanted = ".".join(map(str, KERNEL_MIN))
    cost = "hvd is neither built nor tested for it"
    return Finding("kernel", Status.MISSING, found, cost, f"Linux {wanted} or newer")


def _architecture(facts: Facts) -> Finding:
    if facts.architecture in ARCHITECTURES:
        return Finding("architecture", Status.OK, facts.architecture)
    cost, remedy = "the native core is neither built nor tested for it", " or ".join(ARCHITECTURES)
    return Finding("architecture", Status.MISSING, facts.architecture, cost, remedy)


def _python(facts: Facts) -> Finding:
    found = f"{facts.implementation} {'.'.join(map(str, facts.python))}"
    if facts.implementation == "CPython" and facts.python >= PYTHON_MIN:
        return Finding("Python", Status.OK, found)
    remedy = f"CPython {'.'.join(map(str, PYTHON_MIN))} or newer"
    return Finding("Python", Status.MISSING, found, "hvd does not run on it", remedy)


def _cpus(facts: Facts) -> Finding:
    if facts.cpus > 1:
        return Finding("CPUs", Status.OK, f"{facts.cpus} may be used")
    cost = "two domains never run at once: every round trip between them takes two switches, and polling is of no use"
    return Finding("CPUs", Status.LIMITED, "1 may be used", cost, "a wider affinity, or more CPUs")


def _clock(facts: Facts) -> Finding:
    found = f"{facts.clock_source or 'unknown'}, {facts.clock_ns} ns a reading"
    if facts.clock_source in FAST_CLOCKS:
        return Finding("clock", Status.OK, found)
    cost = "each reading of the clock is a system call: waiting by polling and measuring both suffer"
    return Finding("clock", Status.LIMITED, found, cost, "boot with clocksource=tsc where the CPU's is stable")


def _run_dir(facts: Facts) -> Finding:
    code = facts.answers.get("run_dir")
    if code == 0:
        return Finding("run directory", Status.OK, f"{facts.run_dir} takes directories and Unix sockets")
    cost = "a cluster has no place for its sockets and logs: none starts"
    remedy = "set HVD_RUN_DIR to a directory of your own on a local file system"
    return Finding("run directory", Status.MISSING, f"{facts.run_dir}: {_named(code)}", cost, remedy)


def _spelled(limit: int) -> str:
    return "unlimited" if limit < 0 else str(limit)


def _enough(limit: int, wanted: int) -> bool:
    return limit < 0 or limit >= wanted


def _limits(limits: Pair) -> str:
    return f"soft {_spelled(limits[0])}, hard {_spelled(limits[1])}"


def _descriptors(facts: Facts) -> Finding:
    """The broker raises its soft limit to the hard one, so that one counts."""
    hard = facts.descriptors[1]
    channels = max(0, hard - DESCRIPTORS_OF_BROKER) // DESCRIPTORS_PER_CHANNEL
    found = _limits(facts.descriptors) + ("" if hard < 0 else f": about {channels} event channels")
    if _enough(hard, DESCRIPTORS_WANTED):
        return Finding("descriptors", Status.OK, found)
    cost = f"about {channels} event channels in the whole cluster, {DESCRIPTORS_PER_CHANNEL} descriptors each"
    remedy = f"as root: ulimit -Hn {DESCRIPTORS_WANTED}, or LimitNOFILE= of the service"
    return Finding("descriptors", Status.LIMITED, found, cost, remedy)


def _processes(facts: Facts) -> Finding:
    soft = facts.processes[0]
    if _enough(soft, PROCESSES_WANTED):
        return Finding("processes", Status.OK, _limits(facts.processes))
    cost = f"at most {soft} processes and threads of this user, each domain is one or more"
    return Finding("processes", Status.LIMITED, _limits(facts.processes), cost, f"ulimit -u {PROCESSES_WANTED}")


def _pipes(facts: Facts) -> Finding:
    """Doorbells need one byte of a pipe: the soft limit, which makes pipes small, is harmless; the hard one is not."""
    soft, hard = (int(facts.sysctls.get(f"fs/pipe-user-pages-{kind}", "0")) for kind in ("soft", "hard"))
    full = f"{soft // PIPE_PAGES // 2} channels with full pipes, then small ones" if soft else "as many as wanted"
    if hard == 0 or facts.is_root:
        return Finding("pipes", Status.OK, full)
    channels = hard // (2 * SMALL_PIPE_PAGES)
    cost = f"at most {channels} event channels: beyond them pipes are refused"
    remedy = "as root: sysctl -w fs.pipe-user-pages-hard=0"
    return Finding("pipes", Status.LIMITED, f"{full}; at most {hard} pages in all", cost, remedy)


def _locked_memory(facts: Facts) -> Finding:
    soft, hard = ("unlimited" if limit < 0 else f"{limit >> 10} KiB" for limit in facts.locked_bytes)
    found = f"soft {soft}, hard {hard}"
    if _enough(facts.locked_bytes[1], LOCKED_BYTES_WANTED):
        return Finding("locked memory", Status.OK, found)
    cost = "shared pages cannot be kept from being swapped out: long tails where memory is short"
    return Finding("locked memory", Status.LIMITED, found, cost, f"ulimit -Hl {LOCKED_BYTES_WANTED >> 10}")


def _user_namespaces(facts: Facts) -> Finding:
    code = facts.answers.get("user_namespace")
    if code == 0:
        return Finding("user namespaces", Status.OK, "a user namespace was made and is gone again")
    if facts.is_root:
        cost = "none for root, which makes the other namespaces without it; a cluster of another user has no isolation"
        return Finding("user namespaces", Status.LIMITED, _named(code), cost, _namespace_remedy(facts))
    cost = "without root no other namespace can be made: domains see each other, and this machine's files and network"
    return Finding("user namespaces", Status.MISSING, _named(code), cost, _namespace_remedy(facts))


def _landlock(facts: Facts) -> Finding:
    if facts.landlock > 0:
        return Finding("Landlock", Status.OK, f"ABI {facts.landlock}")
    cost = "no second lock on files behind a domain's empty root"
    remedy = "boot with lsm=landlock,…, on a kernel with CONFIG_SECURITY_LANDLOCK"
    return Finding("Landlock", Status.LIMITED, _named(-facts.landlock), cost, remedy)


def _sandbox(facts: Facts) -> Finding:
    """One of user and uid is in force: root gives each domain a uid of its own, and makes no user namespace."""
    spare = {"user", "uid"} if len({"user", "uid"} & facts.sandbox.keys()) == 1 else set()
    lacking = {name: reason for name, reason in facts.sandbox.items() if name not in spare}
    found = "in force: " + (", ".join(in_force(facts.sandbox)) or "nothing")
    if not lacking:
        return Finding("sandbox of a domain", Status.OK, found)
    cost = "; ".join(f"nothing stops {LAYERS[name]}" for name in lacking)
    remedy = "; ".join(f"{name}: {reason}" for name, reason in lacking.items())
    return Finding("sandbox of a domain", Status.LIMITED, found, cost, remedy)


def _cgroups(facts: Facts) -> Finding:
    usable = sorted(name for name, may in facts.cgroups.items() if may)
    barred = sorted(name for name, may in facts.cgroups.items() if not may)
    parts = [", ".join(usable), f"not to be changed: {', '.join(barred)}" if barred else ""]
    found = "; ".join(part for part in parts if part) or "no cgroup file system is mounted"
    if {"cpu", "memory"} <= {name.partition(" ")[2] for name in usable}:
        return Finding("cgroups", Status.OK, found)
    status = Status.LIMITED if facts.cgroups else Status.MISSING
    cost = "the kernel holds no domain to its memory and share of CPU time; limits per process and affinity remain"
    remedy = "root, or a delegated group: systemd-run --user --scope -p Delegate=yes hvd …"
    return Finding("cgroups", status, found, cost, remedy)
