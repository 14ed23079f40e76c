"""The broker killed again and again under load: who survives, when it answers again, and whether the data path notices.

Half of the windows have a kill in them and half have none, in an order that the seed shuffles; in each, either a pair
calls each other over an event channel or a guest reads its disk. The toolstack asks the same in both.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hvd.toolstack.bench.disks import disk, disk_domain, make_image
from hvd.toolstack.bench.figures import Figure, Goal, value
from hvd.toolstack.bench.measured import SPIN_NS, MeasuredDomain, Pair
from hvd.toolstack.bench.run import Run, pinned
from hvd.toolstack.bench.two_samples import p_value
from hvd.toolstack.cluster import Cluster, DomainInfo
from hvd.toolstack.config.names import DOM0_NAME
from hvd.transport.errors import HvdError
from hvd.transport.histogram import Histogram, from_text
from hvd.transport.messages import DomainConfig

WHAT = PAIR, DISK = "pair", "disk"
KILL_S = 0.15
"""About how long one kill takes, with all around it."""
DOMAINS, CROWD = 8, 200
SMALL_CROWD, LONG_S = 20, 5.0
"""A run that is shorter than that has a smaller crowd: creating two hundred domains takes longer than it."""
WINDOW_NS = 120_000_000
THINK_NS = 100_000
SECTORS = 8
"""4 KiB."""
NEW_DOMAIN_EVERY = 20
"""Kills after which a new domain is created."""
CONTROLS_MAX = 200
BACK_MS, CROWDED_BACK_MS = 22.0, 200.0
CHANCE = 0.05
DEADLINE_S = 120.0
IDLE = "hvd:idle"


def measure_broker_deaths(run: Run) -> list[Figure]:
    """In clusters of its own: eight domains under load, then two hundred."""
    kills = max(int(run.duration_s / KILL_S), 2 * len(WHAT))
    with tempfile.TemporaryDirectory(prefix="hvd-bench-") as name:
        with Cluster.build(name="bench-deaths") as cluster:
            loaded = _Loaded(run, cluster, Path(name), _Places("", run.here, run.there, []))
            loaded.kill_in_windows(kills - kills // 2)
        dom0 = DomainConfig(DOM0_NAME, "hvd:dom0", cpus=[run.here], driver_domain=True)
        with Cluster.build([dom0], name="bench-parted", cpus=[run.here]) as cluster, pinned(run.here):
            places = _Places(", hypervisor on another CPU", run.there, run.there, [run.here])
            parted = _Loaded(run, cluster, Path(name), places)
            parted.kill_in_windows(kills // 2)
    crowd = CROWD if run.duration_s >= LONG_S else SMALL_CROWD
    with Cluster.build(name="bench-crowd") as cluster:
        run.tell(f"{crowd} domains")
        made = [cluster.create(DomainConfig(f"idle-{number}", IDLE)) for number in range(crowd - 1)]
        cluster.wait_ready(DEADLINE_S, made)
        crowded = Deaths(cluster, [])
        for number in range(max(kills // 10, 3)):
            run.tell(f"{crowd} domains: broker kill {number + 1}")
            time.sleep(run.random.uniform(0, KILL_S))
            crowded.kill()
            crowded.create_now_and_then()
    return [
        _survived(f"broker SIGKILL survived, {DOMAINS} domains under load", loaded.deaths, parted.deaths),
        Figure(f"broker SIGKILL to the next hypercall answered, {DOMAINS} domains under load", "ms",
               loaded.deaths.back_ms, (Goal("p50", BACK_MS),)),
        *loaded.pauses(),
        *parted.pauses(),
        Figure(f"broker SIGKILL to the next hypercall answered, {crowd} domains", "ms", crowded.back_ms,
               (Goal("p50", CROWDED_BACK_MS),)),
        _survived(f"broker SIGKILL survived, {crowd} domains", crowded),
    ]  # fmt: skip


class Deaths:
    """Kills the broker of a cluster, and looks at what is left each time."""

    def __init__(self, cluster: Cluster, cpus: list[int]) -> None:
        """`cpus`: of domains that are created meanwhile."""
        self._cluster = cluster
        self._cpus = cpus
        self._before = self._look()
        self.back_ms: list[float] = []
        self.failures: list[str] = []

    def kill(self) -> None:
        """SIGKILL, and wait until another answers."""
        pid = self._cluster.info()["broker_pid"]
        killed_ns = time.monotonic_ns()
        os.kill(pid, signal.SIGKILL)
        try:
            while self._cluster.info()["broker_pid"] == pid:
                continue  # that was its last answer
        except HvdError as error:
            self.failures.append(f"kill {len(self.back_ms) + 1}: {error}")
            raise
        self.back_ms.append((time.monotonic_ns() - killed_ns) / 1e6)
        after = self._look()
        if after != self._before:
            self.failures.append(f"kill {len(self.back_ms)}: {self._before} became {after}")
            self._before = after

    def _look(self) -> list[tuple[str, int, int | None, str]]:
        infos: list[DomainInfo] = list(self._cluster.infos().values())
        return [(info.name, info.incarnation, info.pid, str(info.state)) for info in infos]

    def spare(self) -> None:
        """Ask what `kill` does, for as long, and kill nobody."""
        until_ns = time.monotonic_ns() + int(1e6 * (self.back_ms[-1] if self.back_ms else BACK_MS))
        while time.monotonic_ns() < until_ns:
            self._cluster.info()
        self._look()

    def create_now_and_then(self) -> None:
        """ReHype's criterion: a new domain can be created."""
        if len(self.back_ms) % NEW_DOMAIN_EVERY:
            return
        new = self._cluster.create(DomainConfig("bench-new", IDLE, cpus=self._cpus))
        new.wait_ready(DEADLINE_S)
        new.destroy()
        new.wait_gone(DEADLINE_S)


