"""Attacks by a guest that is any program: on its own init, which holds grants and doorbells, and on the host."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from hvd.toolstack.attacks.arena import Arena, harm, harmless
from hvd.toolstack.attacks.attack import Attack, Seen
from hvd.toolstack.attacks.layers import IS_ROOT, Act, attacks_on
from hvd.toolstack.cluster import Domain
from hvd.transport.descendants import family
from hvd.transport.messages import DomainConfig

PYTHON = "/usr/bin/python3"
"""The program: it has to be one that domains are shown."""
CODE = Path(__file__).parents[2] / "domains" / "hostile" / "program.py"
INITS_OWN = "/domains/program/init.py"
"""A path that its init has in its memory as long as it lives; the program is not told it."""
OUTCOME = "outcome: "
TUN, TAP = Path("/dev/net/tun"), "did device 10:200"
PROCESSES = 600
NUMBERS = itertools.count()
"""Of attackers: a log is found by its domain's name, and outlives it."""
ENOUGH = 20
"""Looks at a paused domain in all of which it stands still, or it does not."""
STOPPED = (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)


def _program(arena: Arena, function: str, *args: object, off: tuple[str, ...] = (), **fields: Any) -> Domain:
    """A domain in which this function of domains/hostile/program.py has been run."""
    name, code = f"program-{function.replace('_', '-')}-{next(NUMBERS)}", os.path.realpath(CODE)
    config = DomainConfig(
        name, PYTHON, args=["-I", code, function, *map(str, args)], paths=[code],
        **{"on_crash": "preserve", "on_poweroff": "preserve", "sandbox_off": list(off), **fields},
    )  # fmt: skip
    domain = arena.add(config)
    arena.until(lambda: bool(_told(domain)) or domain.pid is None, f"{domain.name} to say what came of it")
    arena.note_sandbox(domain)
    return domain


def _told(domain: Domain) -> str:
    """Empty until all of the line is there: it may be a long one."""
    told = domain.console_log().partition(OUTCOME)[2]
    return told.rstrip("\n") if told.endswith("\n") else ""


def _outcome(domain: Domain) -> str:
    return _told(domain) or f"failed: {domain.last_death}"


def _read_init(arena: Arena, off: tuple[str, ...]) -> Seen:
    told = _outcome(_program(arena, "read_init", off=off))
    return harm("it knows what is in its init's memory") if INITS_OWN in told else harmless(told[:200])


def _take_tap(arena: Arena, off: tuple[str, ...]) -> Seen:
    told = _outcome(_program(arena, "take_tap", off=off))
    return harm("it has one of its init's TAPs") if TAP in told else harmless(told)


def _kill_init(arena: Arena, off: tuple[str, ...]) -> Seen:
    domain = _program(arena, "kill_init", off=off)
    return harm("its init was killed") if "SIGKILL" in domain.last_death else harmless(_outcome(domain))


def _by_its_own_word(function: str, what: str) -> Act:
    """What nobody but the attacker's kernel sees."""

    def act(arena: Arena, off: tuple[str, ...]) -> Seen:
        told = _outcome(_program(arena, function, off=off))
        return harm(what) if told.startswith("did") else harmless(told)

    return act


def _connect(arena: Arena, off: tuple[str, ...]) -> Seen:
    victim = arena.victim
    told = _outcome(_program(arena, "connect_abstract", victim.facts["abstract"], off=off))
    return harm("the victim has a connection") if victim.show()["abstract"] else harmless(told)


def _fork_bomb(arena: Arena, off: tuple[str, ...]) -> Seen:
    domain = _program(arena, "fork_bomb", PROCESSES, off=off, memory=4096)
    count = len(family(domain.pid))
    return harm(f"it has {count} processes") if count > PROCESSES else harmless(f"{_outcome(domain)}; it has {count}")


def _stop_first(domain: Domain) -> None:
    os.kill(domain.pid or 0, signal.SIGSTOP)


def _escape(pause: Callable[[Domain], None]) -> Callable[[Arena], Seen]:
    """A process of a paused domain's that runs on."""

    def act(arena: Arena) -> Seen:
        domain = _program(arena, "run_away")
        pid = domain.pid
        pause(domain)
        looks: list[bool] = []
        arena.until(lambda: _agree(looks, _all_stopped(family(pid))), "what it has to stand still or not")
        return harmless("all its processes are stopped") if looks[-1] else harm("it runs away all the same")

    return act


def _all_stopped(pids: list[int]) -> bool:
    """By what the kernel says: one that waits for a CPU is not, however long it waits."""
    states = []
    for pid in pids:
        try:
            states.append(psutil.Process(pid).status())
        except psutil.NoSuchProcess:
            return False
    return all(state in STOPPED for state in states)


def _agree(looks: list[bool], now: bool) -> bool:
    """Whether it was so in so many looks in a row; or it was not, in many more."""
    looks.append(now)
    return (all(looks[-ENOUGH:]) and len(looks) >= ENOUGH) or len(looks) > 4 * ENOUGH


WHOSE = ("uid",) if IS_ROOT else ("user",)
"""What has it in a user namespace of its own."""
ATTACKS: list[Attack] = [
    *attacks_on("a program reads its init's memory", ("opaque", "landlock", *WHOSE), _read_init),
    *attacks_on("a program traces its init", ("opaque", "landlock", "seccomp", *WHOSE),
                _by_its_own_word("trace_init", "it traces its init")),
    *attacks_on("a program kills its init", ("pid", "landlock"), _kill_init),
    *attacks_on("a program makes a namespace", ("seccomp",),
                _by_its_own_word("make_user_namespace", "it has a user namespace")),
    *attacks_on("a program mounts", ("capabilities", "landlock", "seccomp"),
                _by_its_own_word("mount", "it has mounted"), also_off=("uid",), as_root=True),
    *attacks_on("a program connects to the host", ("network", "landlock"), _connect),
    *attacks_on("a program's fork bomb", ("limits", "cgroups"), _fork_bomb),
    Attack("a program escapes a pause", "machine", _escape(Domain.pause), _escape(_stop_first),
           "only its init is stopped"),
    *(attacks_on("a program takes its init's TAP", ("opaque", "landlock", *WHOSE), _take_tap, as_root=True)
      if TUN.exists() else ()),
] if Path(PYTHON).exists() else []  # fmt: skip
