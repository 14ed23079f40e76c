"""A cluster from the outside: start it or attach to it, look at it, change it, wait for it, end it."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from hvd.toolstack.cluster.boot_plan import BootPlan
from hvd.toolstack.cluster.connection import Connection
from hvd.toolstack.cluster.domain import WAIT_DEADLINE_S, Domain, DomainInfo, full_name
from hvd.toolstack.cluster.errors import ClusterError, NoSuchDomain, NotReached, NotRunning, StartFailed
from hvd.toolstack.cluster.events import CREATED, HELLO, EventStream, LifecycleEvent
from hvd.toolstack.cluster.listings import Listings
from hvd.toolstack.cluster.machine_process import MachineProcess
from hvd.toolstack.cluster.power_off import GRACE_S, power_off, stop_guests
from hvd.toolstack.cluster.readiness import Readiness
from hvd.toolstack.cluster.run_dirs import check_run_dir, default_run_dir, make_private_dir
from hvd.transport import messages as m
from hvd.transport.hypercalls import HypercallTimeout
from hvd.transport.ids import DomId, Incarnation
from hvd.transport.run_dir import AUDIT_LOG

if TYPE_CHECKING:
    from hvd.toolstack.faults.injection import Injection
    from hvd.toolstack.trace.trace import Trace

ALREADY = 0.0
"""A deadline that has passed: what is there, and no waiting."""
UP_DEADLINE_S = 30.0


class Cluster(Listings):
    """A cluster that this program starts, and ends with it, or (`attach`) one that runs already.

    with Cluster.load("cockpit.toml") as cluster:
        cluster.domain("storage").kill()
        cluster.domain("storage").wait_ready()
    """

    def __init__(self, plan: BootPlan | None, run_dir: str | os.PathLike[str] | None = None) -> None:
        """Nothing is started before `start`. Without a directory it gets a private one, which is removed at the end."""
        self.plan = plan
        self.temporary = run_dir is None
        self._run_dir = None if run_dir is None else Path(os.path.realpath(run_dir))
        self._machine: MachineProcess | None = None
        self._connection: Connection | None = None
        self._next_incarnation: dict[DomId, Incarnation] = {}

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        run_dir: str | os.PathLike[str] | None = None,
        policy: str | os.PathLike[str] | None = None,
    ) -> Cluster:
        """The cluster that a file describes; ConfigError names everything that is wrong with it.

        `policy`, a name or a file, stands in the place of the security policy that the file names.
        """
        from hvd.toolstack.cluster.configuration import plan_from_file
        from hvd.toolstack.config.policy_file import load_policy

        return cls(plan_from_file(path, None if policy is None else load_policy(policy)), run_dir)

    @classmethod
    def build(
        cls,
        domains: Iterable[m.DomainConfig] = (),
        run_dir: str | os.PathLike[str] | None = None,
        name: str = "hvd",
        policy: str | os.PathLike[str] | None = None,
        groups: Iterable[m.GroupConfig] = (),
        *,
        networks: Iterable[m.NetworkConfig] = (),
        cpus: Iterable[int] = (),
    ) -> Cluster:
        """A cluster of these domains; one named Domain-0 says what dom0 is. ConfigError when something is wrong.

        `policy` is the name or the file of its security policy; None: the default. `groups`: who is restarted together.
        `networks`: those that vifs name, as in a file; without any, each bridge is one. `cpus`: where the hypervisor's
        own processes run; without any, wherever there is room.
        """
        from hvd.toolstack.cluster.configuration import plan_from_domains
        from hvd.toolstack.config.policy_file import load_policy

        loaded = None if policy is None else load_policy(policy)
        return cls(plan_from_domains(domains, name, loaded, groups=groups, networks=networks, cpus=cpus), run_dir)

    @classmethod
    def attach(cls, run_dir: str | os.PathLike[str] | None = None) -> Cluster:
        """The cluster that runs in a directory (HVD_RUN_DIR, or the default one); NotRunning when none does.

        It goes on when this object is closed; `down` ends it.
        """
        cluster = cls(None, default_run_dir() if run_dir is None else run_dir)
        cluster._connection = Connection(cluster.run_dir)
        return cluster

    # ---- life -------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        if self._connection is None:
            self.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._machine is None:
            self.close()
        else:
            self.down(grace_s=GRACE_S if kind is None else 0)

    def start(self, deadline_s: float = UP_DEADLINE_S, tell: Callable[[str], None] | None = None) -> None:
        """Start the machine and wait until every domain is ready; StartFailed, and nothing is left, when one is not."""
        until = time.monotonic() + deadline_s
        self.switch_on(deadline_s)
        self.boot(max(0.0, until - time.monotonic()), tell)

    def switch_on(self, deadline_s: float = UP_DEADLINE_S, *, machine: MachineProcess | None = None) -> None:
        """Start the machine, or take one that has its order, and connect; the domains are booting then."""
        if self._connection is not None:
            raise ClusterError(f"the cluster in {self.run_dir} is running already")
        if self.plan is None:
            raise ClusterError(f"the cluster in {self.run_dir} was attached to: whoever has its file starts it")
        run_dir = self._run_dir or make_private_dir()
        try:
            if machine is None:
                check_run_dir(run_dir)
                machine = MachineProcess.spawn()
                machine.order(self.plan.order(run_dir, temporary=self.temporary))
            machine.wait_up(deadline_s)
            self._connection = Connection(run_dir)
        except BaseException:
            if machine is not None:
                machine.discard()
            if self._run_dir is None:
                shutil.rmtree(run_dir, ignore_errors=True)
            raise
        self._machine, self._run_dir = machine, run_dir

    def boot(
        self,
        deadline_s: float = UP_DEADLINE_S,
        tell: Callable[[str], None] | None = None,
        hear: Callable[[LifecycleEvent], None] | None = None,
    ) -> None:
        """Wait until every domain is ready; else end the machine and raise StartFailed.

        `tell` hears who is waited for, `hear` every event since the machine was switched on.
        """
        try:
            self.wait_ready(deadline_s, tell=tell, hear=hear or _ignore)
        except BaseException as error:
            words = "" if self._machine is None else self._machine.last_words()
            self.down(grace_s=0)
            if isinstance(error, NotReached | NotRunning | HypercallTimeout):
                raise StartFailed("; ".join(filter(None, (str(error), words)))) from None
            raise

    def down(self, grace_s: float = GRACE_S, tell: Callable[[str], None] | None = None) -> None:
        """Power off: guests are asked to stop and have `grace_s` for it (0: no question), then everything is ended.

        Returns when every process is gone; `tell` hears what is waited for. Nothing happens when it is down already.
        """
        if self._connection is None:
            return
        try:
            power_off(self._connection, grace_s, tell or _ignore)
            if self._machine is not None:
                self._machine.wait(0)
            if self.temporary:
                shutil.rmtree(self.run_dir, ignore_errors=True)  # where the machine was killed before it could
        finally:
            self.close()

    def reboot(
        self,
        grace_s: float = GRACE_S,
        deadline_s: float = UP_DEADLINE_S,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        """Stop the guests, switch the machine off and on, and wait until all that booted at first is ready again."""
        until = time.monotonic() + deadline_s
        with self.events() as events:
            stop_guests(self.connection, grace_s, tell or _ignore)
            asked = time.monotonic()
            self.call(m.MachineStop(reboot=True))
            (tell or _ignore)("waiting for the broker")
            while (event := events.next_until(until)) is not None:
                if event.event == HELLO and self.info()["uptime_ns"] < (time.monotonic() - asked) * 1e9:
                    break
            else:
                raise NotReached(f"the broker is not up {deadline_s:g} s after the reboot")
        self._next_incarnation.clear()
        self.wait_ready(max(0.0, until - time.monotonic()), tell=tell)

    def let_go(self) -> None:
        """From now on the machine that this program has started goes on when it ends; StartFailed: it has ended."""
        if self._machine is not None:
            self._machine.let_go()

    def close(self) -> None:
        """Nothing more of it: it ends if this program has started it, and has not let it go."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._machine is not None:
            self._machine.close()
            self._machine = None

    # ---- looking ----------------------------------------------------------------------------------------------------

    @property
    def run_dir(self) -> Path:
        """Where its sockets and logs are."""
        if self._run_dir is None:
            raise ClusterError("the cluster has no directory before it is started")
        return self._run_dir

    @property
    def connection(self) -> Connection:
        if self._connection is None:
            raise ClusterError("the cluster is not running: enter it with `with`, or call start()")
        return self._connection

    def call(self, message: Any) -> Any:
        """Any hypercall, with dom0's privilege; HypercallError when it is refused."""
        return self.connection.call(message)

    def infos(self) -> dict[DomId, DomainInfo]:
        """Every domain at one moment, dom0 first."""
        rows = (DomainInfo.from_wire(fields) for fields in self.call(m.DomctlList()))
        return {row.domid: row for row in rows}

    def domain_info(self, domid: DomId) -> DomainInfo:
        """One domain at one moment; NoSuchDomain."""
        info = self.infos().get(domid)
        if info is None:
            raise NoSuchDomain(f"domain {domid} does not exist (any more)")
        return info

    def domains(self) -> list[Domain]:
        """Every domain, dom0 first."""
        return [Domain(self, info.domid, info.name) for info in self.infos().values()]

    def domain(self, name: str | int) -> Domain:
        """A domain by name (dom0 by either of its names) or domid; NoSuchDomain lists those there are."""
        infos = self.infos().values()
        wanted = full_name(str(name))
        for info in infos:
            if wanted in (info.name, str(info.domid)):
                return Domain(self, info.domid, info.name)
        raise NoSuchDomain(f"no domain {name!r} in {self.run_dir}; there are: {', '.join(i.name for i in infos)}")

    def events(self, after: int | None = None) -> EventStream:
        """Lifecycle events from now on, or behind the one of that number (0: all that are kept).

        Iterate over it, and close it or use `with`. None is lost or repeated, whatever brokers die.
        """
        return self.connection.events(after)

    # ---- the security policy ----------------------------------------------------------------------------------------

    def getenforce(self) -> bool:
        """Whether what the policy denies is refused, or only logged."""
        return bool(self.call(m.XsmGetenforce())["enforcing"])

    def setenforce(self, enforcing: bool) -> None:
        """Refuse what the policy denies, or let it pass and log it."""
        self.call(m.XsmSetenforce(enforcing))

    def load_policy(self, policy: str | os.PathLike[str]) -> None:
        """Load the policy of this name or in this file, for all that is asked from now on.

        ConfigError names everything that is wrong with the file; HypercallError: it lacks a label that a domain has.
        """
        from hvd.toolstack.config.policy_file import load_policy

        self.call(m.XsmLoad(load_policy(policy)))

    def audit_log(self) -> list[str]:
        """What the policy denied, each line behind its time (the last two files' worth)."""
        new = self.run_dir / AUDIT_LOG
        parts = (new.with_suffix(".log.1"), new)
        return [line for part in parts if part.exists() for line in part.read_text().splitlines()]

    # ---- tracing ----------------------------------------------------------------------------------------------------

    def trace(self, path: str | os.PathLike[str] = "hvd.pftrace", domains: Sequence[str | int] = ()) -> Trace:
        """Record these domains, or all, while a `with` block runs; then there is a file for ui.perfetto.dev.

        Needs the extra `trace`: MissingPackage says how to install it. The block gets an object whose `summary` says
        behind it what was recorded.
        """
        from hvd.toolstack.trace.trace import Trace

        return Trace(self, Path(path), domains)

    # ---- faults -----------------------------------------------------------------------------------------------------

    def fault(
        self,
        name: str,
        *victims: Domain | str,
        for_s: float | None = None,
        seed: int | None = None,
        **parameters: int | str,
    ) -> Injection:
        """Inject a fault (docs/faults.md): `with cluster.fault("hang", "storage", for_s=2) as injection: ...`

        BadFault says what is wrong with the order, HypercallError what the broker refuses; then nothing was injected.
        """
        from hvd.toolstack.faults.injection import inject

        return inject(self, name, victims, for_s, seed, **parameters)

    # ---- changing and waiting ---------------------------------------------------------------------------------------

    def create(self, config: m.DomainConfig) -> Domain:
        """A new domain; it starts when all that it comes after is ready. `wait_ready` waits for that.

        A kernel that is a file is found from the current directory. HypercallError when the broker refuses.
        """
        if "/" in config.kernel or config.kernel.endswith(".py"):
            config = replace(config, kernel=str(Path(config.kernel).absolute()))
        domid = DomId(self.call(m.DomctlCreate(config)))
        return Domain(self, domid, config.name)

    def expect_next(self, info: DomainInfo) -> None:
        """`wait_ready` is to wait for a later incarnation than this one."""
        self._next_incarnation[info.domid] = Incarnation(info.incarnation + 1)

    def wait_ready(
        self,
        deadline_s: float = WAIT_DEADLINE_S,
        domains: Sequence[Domain] | None = None,
        tell: Callable[[str], None] | None = None,
        hear: Callable[[LifecycleEvent], None] | None = None,
    ) -> None:
        """Until these domains, or all that are to run, are ready; NotReached names who is not, and its last death.

        `hear`, of a boot: hears all events since it began, and who was created since then is to run, gone or not.
        """
        until = time.monotonic() + deadline_s
        with self.events(after=None if hear is None else 0) as events:
            infos = self.infos()
            readiness = Readiness(self._wanted(domains, infos), self.run_dir)
            try:
                readiness.look(infos)
                if hear is not None:
                    for old in events.up_to_now():
                        hear(old)
                        if old.event == CREATED and (self.plan is None or old.name not in self.plan.held_back):
                            readiness.want(old)
                        readiness.note(old)
                    readiness.look(infos := self.infos())
                while not readiness.complete:
                    (tell or _ignore)(f"waiting for {readiness.names(infos)}")
                    event = events.next_until(until)
                    if event is None:
                        raise NotReached(f"after {deadline_s:.3g} s {readiness.missing(self.infos())}")
                    while event is not None:  # all the news there are: looking at hundreds of domains for each is dear
                        (hear or _ignore)(event)
                        readiness.note(event)
                        event = events.next_until(ALREADY)
                    readiness.look(infos := self.infos())
                if hear is not None:
                    for event in events.up_to_now():
                        hear(event)
            except NotRunning as error:
                for event in events:
                    readiness.note(event)
                raise NotRunning(f"{error}; {readiness.last_failure()}".rstrip("; ")) from None

    def wait_until(self, condition: Callable[[], bool], what: str, deadline_s: float = WAIT_DEADLINE_S) -> None:
        """Look now and after every event; NotReached at the deadline."""
        until = time.monotonic() + deadline_s
        with self.events() as events:
            while not condition():
                if events.next_until(until) is None:
                    raise NotReached(f"waited {deadline_s:g} s for {what}")

    def _wanted(self, domains: Sequence[Domain] | None, infos: dict[DomId, DomainInfo]) -> dict[DomId, Incarnation]:
        """Whom to wait for, and from which incarnation on."""
        if domains is None:
            held = self.plan.held_back if self.plan else frozenset()
            domids = [info.domid for info in infos.values() if info.name not in held]
        else:
            domids = [domain.domid for domain in domains]
        return {domid: self._next_incarnation.get(domid, Incarnation(1)) for domid in domids}


def _ignore(news: object) -> None:
    """For whoever does not want to know."""
