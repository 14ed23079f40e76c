"""Attacks on processes: what a domain must not do to one that is not its own. The victim says what it suffered."""

from __future__ import annotations

import contextlib

from hvd.toolstack.attacks.arena import DEADLINE_S, Arena, harm, harmless
from hvd.toolstack.attacks.attack import Attack, Seen
from hvd.toolstack.attacks.layers import IS_ROOT, Act, attacks_on
from hvd.toolstack.cluster import DomainState
from hvd.transport.errors import HvdError
from hvd.transport.messages import DomainConfig

WHOSE = ("uid", "capabilities") if IS_ROOT else ("user",)
"""What makes an attacker somebody else than the victim."""
SEES_PROC, SEEN = (("capabilities",), ("pid", "uid")) if IS_ROOT else (("user",), ("pid",))
"""The same for one that is not in a root of its own: there its uid may stay root's."""


def _kill(arena: Arena, off: tuple[str, ...]) -> Seen:
    victim = arena.victim
    told = arena.attack("processes.kill", victim.pid, off=off)
    return harm("the victim is dead") if victim.dies(_dies_in_s(told)) else harmless(told)


def _overwrite(function: str, thing: str, *facts: str) -> Act:
    """What it holds is changed."""

    def act(arena: Arena, off: tuple[str, ...]) -> Seen:
        victim = arena.victim
        told = arena.attack(f"processes.{function}", *(victim.facts[fact] for fact in facts), off=off)
        return harm(f"the victim's {thing} was changed") if victim.show()[thing] else harmless(told)

    return act


def _read(arena: Arena, off: tuple[str, ...]) -> Seen:
    victim = arena.victim
    told = arena.attack("processes.read_memory", *(victim.facts[fact] for fact in ("pid", "address", "size")), off=off)
    return harm("it knows what is in the victim's memory") if victim.secret in told else harmless(told)


def _kill_domain(arena: Arena, off: tuple[str, ...]) -> Seen:
    """The victim is another domain, which has a uid of its own: not the host's user, and not the attacker's."""
    shared = ["uid"] if "uid" in off else []
    victim = arena.add(DomainConfig("victim", "hvd:idle", on_crash="preserve", sandbox_off=shared))
    told = arena.attack("processes.kill", victim.pid, off=off)
    with contextlib.suppress(HvdError):
        victim.wait_state(DomainState.PRESERVED, deadline_s=_dies_in_s(told))
        return harm("the other domain is dead")
    return harmless(told)


def _dies_in_s(told: str) -> float:
    """How long it is looked whether a victim dies: one whom its killer has sent a signal is waited for."""
    return DEADLINE_S if told.startswith("did") else DIES_S


DIES_S = 0.3
"""For one whom its killer says that it could not reach."""
ATTACKS: list[Attack] = [
    *attacks_on("signal", ("pid", "landlock", *(("uid",) if IS_ROOT else ())), _kill, also_off=("user",)),
    *attacks_on("signal to another domain", ("pid", "landlock", *(("uid",) if IS_ROOT else ())), _kill_domain,
                also_off=("user",)),
    *attacks_on("ptrace", ("pid", "landlock", "seccomp", *WHOSE), _overwrite("trace", "memory", "pid", "address")),
    *attacks_on("process_vm_readv", ("pid", "landlock", "seccomp", *WHOSE), _read),
    *attacks_on("process_vm_writev", ("pid", "landlock", "seccomp", *WHOSE),
                _overwrite("write_memory", "memory", "pid", "address")),
    *attacks_on("/proc/PID/mem", ("root", "landlock", *SEES_PROC),
                _overwrite("write_proc_mem", "memory", "pid", "address"), also_off=SEEN),
    *attacks_on("pidfd_getfd", ("pid", "landlock", "seccomp", *WHOSE),
                _overwrite("steal_descriptor", "fd", "pid", "fd")),
    *attacks_on("/proc/PID/fd", ("root", "landlock", *SEES_PROC),
                _overwrite("open_descriptor", "fd", "pid", "fd"), also_off=SEEN),
]  # fmt: skip
