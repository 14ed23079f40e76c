"""A domain as the hypervisor sees it: its record, and the one table of what may become of it."""

from __future__ import annotations

import errno
from collections import deque
from enum import IntEnum, auto

from hvd.broker.answers import Ahead, Calls
from hvd.broker.errors import Refused
from hvd.transport.fault_notice import FaultNotice
from hvd.transport.ids import DOMID_SELF, DomId, ExtentId, Incarnation, Port
from hvd.transport.messages import DomainConfig
from hvd.transport.records import dataclass, field


def subject(caller: DomId, dom: DomId) -> DomId:
    """The domain that a hypercall's field means: its caller by number or as DOMID_SELF, or another."""
    return caller if dom == DOMID_SELF else dom


class Life(IntEnum):
    """Where a domain is between create and destroy."""

    WAITING = auto()
    """Created, or stopped with its group; one that it comes `after` is not ready, or one of the group not gone."""
    STARTING = auto()
    """The machine was asked for its process."""
    RUNNING = auto()
    """Its process runs."""
    PAUSED = auto()
    """Its process is stopped, its system time with it."""
    DUMPING = auto()
    """Its process is stopped and a core of it is being written; then it is killed."""
    DYING = auto()
    """It was killed; until the kernel says it is gone nothing it held may be given away."""
    DEAD = auto()
    """Behind the fence: no thread of it is left. What follows is decided at once."""
    BACKING_OFF = auto()
    """It will be started again when its delay is over."""
    FAILED = auto()
    """It died too often, or its group did; only reboot or destroy move it."""
    PRESERVED = auto()
    """An on_* action says to keep it as it is; only reboot or destroy move it."""


class Event(IntEnum):
    """What happens to a domain."""

    START = auto()
    """All that it waits for is ready, its delay is over, or it was told to boot again."""
    STARTED = auto()
    """The machine reports its process."""
    PAUSE = auto()
    UNPAUSE = auto()
    DUMP = auto()
    """Its process is to be killed, by whatever reason, when a core of it is written."""
    KILL = auto()
    """Its process is being killed, by whatever reason."""
    DEATH = auto()
    """The kernel reports that its process is gone."""
    BACK_OFF = auto()
    """The policy says: again, after a delay."""
    GIVE_UP = auto()
    """The policy says: too often."""
    PRESERVE = auto()
    """The on_* action says: keep."""
    AWAIT = auto()
    """Its group restarts: it is started again with the others."""


NEXT: dict[tuple[Life, Event], Life] = {
    (Life.WAITING, Event.START): Life.STARTING,
    (Life.WAITING, Event.GIVE_UP): Life.FAILED,
    (Life.STARTING, Event.STARTED): Life.RUNNING,
    (Life.STARTING, Event.KILL): Life.DYING,
    (Life.STARTING, Event.DEATH): Life.DEAD,
    (Life.STARTING, Event.DUMP): Life.DUMPING,
    (Life.RUNNING, Event.PAUSE): Life.PAUSED,
    (Life.RUNNING, Event.DUMP): Life.DUMPING,
    (Life.RUNNING, Event.KILL): Life.DYING,
    (Life.RUNNING, Event.DEATH): Life.DEAD,
    (Life.PAUSED, Event.UNPAUSE): Life.RUNNING,
    (Life.PAUSED, Event.DUMP): Life.DUMPING,
    (Life.PAUSED, Event.KILL): Life.DYING,
    (Life.PAUSED, Event.DEATH): Life.DEAD,
    (Life.DUMPING, Event.STARTED): Life.DUMPING,
    (Life.DUMPING, Event.KILL): Life.DYING,
    (Life.DUMPING, Event.DEATH): Life.DEAD,
    (Life.DYING, Event.STARTED): Life.DYING,
    (Life.DYING, Event.KILL): Life.DYING,
    (Life.DYING, Event.DEATH): Life.DEAD,
    (Life.DEAD, Event.START): Life.STARTING,
    (Life.DEAD, Event.BACK_OFF): Life.BACKING_OFF,
    (Life.DEAD, Event.GIVE_UP): Life.FAILED,
    (Life.DEAD, Event.PRESERVE): Life.PRESERVED,
    (Life.DEAD, Event.AWAIT): Life.WAITING,
    (Life.BACKING_OFF, Event.START): Life.STARTING,
    (Life.BACKING_OFF, Event.GIVE_UP): Life.FAILED,
    (Life.BACKING_OFF, Event.AWAIT): Life.WAITING,
    (Life.FAILED, Event.START): Life.STARTING,
    (Life.PRESERVED, Event.START): Life.STARTING,
}

