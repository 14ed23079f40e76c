"""Attacks on the rest of the host: sockets by path and name, files, shared memory, mounts, privileges, system calls."""

from __future__ import annotations

import os
from pathlib import Path

from hvd.toolstack.attacks.arena import Arena, harm, harmless
from hvd.toolstack.attacks.attack import Attack, Seen
from hvd.toolstack.attacks.layers import IS_ROOT, Act, attacks_on


def _connect(kind: str) -> Act:
    """The victim accepts a connection."""

    def act(arena: Arena, off: tuple[str, ...]) -> Seen:
        victim = arena.victim
        told = arena.attack(f"host.connect_{kind}", victim.facts[kind], off=off)
        return harm("the victim has a connection") if victim.show()[kind] else harmless(told)

    return act


def _change(function: str, thing: str, fact: str) -> Act:
    """What the victim holds is changed."""

    def act(arena: Arena, off: tuple[str, ...]) -> Seen:
        victim = arena.victim
        told = arena.attack(f"host.{function}", victim.facts[fact], off=off)
        return harm(f"the victim's {thing} was changed") if victim.show()[thing] else harmless(told)

    return act


def _read_file(arena: Arena, off: tuple[str, ...]) -> Seen:
    victim = arena.victim
    told = arena.attack("host.read_file", victim.facts["file"], off=off)
    return harm("it knows what is in the file") if victim.secret in told else harmless(told)


def _see_host_name(arena: Arena, off: tuple[str, ...]) -> Seen:
    told = arena.attack("host.see_names", off=off)
    return harm("it knows the host's name") if told == f"did {os.uname().nodename}" else harmless(told)


def _see_processes(arena: Arena, off: tuple[str, ...]) -> Seen:
    victim = arena.victim
    told = arena.attack("host.see_processes", victim.pid, off=off)
    return harm("it sees the victim in /proc") if told.endswith(f" and {victim.pid}") else harmless(told)


def _mount(arena: Arena, off: tuple[str, ...]) -> Seen:
    where = arena.home / "mount"
    where.mkdir(exist_ok=True)
    told = arena.attack("host.mount", where, off=off)
    if str(where) not in Path("/proc/self/mounts").read_text():
        return harmless(f"{told}; the host sees no mount")
    from hvd.transport._native import detach_mount

    detach_mount(str(where))
    return harm("the host sees the mount")


def _by_its_own_word(function: str, what: str) -> Act:
    """What nobody but the attacker's kernel sees."""

    def act(arena: Arena, off: tuple[str, ...]) -> Seen:
        told = arena.attack(f"host.{function}", off=off)
        return harm(what) if told.startswith("did") else harmless(told)

    return act


def _forbidden_call(arena: Arena, off: tuple[str, ...]) -> Seen:
    """As it is by default: it dies of it."""
    told = arena.attack("host.memory_of_its_own", off=off, seccomp="kill")
    return harm("it goes on") if "SIGSYS" not in told else harmless(told)


UID = ("uid",) if IS_ROOT else ()
ATTACKS: list[Attack] = [
    *attacks_on("a socket of the host by its path", ("root",), _connect("path"), also_off=("landlock", *UID)),
    *attacks_on("an abstract socket of the host", ("network", "landlock"), _connect("abstract"), also_off=("user",)),
    *attacks_on("loopback TCP", ("network", "landlock", "seccomp"), _connect("tcp"), also_off=("user",)),
    *attacks_on("System V shared memory", ("ipc", "seccomp", *UID),
                _change("write_shared_memory", "shm", "shm_key"), also_off=("user", "capabilities")),
    *attacks_on("reading a file of the host", ("root", "landlock"), _read_file, also_off=("capabilities", *UID)),
    *attacks_on("writing a file of the host", ("root", "landlock"), _change("write_file", "file", "file"),
                also_off=("capabilities", *UID)),
    *attacks_on("the host's name", ("uts",), _see_host_name),
    *attacks_on("seeing processes in /proc", ("root", "landlock"), _see_processes, also_off=("uid",)),
    *attacks_on("a mount that the host sees", ("mount", "capabilities", "seccomp", "landlock"), _mount,
                also_off=("root", "uid"), as_root=True),
    *attacks_on("namespaces of its own", ("seccomp",), _by_its_own_word("new_namespace", "it has one")),
    *attacks_on("another process", ("seccomp",), _by_its_own_word("another_process", "there is one")),
    *attacks_on("memory that no limit counts", ("seccomp",), _by_its_own_word("memory_of_its_own", "it has some")),
    *attacks_on("sockets of other kinds", ("seccomp",), _by_its_own_word("network_socket", "it has one"),
                also_off=("network",)),
    *attacks_on("a forbidden system call", ("seccomp",), _forbidden_call),
    *attacks_on("the name of its namespace", ("capabilities", "seccomp"),
                _by_its_own_word("rename_host", "it is called otherwise"), also_off=UID),
    *attacks_on("being traceable", ("opaque",), _by_its_own_word("be_traceable", "others can read it"), also_off=UID),
    *attacks_on("privileges of programs", ("no-new-privs",),
                _by_its_own_word("gain_privileges", "running a program would give it some"),
                also_off=("seccomp", "landlock")),
]  # fmt: skip
