"""Bits flipped in shared pages, of rings' indices and of data: who finds them, and whether anybody else notices.

One domain is hit: a disk's guest, and one that has a ring of XenStore's. Beside them a guest that shares nothing with
them but the hypervisor and domain 0 exercises a disk of its own.
"""

from __future__ import annotations

import random
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from hvd.toolstack.bench.disks import disk, disk_domain, make_image
from hvd.toolstack.bench.figures import Figure, Goal, value
from hvd.toolstack.bench.recovery import Load
from hvd.toolstack.bench.run import Run
from hvd.toolstack.cluster import Cluster, Domain
from hvd.toolstack.faults.checker import Checker, Verdict
from hvd.toolstack.faults.injection import Injection
from hvd.transport import messages as m
from hvd.transport.errors import HvdError
from hvd.transport.faults import RingKind
from hvd.transport.hypercalls import HypercallError
from hvd.transport.messages import DomainConfig, RestartPolicy

FLIP_S, LEAST, FLIPS_A_ROUND = 3.0, 2, 5
"""Of the whole run's duration there is one flip of each kind of ring in so many seconds, and at least two; of so many
flips one round of flips in data."""
DISK, WRITER, CLIENT = "bench-flipped-disk", "bench-flipped", "bench-client"
BITS = 4096
TRY_S, BETWEEN_S = 2.0, 0.02
"""How long flips of data are repeated in one life of a workload, and how often; then it has another, on a new image."""
DEADLINE_S = 30.0
PROGRESS = 20
"""Answers that show that a disk works again."""
KINDS = {RingKind.DEVICE: "a device's ring", RingKind.CONSOLE: "a console's ring", RingKind.STORE: "XenStore's ring"}


