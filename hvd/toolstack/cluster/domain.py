"""One domain from the outside: what it is now, what can be done to it, what can be waited for."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hvd.toolstack.cluster.errors import CoreDumpFailed, DeviceInUse, NotReached, NotRunning
from hvd.toolstack.cluster.process_times import stops
from hvd.transport import messages as m
from hvd.transport.codec import decode
from hvd.transport.errors import HvdError
from hvd.transport.hypercalls import HypercallError
from hvd.transport.ids import DOM0, DomId, Incarnation
from hvd.transport.run_dir import part_of

if TYPE_CHECKING:
    from hvd.toolstack.cluster.cluster import Cluster
    from hvd.toolstack.cluster.events import EventStream

DOM0_NAME = "Domain-0"
BEATING = "beating"
WAIT_DEADLINE_S = 30.0
CORE_DEADLINE_S = 330.0
"""The machine gives up before that."""
LOOK_EVERY_S = 0.5
DEVICE_DEADLINE_S = 10.0
"""As long as libxl waits for a device that comes or goes (LIBXL_INIT_TIMEOUT, LIBXL_DESTROY_TIMEOUT)."""
GRACE_S = 5.0


def full_name(name: str) -> str:
    """The name the broker knows."""
    return DOM0_NAME if name == "dom0" else name


class DomainState(StrEnum):
    """Where a domain is between create and destroy."""

    WAITING = "waiting"
    """Created; a domain that it comes after is not ready yet."""
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    DUMPING = "dumping"
    """It is stopped while a core of it is written; then it is killed."""
    DYING = "dying"
    """Killed; the kernel has not yet said that it is gone."""
    DEAD = "dead"
    BACKING_OFF = "backing_off"
    """It is started again when its delay is over."""
    FAILED = "failed"
    """It died too often; only reboot or destroy move it."""
    PRESERVED = "preserved"
    """An on_* action keeps it as it died; only reboot or destroy move it."""


ALIVE = frozenset(
    {DomainState.STARTING, DomainState.RUNNING, DomainState.PAUSED, DomainState.DUMPING, DomainState.DYING}
)
"""The states in which it has, or may have, a process."""
ENDED = frozenset({DomainState.FAILED, DomainState.PRESERVED})
"""The states that a domain does not leave by itself."""


@dataclass(frozen=True, slots=True)
class DomainInfo:
    """What is known of a domain at one moment."""

    domid: DomId
    name: str
    state: DomainState
    waits_for: tuple[str, ...]
    """While it is waiting: whom it comes after and who is not ready. Such a domain may be gone."""
    incarnation: Incarnation
    """How often its process has been started; 0: not yet."""
    pid: int | None
    ready: bool
    restarts: int
    memory: int
    """MiB."""
    vcpus: int
    driver_domain: bool
    kernel: str
    last_death: str
    uptime_ns: int
    """The system time of this incarnation, which stands still while it is paused."""
    devices: tuple[dict[str, Any], ...]
    spare: str = ""
    """Whether a process stands by to take over: "stands by", "starting", "none: why"; empty when none is wanted."""
    service: str = ""
    """The service that it names, and whether it is active (with its epoch) or stands by."""
    seclabel: str = ""
    """Its label in the security policy."""
    uuid: str = ""
    shutdown: int | None = None
    """The SHUTDOWN_* reason that this incarnation ended with, or is to end with."""
    cpus: tuple[int, ...] = ()
    """Physical CPUs it may run on; empty: all."""
    io_bps: int = 0
    """Bytes a second that it may read of each disk of the host, and as many to write; 0: any."""
    denials: int = 0
    """How often the policy has denied it something."""
    group: str = ""
    """The group that it is restarted with; empty: none."""
    heartbeat_ms: int = 0
    """How often it is looked at whether it hangs; 0: never."""
    memory_target_kib: int = 0
    """What it is asked to do with; `memory` is what it does with."""
    memory_max_kib: int = 0
    """What it may have at most until it starts again."""
    memory_static_max_kib: int = 0
    """What it was built with."""
    heartbeat: str = ""
    """How it was found last: beating, busy, stopped, ...; empty while it does not run, or has none."""

    @classmethod
    def from_wire(cls, fields: dict[str, Any]) -> DomainInfo:
        """From one row of DomctlList. The machine may be older than we are: what it does not say has its default."""
        known: dict[str, Any] = {name: fields[name] for name in cls.__slots__ if name in fields}
        known |= {name: tuple(known[name]) for name in ("waits_for", "devices", "cpus") if name in known}
        return cls(**(known | {"state": DomainState(fields["state"])}))

    @property
    def state_text(self) -> str:
        """The state for people: of one that waits, for whom; of one that does not take its events, what it does."""
        text = self.state.replace("_", " ")
        if self.heartbeat not in ("", BEATING):
            return f"{text}, {self.heartbeat}"
        return f"{text} for {', '.join(self.waits_for)}" if self.waits_for else text

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, for JSON."""
        return asdict(self)