@dataclass
class _Samples:
    """Latencies of one kind of window."""

    times: Histogram = field(default_factory=Histogram)
    worst_us: list[float] = field(default_factory=list)
    """Of each window."""

    def add(self, times: Histogram) -> None:
        self.times.add(times)
        self.worst_us.append(times.max / 1000)


@dataclass(frozen=True)
class _Places:
    """The CPUs of the pair's two ends; if they are one, the disk's two are there too."""

    how: str
    """Goes into the figures' names."""
    here: int
    there: int
    others: list[int]
    """Of whoever else there is; []: any."""


class _Loaded:
    """Eight domains: a pair, a reader and its driver domain, and some that do nothing."""

    def __init__(self, run: Run, cluster: Cluster, directory: Path, places: _Places) -> None:
        self._run, self._how = run, places.how
        here, there, others = places.here, places.there, places.others
        cluster.create(disk_domain("bench-disk", [here] if here == there else ())).wait_ready(DEADLINE_S)
        device = disk(make_image(directory / f"image-{here}-{there}"), "bench-disk")
        self._reader = MeasuredDomain(cluster, "bench-reader", there, (device,))
        self._pair = Pair(cluster, "bench-pair", here, there)
        left = range(DOMAINS - len(cluster.domains()))
        idle = [cluster.create(DomainConfig(f"bench-idle-{n}", IDLE, cpus=others)) for n in left]
        cluster.wait_ready(DEADLINE_S, idle)
        self.deaths = Deaths(cluster, others)
        self._samples = {(what, killed): _Samples() for what in WHAT for killed in (False, True)}

    def kill_in_windows(self, kills: int) -> None:
        """So many windows with a kill, and as many without, or CONTROLS_MAX: half of each on either path."""
        measures = dict(zip(WHAT, (self._call, self._read), strict=True))
        windows = [(WHAT[number % len(WHAT)], True) for number in range(kills)]
        windows += [(what, False) for what, _ in windows[:CONTROLS_MAX]]
        self._run.random.shuffle(windows)
        for number, (what, killed) in enumerate(windows):
            self._run.tell(f"broker killed under load{self._how}: window {number + 1} of {len(windows)}")
            self._samples[what, killed].add(measures[what](self.deaths.kill if killed else self.deaths.spare))
            if killed:
                self.deaths.create_now_and_then()

    def _call(self, strike: Callable[[], None]) -> Histogram:
        spin_ns = SPIN_NS["adaptive"]
        self._pair.answerer.order("answer", spin_ns=spin_ns)
        self._pair.caller.order("call", for_ns=WINDOW_NS, spin_ns=spin_ns, think_ns=THINK_NS, computing=False)
        times = self._result(self._pair.caller, strike)
        self._pair.answerer.result()
        return times

    def _read(self, strike: Callable[[], None]) -> Histogram:
        self._reader.order("read_disk", for_ns=WINDOW_NS, sectors=SECTORS, think_ns=THINK_NS)
        return self._result(self._reader, strike)

    def _result(self, domain: MeasuredDomain, strike: Callable[[], None]) -> Histogram:
        """Struck somewhere in the first half of the window; nobody looks for the result before it is over."""
        until = time.monotonic() + WINDOW_NS / 1e9
        time.sleep(self._run.random.uniform(0, WINDOW_NS / 2e9))
        strike()
        return from_text(domain.result(max(0.0, until - time.monotonic()))["times"])

    def pauses(self) -> list[Figure]:
        """On the data path."""
        return [
            *self._pauses(PAIR, f"event channel round trip{self._how}"),
            *self._pauses(DISK, f"disk read, 4 KiB{self._how}"),
        ]

    def _pauses(self, what: str, name: str) -> list[Figure]:
        """The same windows with and without a kill, and whether their worst latencies differ by more than chance."""
        without, killed = self._samples[what, False], self._samples[what, True]
        p = p_value(killed.worst_us, without.worst_us)
        windows = f"worst of each window, {len(killed.worst_us)} and {len(without.worst_us)} of {WINDOW_NS // 10**6} ms"
        return [
            Figure.timed(f"{name}, broker killed meanwhile", killed.times, note=_tail(killed.times)),
            Figure.timed(f"{name}, no kill", without.times, note=_tail(without.times)),
            value(f"{name}, with and without a kill, Mann-Whitney p", "", p, Goal("p50", least=CHANCE), note=windows),
        ]


def _tail(times: Histogram) -> str:
    return f"p99.9 {times.percentile(99.9) / 1000:.1f} µs"


def _survived(name: str, *deaths: Deaths) -> Figure:
    """Every domain as it was, a hypercall answered, now and then a new domain; 3/n is the 95 % bound of failing."""
    kills = sum(len(some.back_ms) for some in deaths)
    failures = [failure for some in deaths for failure in some.failures]
    well = kills - len(failures)
    note = f"{well} of {kills}; " + (f"at most {3 / kills:.2%} fail (95 %)" if well == kills else failures[0])
    return value(name, "%", 100 * well / kills, Goal("p50", least=100.0), note=note)