def measure_bit_flips(run: Run, directory: Path) -> tuple[list[Figure], Verdict]:
    """In a cluster of its own."""
    count = max(int(run.duration_s / FLIP_S), LEAST)
    place = directory / "flips"
    place.mkdir()
    with Cluster.build(name="bench-flips") as cluster:
        beside = Load(cluster, place, run.seed, spare=False)
        victims = _Victims(cluster, place, run.seed)
        figures = []
        for kind, flip in victims.of_rings().items():
            found = [flip() for _ in _counted(run, f"a bit of {KINDS[kind]}", count)]
            figures.append(_found(f"bit flips in indices of {KINDS[kind]}, found", found, run.seed))
        intact = victims.check()
        rounds = [victims.flip_data() for _ in _counted(run, "bits of data", max(count // FLIPS_A_ROUND, 1))]
        note = f"; {victims.bits:,} bits of granted pages flipped"
        figures.append(_found("rounds of bit flips in data, found by the workload's checksum", rounds, run.seed, note))
        crashed = victims.crashed()
        untouched = beside.stop()
    failed = untouched.failed + untouched.breaches
    note = f"of {untouched.operations:,}"
    figures.append(value("bit flips: bystander's operations that failed", "", failed, Goal("p50", 0), note=note))
    note = ", ".join(crashed) or "the hypervisor, domain 0, driver domains, the bystander"
    figures.append(value("bit flips: others that died", "", len(crashed), Goal("p50", 0), note=note))
    return figures, Verdict.total([intact, untouched])


def _counted(run: Run, what: str, count: int) -> range:
    run.tell(f"{what} flipped, {count} times")
    return range(count)


def _found(name: str, found: list[bool], seed: int, more: str = "") -> Figure:
    """3/n is the 95 % bound of one that is not found."""
    n, well = len(found), sum(found)
    bound = f"at most {min(3 / n, 1.0):.2%} are not (95 %); " if well == n else ""
    note = f"{well} of {n}; {bound}seed {seed}{more}"
    return value(name, "%", 100 * well / n, Goal("p50", least=100.0), note=note)


class _Victims:
    """Whose pages are hit, and how each goes on afterwards. HvdError when one does not."""

    def __init__(self, cluster: Cluster, directory: Path, seed: int) -> None:
        self._cluster, self._directory, self._seed = cluster, directory, seed
        self._random = random.Random(seed)
        self._broker = cluster.info()["broker_pid"]
        self._lives: Counter[str] = Counter()
        """Incarnations that we have asked for."""
        self._images = 0
        self.bits = 0
        """Flipped in data."""
        self._driver = cluster.create(disk_domain(DISK))
        self._client = cluster.create(DomainConfig(CLIENT, "hvd:xenbus_client", restart=RestartPolicy(limit=0)))
        self._begin_writer()
        cluster.wait_ready(DEADLINE_S, [self._driver, self._client])

    def of_rings(self) -> dict[RingKind, Callable[[], bool]]:
        """What flips a bit of an index of each, and says whether an end of the ring has found it."""
        return {
            RingKind.DEVICE: self._flip_device,
            RingKind.CONSOLE: self._flip_console,
            RingKind.STORE: self._flip_store,
        }

    def _begin_writer(self) -> None:
        """On an image of its own."""
        self._images += 1
        image = make_image(self._directory / f"flipped-{self._images}.img")
        acks, seed = self._directory / f"flipped-{self._images}", self._seed + self._images
        self._checker = Checker(str(image), str(acks), seed)
        self._writer = self._cluster.create(DomainConfig(
            WRITER, "hvd:disk_exerciser", args=[f"acks={acks}", f"seed={seed}", "blocks=1024"],
            restart=RestartPolicy(limit=0), devices=[disk(image, DISK)], paths=[f"{acks}:w"],
        ))  # fmt: skip
        self._writer.wait_ready(DEADLINE_S)
        self._wait_for_answers()

    def _wait_for_answers(self) -> None:
        since_ns = time.monotonic_ns()
        self._wait_until(lambda: self._answers(since_ns) >= PROGRESS, f"{WRITER} has no answers from its disk")

    def _answers(self, since_ns: int) -> int:
        self._checker.follow()
        times = self._checker.times_ns
        return len(times) - bisect_right(times, since_ns)

    def _wait_until(self, condition: Callable[[], bool], otherwise: str) -> None:
        until = time.monotonic() + DEADLINE_S
        while not condition():
            if time.monotonic() > until:
                raise HvdError(f"{otherwise} for {DEADLINE_S:g} s: {self._cluster.infos()}")
            time.sleep(0.005)

    def _flip(self, victim: Domain, kind: RingKind) -> tuple[bool, str]:
        """Whether an end of the ring has found it, and by what."""
        injection: Injection
        with self._cluster.fault("corrupt-ring", victim, seed=self._random.getrandbits(32), ring=kind) as injection:
            return injection.wait_activated() is True, injection.evidence

    def _reboot(self, domain: Domain) -> None:
        self._lives[domain.name] += 1
        domain.reboot(grace_s=0)
        domain.wait_ready(DEADLINE_S)

    def _flip_device(self) -> bool:
        """The device goes on with the next incarnation of whoever has not found it."""
        found, evidence = self._flip(self._writer, RingKind.DEVICE)
        by_guest = f"/local/domain/{self._writer.domid}/device/" in evidence
        self._reboot(self._driver if by_guest else self._writer)
        self._wait_for_answers()
        return found

    def _flip_console(self) -> bool:
        found, _ = self._flip(self._client, RingKind.CONSOLE)
        self._reboot(self._client)
        return found

    def _flip_store(self) -> bool:
        """The client reconnects by itself."""
        found, _ = self._flip(self._client, RingKind.STORE)
        before = self._beats()
        self._wait_until(lambda: self._beats() not in (before, b""), f"{CLIENT} has not reconnected to XenStore")
        return found

    def _beats(self) -> bytes:
        with suppress(HypercallError):  # the incarnation has not come to it yet
            return bytes(self._cluster.call(m.StoreRead(0, f"/local/domain/{self._client.domid}/data/beats")))
        return b""

    def check(self) -> Verdict:
        """Of what the disk's guest was told until now. It is paused: it asks for nothing new while we look."""
        self._writer.pause()
        verdict = Verdict.total([self._checker.check()])  # the checker's own goes on counting
        self._writer.unpause()
        return verdict

    def flip_data(self) -> bool:
        """Bits of what the disk's guest has granted, again and again, until its checker finds what came of it."""
        until = time.monotonic() + DEADLINE_S
        while time.monotonic() < until:
            if self.bits:  # what the last flips have done is on its image
                self._writer.destroy()
                self._writer.wait_gone(DEADLINE_S)
                self._begin_writer()
            if self._flip_data_in_one_life():
                return True
        return False

    def _flip_data_in_one_life(self) -> bool:
        until = time.monotonic() + TRY_S
        while time.monotonic() < until:
            with suppress(HypercallError):  # it has died, or grants nothing at the moment
                seed = self._random.getrandbits(32)
                with self._cluster.fault("corrupt-page", self._writer, seed=seed, amount=BITS) as injection:
                    injection.wait_activated()
                self.bits += BITS
            time.sleep(BETWEEN_S)
            if self._checker.check().breaches:
                return True
        return False

    def crashed(self) -> list[str]:
        """Who has died of it, but for the disk's guest, whose data it was."""
        infos = self._cluster.infos().values()
        gone = [f"{info.name}, {died} times" for info in infos if info.name != WRITER
                and (died := info.incarnation - 1 - self._lives[info.name])]  # fmt: skip
        return gone + ["the hypervisor"] * (self._cluster.info()["broker_pid"] != self._broker)