class Domain:
    """A handle: it names a domid of a cluster, whatever becomes of that."""

    def __init__(self, cluster: Cluster, domid: DomId, name: str) -> None:
        self._cluster = cluster
        self.domid = domid
        self.name = name

    def __repr__(self) -> str:
        return f"<Domain {self.domid} {self.name!r} of {self._cluster.run_dir}>"

    # ---- what it is now: each is asked afresh, and NoSuchDomain once it is destroyed --------------------------------

    def info(self) -> DomainInfo:
        """Everything at one moment."""
        return self._cluster.domain_info(self.domid)

    @property
    def state(self) -> DomainState:
        return self.info().state

    @property
    def pid(self) -> int | None:
        return self.info().pid

    @property
    def incarnation(self) -> Incarnation:
        return self.info().incarnation

    @property
    def restarts(self) -> int:
        return self.info().restarts

    @property
    def last_death(self) -> str:
        return self.info().last_death

    @property
    def ready(self) -> bool:
        return self.info().ready

    def log_path(self) -> Path:
        """The file its console goes to; it appears with the first output."""
        return self._cluster.run_dir / "log" / f"{self.name}.log"

    def console_log(self) -> str:
        """What it has written to its console so far (the last two files' worth)."""
        old, new = self.log_path().with_suffix(".log.1"), self.log_path()
        return "".join(p.read_text(encoding="utf-8", errors="replace") for p in (old, new) if p.exists())

    # ---- what can be done to it -------------------------------------------------------------------------------------

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send its process a signal, as a fault. After SIGKILL, `wait_ready` waits for the incarnation that follows."""
        if number == signal.SIGKILL:
            self._cluster.expect_next(self.info())
        self._cluster.call(m.DomctlKill(self.domid, number))

    def pause(self) -> None:
        """Stop its process and its system time. As with Xen it has stopped by then, unless it was not ready yet."""
        self._cluster.call(m.DomctlPause(self.domid))
        self.wait_paused()

    def wait_paused(self) -> None:
        """Until it has stopped, where it is paused and was ready; NotReached after 30 s."""
        until = time.monotonic() + WAIT_DEADLINE_S
        while (info := self.info()).state is DomainState.PAUSED and info.ready and not stops(info.pid, LOOK_EVERY_S):
            if time.monotonic() > until:
                raise NotReached(f"domain {info.name} is paused, but process {info.pid} of it has not stopped in time")

    def unpause(self) -> None:
        """Let it go on."""
        self._cluster.call(m.DomctlUnpause(self.domid))

    def shutdown(self, grace_s: float = GRACE_S) -> None:
        """Ask it to power off; it is killed after the grace. Returns at once: `wait_gone` or `wait_state` wait.

        With dom0 the machine powers off.
        """
        self._cluster.call(m.DomctlShutdown(self.domid, reboot=False, grace_ms=round(grace_s * 1000)))

    def reboot(self, grace_s: float = GRACE_S, deadline_s: float = WAIT_DEADLINE_S) -> None:
        """Ask it to boot again. `wait_ready` then waits for the incarnation that follows.

        dom0: reboot the machine, and return when all that booted at first is ready again, or raise at the deadline.
        """
        if self.domid == DOM0:
            self._cluster.reboot(grace_s, deadline_s)
            return
        self._cluster.expect_next(self.info())
        self._cluster.call(m.DomctlShutdown(self.domid, reboot=True, grace_ms=round(grace_s * 1000)))

    def config(self) -> m.DomainConfig:
        """What its next start is made of."""
        config: m.DomainConfig = decode(m.DomainConfig, self._cluster.call(m.DomctlGetConfig(self.domid)), self.name)
        return config

    def set_config(self, config: m.DomainConfig) -> None:
        """Replace that; of the incarnation that runs the rates of its vifs change, and nothing else.

        HypercallError EBUSY: a vif that is plugged in would be another.
        """
        self._cluster.call(m.DomctlSetConfig(self.domid, config))

    def rename(self, name: str) -> None:
        """Give it another name. HypercallError EEXIST, or EINVAL for no name or a number: it keeps its own."""
        self._cluster.call(m.DomctlRename(self.domid, name))
        self.name = name

    def trigger(self, name: str) -> None:
        """Press a button: "power" asks it to power off, "reset" boots it again at once, "nmi" crashes it."""
        self._cluster.call(m.DomctlTrigger(self.domid, name))

    def sysrq(self, letter: str) -> None:
        """Send its kernel a magic letter, which it hears when it waits: h has it list those it knows."""
        self._cluster.call(m.DomctlSysrq(self.domid, letter))

    def dump_core(
        self, path: str | os.PathLike[str], tell: Callable[[str], None] = lambda _: None,
        deadline_s: float = CORE_DEADLINE_S,
    ) -> None:  # fmt: skip
        """Write an ELF core of it to a file, which is replaced if there is one; it stands still meanwhile.

        Returns when it goes on. CoreDumpFailed says why there is none, and then the file is as it was; HypercallError
        EBUSY: another one is being written.
        """
        target, until = Path(os.path.realpath(path)), time.monotonic() + deadline_s
        with self._cluster.events() as events:
            incarnation = self.incarnation
            self._cluster.call(m.DomctlDumpCore(self.domid, str(target)))
            while time.monotonic() < until:
                tell(f"writing the core of {self.name}: {_mib_of(part_of(str(target), self.domid, incarnation))} MiB")
                event = events.next_until(min(until, time.monotonic() + LOOK_EVERY_S))
                if event is not None and (event.event, event.domid) == ("core dumped", self.domid):
                    if event.detail.startswith("no core"):
                        raise CoreDumpFailed(f"core dump of {self.name} to {target} failed: {event.detail[9:]}")
                    return
        raise NotReached(f"after {deadline_s:g} s the core of domain {self.name} is not written")

    def mem_set(self, kib: int) -> None:
        """Ask it to do with so many KiB; `info().memory` follows when it does. HypercallError EINVAL: too much."""
        self._cluster.call(m.DomctlMemSet(self.domid, kib))

    def mem_max(self, kib: int) -> None:
        """As much as it may have until it starts again. HypercallError EINVAL: less than its target."""
        self._cluster.call(m.DomctlMemMax(self.domid, kib))

    def attach(self, device: m.DeviceConfig, deadline_s: float = DEVICE_DEADLINE_S) -> str:
        """Give it one more device, and return when that has connected; else who is to go on with it, and why not now.

        DeviceRefused when its driver domain, or it, will not have it: then it has no such device.
        """
        from hvd.toolstack.cluster.plugging import plug

        return plug(self._cluster, self, device, deadline_s)

    def detach(self, kind: str, devid: int, *, force: bool = False, deadline_s: float = DEVICE_DEADLINE_S) -> None:
        """Take a device from it, and return when it has gone.

        DeviceInUse when the domain says that it uses it; NotReached when it says nothing, and then keeps it, unless it
        is letting go already. With `force` it is not asked: what it still asks of the device fails.
        """
        label, until = f"{kind} {devid}", time.monotonic() + deadline_s
        with self._cluster.events() as events:
            try:
                self._cluster.call(m.DomctlDetach(self.domid, kind, devid, force))
                answer = self._answer(events, kind, devid, until)
            except BaseException:  # whoever is interrupted waits no more for what it asked
                with contextlib.suppress(HvdError):
                    self._cluster.call(m.DomctlKeep(self.domid, kind, devid))
                raise
        if answer is None:
            self._take_back_detach(kind, devid, f"after {deadline_s:g} s domain {self.name} has not let go of {label}")
        elif answer:
            raise DeviceInUse(f"domain {self.name} keeps {answer}")

    def _answer(self, events: EventStream, kind: str, devid: int, until: float) -> str | None:
        """Empty: the device has gone; else why it has not; None: nothing is known."""
        label = f"{kind} {devid}"
        while (event := events.next_until(until)) is not None:
            if event.event == "broker restarted" and not self.has_device(kind, devid):
                return ""
            if event.domid != self.domid or event.detail.partition(":")[0] != label:
                continue
            if event.event == "detached":
                return ""
            if event.event == "detach refused":
                return event.detail
        return None

    def _take_back_detach(self, kind: str, devid: int, what: str) -> None:
        """NotReached, unless it has gone in this very moment."""
        try:
            self._cluster.call(m.DomctlKeep(self.domid, kind, devid))
        except HypercallError as error:
            if error.errno == errno.EBUSY:
                text = f"{what}: it has begun to, and the device goes when it has; with `--force` it goes at once"
                raise NotReached(text) from None
            if not self.has_device(kind, devid):
                return
        raise NotReached(f"{what}, nor said why, and keeps it; with `--force` it goes at once")

    def has_device(self, kind: str, devid: int) -> bool:
        """Whether this is one of its devices now."""
        return any((d["kind"], d["devid"]) == (kind, devid) for d in self.info().devices)

    def destroy(self) -> None:
        """Kill it and forget it; its domid is never used again. Returns when it is gone."""
        self._cluster.call(m.DomctlDestroy(self.domid))
        self.wait_gone()

    # ---- what can be waited for: by events, never by asking again and again -----------------------------------------

    def wait_ready(self, deadline_s: float = WAIT_DEADLINE_S) -> None:
        """Until it is doing what it is for; NotReached, naming its last death, when that cannot or does not come."""
        self._cluster.wait_ready(deadline_s, [self])

    def wait_state(self, *states: DomainState, deadline_s: float = WAIT_DEADLINE_S) -> DomainInfo:
        """Until it is in one of these states."""
        return self.wait_until(lambda info: info.state in states, f"to be {' or '.join(states)}", deadline_s)

    def wait_until(
        self, condition: Callable[[DomainInfo], bool], what: str, deadline_s: float = WAIT_DEADLINE_S
    ) -> DomainInfo:
        """Until a condition holds that only lifecycle events change; NoSuchDomain when it is destroyed before."""
        found: list[DomainInfo] = []

        def check() -> bool:
            info = self.info()
            found[:] = [info]
            return condition(info)

        self._cluster.wait_until(check, f"domain {self.name} (domid {self.domid}) {what}", deadline_s)
        return found[0]

    def wait_stopped(self, incarnation: Incarnation, deadline_s: float = WAIT_DEADLINE_S) -> None:
        """Until the process of this incarnation is gone, whatever follows it."""

        def stopped() -> bool:
            info = self._cluster.infos().get(self.domid)
            return info is None or info.incarnation > incarnation or info.state not in ALIVE

        with contextlib.suppress(NotRunning):  # with the machine, everything
            self._cluster.wait_until(stopped, f"domain {self.name} (domid {self.domid}) to stop", deadline_s)

    def wait_gone(self, deadline_s: float = WAIT_DEADLINE_S) -> None:
        """Until it is destroyed."""
        what = f"domain {self.name} (domid {self.domid}) to be gone"
        self._cluster.wait_until(lambda: self.domid not in self._cluster.infos(), what, deadline_s)


def _mib_of(part: str) -> int:
    """What the disk holds of a file: holes are none of it."""
    with contextlib.suppress(OSError):
        return Path(part).stat().st_blocks >> 11
    return 0
