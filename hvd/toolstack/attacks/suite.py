"""Runs attacks: each with what stops it, then the control without, in one arena."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterable, Sequence
from typing import Self

from hvd.toolstack.attacks import (
    broker,
    channels,
    disks,
    exhaustion,
    host,
    pairs,
    policy,
    processes,
    programs,
    races,
    store,
    vifs,
    xenstored,
)
from hvd.toolstack.attacks.arena import DEFAULT_POLICY, Arena
from hvd.toolstack.attacks.attack import Attack, Result, Seen
from hvd.toolstack.attacks.threats import ADVISORY
from hvd.toolstack.cluster.sandbox_trial import lacking_here
from hvd.toolstack.config import ConfigError
from hvd.toolstack.config.problems import Problem, nearest
from hvd.transport.errors import HvdError

FAMILIES = (
    processes, programs, host, exhaustion, broker, pairs, races, channels, store, xenstored, disks, vifs, policy,
)  # fmt: skip
ATTACKS: dict[str, Attack] = {attack.name: attack for family in FAMILIES for attack in family.ATTACKS}


def chosen(names: Sequence[str]) -> list[Attack]:
    """Those whose names begin so or have the advisory of this number, or all. ConfigError names what there is not."""
    for name in names:
        if not any(_is_meant(known, name) for known in ATTACKS):
            near = nearest(name, ATTACKS)
            raise ConfigError([Problem("command line", "--only", "the name of an attack: --list shows them", repr(name),
                                       near)])  # fmt: skip
    return [attack for attack in ATTACKS.values() if not names or any(_is_meant(attack.name, name) for name in names)]


def _is_meant(attack: str, name: str) -> bool:
    return attack.startswith(name) or (ADVISORY.fullmatch(name) is not None and name in attack.split())


class Runner:
    """Runs attacks one after the other in one arena, and in a new one behind an attack that came to nothing.

    Use with `with`: the arena is built by the first attack.
    """

    def __init__(self, policy: str | None = None) -> None:
        self._policy = policy
        self._lacking = lacking_here()
        self._arena = contextlib.ExitStack()
        self._built: Arena | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._arena.close()

    def run(self, attack: Attack) -> Result:
        """What came of it. One that could not be carried out was not stopped, and takes no other attack with it."""
        try:
            if self._built is None:
                self._built = self._arena.enter_context(Arena(self._policy))
            return run(self._built, attack, self._lacking)
        except (HvdError, OSError, ValueError, subprocess.SubprocessError) as error:
            self._give_up_arena()
            text = f"it was not carried out: {type(error).__name__}: {error}"
            return Result(attack.name, attack.layer, False, text, text, False)

    def _give_up_arena(self) -> None:
        self._built = None
        with contextlib.suppress(HvdError, OSError, subprocess.SubprocessError):
            self._arena.close()
        self._arena = contextlib.ExitStack()


def run(arena: Arena, attack: Attack, lacking: dict[str, str]) -> Result:
    """One attack under the arena's policy, and its control under the default one.

    `lacking`: layers of the sandbox that this machine does not have, and why.
    """
    reason = _not_here(attack, lacking)
    if reason:
        return Result(attack.name, attack.layer, None, reason, "", None)
    arena.lacked = {}
    with arena.fresh():
        seen = _attempt(arena, attack)
    if attack.layer in arena.lacked:
        reason = f"no layer {attack.layer} here without the others: {arena.lacked[attack.layer]}"
        return Result(attack.name, attack.layer, None, reason, "", None)
    with arena.policy(DEFAULT_POLICY):
        control = _control(arena, attack)
    return Result(attack.name, attack.layer, not seen.harmed, seen.what, _told(attack, control), control.harmed)


def _attempt(arena: Arena, attack: Attack) -> Seen:
    try:
        return attack.attempt(arena)
    except (HvdError, TimeoutError) as error:
        if arena.policy_name == DEFAULT_POLICY:
            raise
        return Seen(False, f"the policy {arena.policy_name} denies what it takes: {error}")


def _control(arena: Arena, attack: Attack) -> Seen:
    for _ in range(attack.tries):
        with arena.fresh():
            seen = attack.control(arena)
        if seen.harmed:
            break
    return seen


def _not_here(attack: Attack, lacking: dict[str, str]) -> str:
    for layer in attack.needs:
        if layer in lacking:
            return f"no layer {layer} here: {lacking[layer]}"
    if attack.as_root is not None and attack.as_root != (os.geteuid() == 0):
        return "only where root started the machine" if attack.as_root else "only where root did not start the machine"
    return ""


def _told(attack: Attack, control: Seen) -> str:
    return f"{attack.without}: {control.what}"


def all_as_they_should_be(results: Iterable[Result]) -> bool:
    """Everything that applies here was stopped, and every control succeeded."""
    return all(result.as_it_should_be for result in results)