ALIVE = frozenset({Life.STARTING, Life.RUNNING, Life.PAUSED, Life.DUMPING, Life.DYING})
"""The lives in which there is, or may be, a process."""
ACTING = frozenset({Life.STARTING, Life.RUNNING, Life.PAUSED})
"""The lives in which it may still do something, and its time counts."""


class Shutdown(IntEnum):
    """Why a domain stopped (public/sched.h SHUTDOWN_*)."""

    POWEROFF = 0
    REBOOT = 1
    SUSPEND = 2
    CRASH = 3
    WATCHDOG = 4
    SOFT_RESET = 5
    UNKNOWN = 255
    """A number that sched.h has no name for."""

    @classmethod
    def of(cls, number: int) -> Shutdown:
        """Any number is a reason, as in Xen."""
        try:
            return cls(number)
        except ValueError:
            return cls.UNKNOWN


@dataclass(slots=True)
class Clock:
    """A domain's system time: host time since it started, less what it spent paused. All in nanoseconds."""

    started_ns: int = 0
    paused_ns: int = 0
    paused_since_ns: int | None = None

    def pause(self, now_ns: int) -> None:
        self.paused_since_ns = now_ns

    def unpause(self, now_ns: int) -> None:
        if self.paused_since_ns is not None:
            self.paused_ns += now_ns - self.paused_since_ns
            self.paused_since_ns = None

    def system_time_ns(self, now_ns: int) -> int:
        end = now_ns if self.paused_since_ns is None else self.paused_since_ns
        return end - self.started_ns - self.paused_ns

    def host_time_ns(self, system_time_ns: int) -> int | None:
        """When the system time will be that; None while it stands still."""
        return None if self.paused_since_ns is not None else self.started_ns + self.paused_ns + system_time_ns


NEVER_STARTED = Incarnation(0)


@dataclass(slots=True)
class Spare:
    """The process of a later incarnation, which stands by, and what it was born with."""

    incarnation: Incarnation
    config: DomainConfig
    """What it was born from: of another one it is not the next incarnation."""
    console: ExtentId
    console_channel: int
    upcall_channel: int
    pid: int | None = None
    lacking: dict[str, str] | None = None
    """What its sandbox lacks; None before it has said so."""
    trouble: str = ""
    """Why it cannot take over, by its own report."""
    stands: bool = False
    """It is done with all that it can do before it runs."""


@dataclass(slots=True)
class Memory:
    """What an incarnation may use, in KiB."""

    static_max: int
    """What it was built with: it never has more."""
    target: int
    """What it is asked to do with."""
    maximum: int
    """What it may have at most, until it starts again."""
    current: int
    """What it has last said that it does with."""
    born: int
    """What the process was told with its birth."""
    asked: int | None = None
    """The target that it was given while it ran, which outlives the incarnation; None: what its configuration says."""

    @property
    def bound(self) -> int:
        """What the kernel is to hold it to."""
        return min(max(self.maximum, self.current), self.static_max)


