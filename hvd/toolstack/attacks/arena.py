"""Where attacks take place: a cluster of its own, hostile domains and victims in it, and what the outside sees."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from hvd.toolstack.attacks.attack import Seen
from hvd.toolstack.attacks.host_victim import HostVictim
from hvd.toolstack.cluster import Cluster, Domain, DomainState
from hvd.transport import messages as m
from hvd.transport.errors import HvdError
from hvd.transport.hypercalls import HypercallError

DEADLINE_S = 20.0
LOOK_AGAIN_S = 0.003
KERNEL = "hvd:hostile"
DEFAULT_POLICY = "default"
PATIENCE_S = 5.0
"""How long a victim may take to say how it is before it counts as harmed."""


class AttackError(HvdError):
    """An attack that was never carried out: its own code is wrong."""


class Arena:
    """Use with `with`. Between two attempts everything is as it was: `fresh` sees to that."""

    def __init__(self, policy: str | os.PathLike[str] | None = None) -> None:
        self._policy = policy
        self._stack = contextlib.ExitStack()
        self._domains: list[Domain] = []
        self._victim: HostVictim | None = None
        self._controls: dict[str, Seen] = {}
        self.lacked: dict[str, str] = {}
        """What the sandbox of the latest attacker did without, whether it was switched off or could not be had."""

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self.home = Path(tempfile.mkdtemp(prefix="hvd-attacks-"))
            stack.callback(shutil.rmtree, self.home)
            self.home.chmod(0o755)
            self.cluster = stack.enter_context(Cluster.build(name="attacks", policy=self._policy))
            stack.callback(self._end_victim)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @contextlib.contextmanager
    def fresh(self) -> Iterator[None]:
        """Whatever domains are made meanwhile are gone behind it."""
        try:
            yield
        finally:
            self.clear()

    def clear(self) -> None:
        """Destroy every domain of this attempt, and wait until they are gone."""
        for domain in self._domains:
            with contextlib.suppress(HypercallError):
                self.cluster.call(m.DomctlDestroy(domain.domid))
        for domain in self._domains:
            domain.wait_gone(DEADLINE_S)
        self._domains.clear()

    @contextlib.contextmanager
    def policy(self, name: str | os.PathLike[str]) -> Iterator[None]:
        """Another security policy for a while."""
        self.cluster.load_policy(name)
        try:
            yield
        finally:
            self.cluster.load_policy(self._policy or DEFAULT_POLICY)

    @property
    def policy_name(self) -> str:
        return str(self.cluster.info()["policy"])

    # ---- domains -----------------------------------------------------------------------------------------------------

    def domain(self, function: str, *args: object, off: tuple[str, ...] = (), wait: bool = True,
               **fields: Any) -> Domain:  # fmt: skip
        """A domain that runs this function of hvd.domains.hostile, without these layers of the sandbox.

        A system call that is not allowed fails: that it kills is an attack of its own.
        """
        name = f"{function.replace('.', '-').replace('_', '-')}-{len(self._domains)}"
        config = m.DomainConfig(
            name, KERNEL, args=[function, *map(str, args)],
            **{"on_crash": "preserve", "seccomp": "eperm", "sandbox_off": list(off), **fields},
        )  # fmt: skip
        return self.add(config, wait=wait)

    def add(self, config: m.DomainConfig, *, wait: bool = True) -> Domain:
        """Any domain; by default one that has begun. One that is created paused has not run a line of its kernel."""
        domain = self.cluster.create(config)
        self._domains.append(domain)
        if config.paused:
            domain.wait_state(DomainState.PAUSED, deadline_s=DEADLINE_S)
        elif wait:
            domain.wait_until(lambda info: info.ready or info.state in ENDED, "to begin", DEADLINE_S)
        return domain

    def attack(self, function: str, *args: object, off: tuple[str, ...] = (), **fields: Any) -> str:
        """Let a hostile domain do this; what it says of it, or how it ended."""
        domain = self.domain(function, *args, off=off, **fields)
        told = self.outcome(domain)
        self.note_sandbox(domain)
        return told

    def once(self, name: str, control: Callable[[], Seen]) -> Seen:
        """What this control came to when it succeeded: it is the same for each layer that an attack is tried on."""
        if name not in self._controls:
            seen = control()
            if not seen.harmed:
                return seen
            self._controls[name] = seen
        return self._controls[name]

    def note_sandbox(self, domain: Domain) -> None:
        """Remember what this attacker's sandbox did without."""
        rows = [row for row in self.cluster.sandboxes() if row["domid"] == domain.domid]
        self.lacked = rows[0]["lacking"] if rows else {}

    def outcome(self, domain: Domain, deadline_s: float = DEADLINE_S) -> str:
        """What a domain says came of it, when it has; or how it ended."""
        self.until(lambda: self._has_ended(domain), f"{domain.name} to say what came of it", deadline_s)
        told = self.read(domain, "data/outcome")
        if told is not None:
            return told
        if domain.last_death.startswith("crash: "):
            raise AttackError(f"the hostile code of {domain.name} is wrong: {domain.last_death}")
        return f"failed: {domain.last_death}"

    def ask(self, domain: Domain) -> dict[str, Any] | None:
        """A victim's own state; None when it does not answer any more."""
        self.remove(domain, "data/state")
        self.write(domain, "data/show", time.monotonic_ns())
        with contextlib.suppress(TimeoutError):
            return dict(json.loads(self.node(domain, "data/state", PATIENCE_S)))
        return None

    # ---- XenStore, as domain 0 ---------------------------------------------------------------------------------------

    def read(self, domain: Domain, path: str) -> str | None:
        """A node below a domain's home."""
        with contextlib.suppress(HypercallError):
            return str(self.cluster.call(m.StoreRead(0, f"{home(domain)}/{path}")).decode())
        return None

    def write(self, domain: Domain, path: str, value: object) -> None:
        self.cluster.call(m.StoreWrite(0, f"{home(domain)}/{path}", str(value).encode()))

    def remove(self, domain: Domain, path: str) -> None:
        with contextlib.suppress(HypercallError):
            self.cluster.call(m.StoreRm(0, f"{home(domain)}/{path}"))

    def node(self, domain: Domain, path: str, deadline_s: float = DEADLINE_S) -> str:
        """Wait until a domain has written this; TimeoutError past the deadline or when it has ended without it."""
        self.until(lambda: self.read(domain, path) is not None or self._has_ended(domain),
                   f"{domain.name} to write {path}", deadline_s)  # fmt: skip
        value = self.read(domain, path)
        if value is None:
            how = self.read(domain, "data/outcome") or domain.last_death
            raise TimeoutError(f"{domain.name} ended before it wrote {path}: {how}")
        return value

    def _has_ended(self, domain: Domain) -> bool:
        return domain.state in ENDED or self.read(domain, "data/outcome") is not None

    def until(self, condition: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> None:
        """For what no event announces. TimeoutError naming it past the deadline."""
        end = time.monotonic() + deadline_s
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"waited {deadline_s:g} s for {what}")
            time.sleep(LOOK_AGAIN_S)

    # ---- the host ----------------------------------------------------------------------------------------------------

    @property
    def victim(self) -> HostVictim:
        """A process of the host with memory, descriptors, sockets and files that no domain was given."""
        if self._victim is None or not self._victim.alive:
            self._end_victim()
            self._victim = HostVictim(self.home)
        return self._victim

    def _end_victim(self) -> None:
        if self._victim is not None:
            self._victim.close()
            self._victim = None

    def broker_pid(self) -> int:
        return int(self.cluster.info()["broker_pid"])


def carried_out(told: str, as_told: str) -> str:
    """What is told of an attack, if that begins as this pattern says; AttackError if not.

    Whoever never began, or died of something else before it had done anything, was not stopped.
    """
    if re.match(as_told, told, re.DOTALL) is None:
        raise AttackError(f"it comes to nothing, where it should end with {as_told!r}: {told}")
    return told


ENDED = frozenset({DomainState.PRESERVED, DomainState.FAILED})


def home(domain: Domain) -> str:
    return f"/local/domain/{domain.domid}"


def harmless(what: str) -> Seen:
    """The victim is as it was."""
    return Seen(False, what)


def harm(what: str) -> Seen:
    """The victim came to harm."""
    return Seen(True, what)