@dataclass(slots=True)
class Domain:
    """Everything kept about one domid, across the incarnations of its process."""

    domid: DomId
    config: DomainConfig
    name: str
    life: Life = Life.WAITING
    incarnation: Incarnation = NEVER_STARTED
    incarnations: Incarnation = NEVER_STARTED
    """The highest number that a process of it was given: spares have theirs ahead, and none is given twice."""
    pid: int | None = None
    console_channel: int = 0
    """The channel of the console that this incarnation was born with."""
    store_port: Port | None = None
    """Of this incarnation's XenStore ring, if it has asked for it."""
    store_channel: int = 0
    """The channel that the port leads to; its number comes again when it is closed, the channel's does not."""
    ready: bool = False
    """This incarnation has said that it does what it is for."""
    ready_unseen: bool = False
    """It has said so before the machine has said that there is a process."""
    released: bool = False
    """This incarnation's process has been told to run its kernel: at once, unless it was created paused."""
    created_ns: int = 0
    restarts: int = 0
    unready_deaths: int = 0
    """Consecutive incarnations that died before they were ready: what the back-off counts."""
    spare: Spare | None = None
    estate: Calls = ()
    """What its dead incarnation had of its clients, as hypercalls: a spare that takes over is to have the same."""
    ahead: Ahead = ()
    """What was carried out for a spare that took over, before it asked, with the answers; until it is ready."""
    runs_at_ns: int | None = None
    """When a spare that has taken over is let run: when those whose devices it serves have been told of it."""
    spare_at_ns: int | None = None
    """When the next spare is begun."""
    console_waits: bool = False
    """Its spare has taken over, and domain 0 has not been told of the console that it brought."""
    spare_deaths: int = 0
    """Spares in a row that died while they stood by, or never came to that."""
    spare_trouble: str = ""
    """Why there is none, or why the one before this died."""
    restarted_at_ns: deque[int] = field(default_factory=deque)
    retry_at_ns: int | None = None
    shutdown: Shutdown | None = None
    """The reason this incarnation gave, or was given, for its end."""
    shutdown_text: str = ""
    fault: FaultNotice | None = None
    """The fatal signal that this incarnation has met and waits to be killed for."""
    kill_at_ns: int | None = None
    """When the grace of a requested shutdown ends."""
    destroying: bool = False
    regroup_at_ns: int | None = None
    """Its group has it stopped: it is started again with the others, and not before this host time."""
    given_up: str = ""
    """Why its group, which has failed, has it stopped for good."""
    last_death: str = ""
    sandbox_lacking: dict[str, str] | None = None
    """The layers this incarnation's sandbox lacks, with the reasons; None before it has said so."""
    refused: str = ""
    """Why this incarnation may not run, and no other either."""
    clock: Clock = field(default_factory=Clock)
    timer_ns: int | None = None
    """VIRQ_TIMER's deadline in system time."""
    watchdogs: dict[int, int | None] = field(default_factory=dict)
    """Watchdog id -> system time at which it bites."""
    core_to: str = ""
    """The file that a core of this incarnation is being written to, at somebody's wish; it stands still meanwhile."""
    runs_after_core: bool = False
    """It is to go on then: it was not paused, or has been unpaused since."""
    memory: Memory = field(init=False)

    def __post_init__(self) -> None:
        self.memory = Memory(0, 0, 0, 0, 0)
        self.build_memory()

    def built_with_kib(self) -> int:
        """What its next incarnation never has more of."""
        return max(self.config.memory, self.config.maxmem) * 1024

    def next_target_kib(self) -> int:
        """What its next incarnation is to do with."""
        asked = self.memory.asked
        return min(self.config.memory * 1024 if asked is None else asked, self.built_with_kib())

    def build_memory(self) -> None:
        """For a new incarnation: it begins with what it is to do with."""
        target = self.next_target_kib()
        self.memory = Memory(self.built_with_kib(), target, target, target, target, self.memory.asked)

    @property
    def serves(self) -> bool:
        """Those that come after it may count on it."""
        return self.ready and self.life in ALIVE

    def move(self, event: Event) -> None:
        """Follow the table; EINVAL naming domain, event and life when it has no such line, and nothing changes."""
        life = NEXT.get((self.life, event))
        if life is None:
            state, verb = self.life.name.lower(), event.name.lower()
            raise Refused(errno.EINVAL, f"domain {self.name} (domid {self.domid}) is {state}: cannot {verb}")
        self.life = life
