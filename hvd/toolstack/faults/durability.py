"""Judges durability by power cuts that are made up: images rebuilt from a log of writes, with unflushed ones dropped.

Killing processes proves nothing here, since the page cache survives them. A power cut at any moment leaves what was
written up to the last fdatasync, and of the writes behind it any subset, each whole or any of its sectors. Each image
that could be so has to hold everything that a FLUSH had been answered for by then.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from typing import Any

from hvd.transport.errors import LocalError
from hvd.transport.history import Event, Kind, Phase
from hvd.transport.protocols.block import SECTOR_SIZE
from hvd.transport.stamped_blocks import BLOCK_SIZE, digest
from hvd.transport.write_log import LogKind, LogRecord

EXAMPLES_MAX = 10


@dataclass(slots=True)
class Durability:
    """How many power cuts were made up and what they lost; `lost` must be 0."""

    records: int = 0
    prefixes: int = 0
    """Moments at which the power was cut."""
    images: int = 0
    """Images that were rebuilt, all told."""
    flushes: int = 0
    """Answered FLUSHes whose promises were looked for."""
    lost: int = 0
    """Sectors that a FLUSH had been answered for, and that some image did not hold."""
    examples: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Cuts:
    """Which images are made up: all subsets of at most `exhaustive_max` unflushed writes, else `samples` of them."""

    exhaustive_max: int = 6
    samples: int = 16
    """Also so many in which single sectors are dropped."""
    prefixes_max: int | None = None
    """At so many moments, chosen at random; None: at every one."""


@dataclass(frozen=True, slots=True)
class Promise:
    """From `since_ns` on these sectors must hold what record number `record` wrote to them, or something later."""

    since_ns: int
    sectors: range
    record: int
    operation: int


def promises(log: Sequence[LogRecord], history: Sequence[Event]) -> list[Promise]:
    """What was promised, in the order of time: by the guest's own history, and by what the backend says it answered.

    A write that is ok and in no log is a promise of record -1, which nothing keeps.
    """
    return sorted([*_to_the_guest(log, history), *_by_the_backend(log)], key=lambda promise: promise.since_ns)


def _to_the_guest(log: Sequence[LogRecord], history: Sequence[Event]) -> Iterator[Promise]:
    """A FLUSH that is ok promises every write that was ok before it was invoked."""
    made: dict[tuple[int, bytes], list[int]] = {}
    for number, record in enumerate(log):
        if record.kind is LogKind.WRITE:
            made.setdefault((record.offset, digest(record.content)), []).append(number)
    written: list[Event] = []
    open_flushes: dict[int, int] = {}
    for event in history:
        if event.kind is Kind.WRITE and event.phase is Phase.OK:
            written.append(event)
        elif event.kind is Kind.FLUSH and event.phase is Phase.INVOKED:
            open_flushes[event.id] = len(written)
        elif event.kind is Kind.FLUSH and event.phase is Phase.OK:
            done = open_flushes.pop(event.id)
            for write in written[:done]:
                numbers = made.get((write.place * BLOCK_SIZE, write.digest), [])
                executed = [number for number in numbers if log[number].at_ns < write.at_ns]  # again after each death
                first = write.place * BLOCK_SIZE // SECTOR_SIZE
                sectors = range(first, first + write.count * BLOCK_SIZE // SECTOR_SIZE)
                yield Promise(event.at_ns, sectors, executed[-1] if executed else -1, write.id)
            open_flushes = {id_: max(0, count - done) for id_, count in open_flushes.items()}
            del written[:done]  # promised for good


def _by_the_backend(log: Sequence[LogRecord]) -> Iterator[Promise]:
    """FLUSHED promises every record above it."""
    since = 0
    for number, record in enumerate(log):
        if record.kind is LogKind.FLUSHED:
            for each in range(since, number):
                if sectors := _sectors(log[each]):
                    yield Promise(record.at_ns, sectors, each, each)
            since = number + 1


def misplaced(base: bytes, log: Sequence[LogRecord]) -> int | None:
    """The number of the first record that says of the image what cannot be: past its end, or no whole sectors.

    A backend of ours logs none; one that was taken over may, and such a log is not to be judged.
    """
    for number, record in enumerate(log):
        if record.kind in (LogKind.WRITE, LogKind.DISCARD) and (
            record.offset % SECTOR_SIZE or record.length % SECTOR_SIZE or record.offset + record.length > len(base)
        ):
            return number
    return None


def judge(
    base: bytes, log: Sequence[LogRecord], history: Sequence[Event], seed: int, cuts: Cuts = Cuts()
) -> Durability:
    """Cut the power at every prefix of the log, or at some; `base` is the image before the first record.

    LocalError at a log of which a record is misplaced.
    """
    if (number := misplaced(base, log)) is not None:
        record = log[number]
        where = f"{record.length} bytes at {record.offset} of an image of {len(base)}"
        raise LocalError(f"record {number} of the log of writes is about {where}: no backend of ours wrote it")
    return _Judge(base, log, promises(log, history), random.Random(seed), cuts).run(history)


class _Judge:
    """One log, prefix by prefix: what is on the medium for sure, what may be, and what has been promised."""

    def __init__(
        self, base: bytes, log: Sequence[LogRecord], promised: list[Promise], source: random.Random, cuts: Cuts
    ) -> None:
        self._log = log
        self._source = source
        self._cuts = cuts
        self._promised = promised
        self._starts_ns = [promise.since_ns for promise in promised]
        self._taken = 0
        self._floor: dict[int, Promise] = {}
        """Sector -> the newest promise for it."""
        self._unchecked: set[int] = set()
        """Promised sectors of which medium or promise has changed since the last cut."""
        self._medium = bytearray(base)
        self._window: list[int] = []
        """Numbers of the records since the last SYNC."""
        self._writers: dict[int, list[int]] = {}
        """Sector -> the numbers of all records so far that write to it."""
        self._found = Durability(records=len(log))

    def run(self, history: Sequence[Event]) -> Durability:
        self._found.flushes = sum(event.kind is Kind.FLUSH and event.phase is Phase.OK for event in history)
        prefixes = range(len(self._log) + 1)
        most = self._cuts.prefixes_max
        chosen = None if most is None or most >= len(prefixes) else {*self._source.sample(prefixes, most), prefixes[-1]}
        for length in prefixes:
            if length > 0:
                self._apply(length - 1)
            self._take_promises(length)
            if chosen is None or length in chosen:
                self._cut()
        return self._found

    def _apply(self, number: int) -> None:
        match self._log[number].kind:
            case LogKind.WRITE | LogKind.DISCARD:
                self._window.append(number)
                for sector in _sectors(self._log[number]):
                    self._writers.setdefault(sector, []).append(number)
            case LogKind.SYNC:
                for each in self._window:
                    for sector in _sectors(self._log[each]):
                        self._medium[sector * SECTOR_SIZE : (sector + 1) * SECTOR_SIZE] = self._content(each, sector)
                        self._unchecked.add(sector)
                self._window.clear()
            case LogKind.FLUSHED:
                pass

    def _take_promises(self, length: int) -> None:
        """The power may go at any time before the next record: whatever was answered until then counts."""
        end = len(self._promised)
        if length < len(self._log):
            end = bisect_left(self._starts_ns, self._log[length].at_ns)
        for promise in self._promised[self._taken : end]:
            for sector in promise.sectors:
                if sector not in self._floor or not 0 <= promise.record < self._floor[sector].record:
                    self._floor[sector] = promise
                    self._unchecked.add(sector)
        self._taken = max(self._taken, end)

    def _cut(self) -> None:
        """All images of this moment. Where nothing unflushed was written they are one, which is looked at once."""
        self._found.prefixes += 1
        self._check({}, self._unchecked)
        self._unchecked.clear()
        for kept in self._subsets():
            self._found.images += 1
            over: dict[int, bytes] = {}
            for number, sectors in kept:
                over.update((sector, self._content(number, sector)) for sector in sectors)
            self._check(over, over)

    def _subsets(self) -> Iterator[list[tuple[int, Iterable[int]]]]:
        """What of the window survives: records in order, each with those of its sectors that do."""
        whole: list[tuple[int, Iterable[int]]] = [(number, _sectors(self._log[number])) for number in self._window]
        source = self._source
        if len(whole) <= self._cuts.exhaustive_max:
            for bits in product((False, True), repeat=len(whole)):
                yield [each for each, bit in zip(whole, bits, strict=True) if bit]
        else:
            yield from ([], list(whole))
            for _ in range(self._cuts.samples):
                share = source.random()
                yield [each for each in whole if source.random() < share]
        for _ in range(self._cuts.samples if whole else 0):
            yield [(number, [s for s in sectors if source.random() < 0.5]) for number, sectors in whole]

    def _check(self, over: Mapping[int, bytes], sectors: Iterable[int]) -> None:
        """Every one of these that is promised holds what was promised, or what was written to it later."""
        for sector in sectors:
            promise = self._floor.get(sector)
            found = over.get(sector, b"") or bytes(self._medium[sector * SECTOR_SIZE : (sector + 1) * SECTOR_SIZE])
            if promise is not None and not self._keeps(promise, sector, found):
                self._found.lost += 1
                if len(self._found.examples) < EXAMPLES_MAX:
                    text = f"cut {self._found.prefixes}, {len(self._window)} writes unflushed: sector {sector} has lost"
                    self._found.examples.append(f"{text} operation {promise.operation}")

    def _keeps(self, promise: Promise, sector: int, found: bytes) -> bool:
        if promise.record < 0:
            return False
        writers = self._writers.get(sector, [])  # none: it says that it was promised before it was written
        since = writers[bisect_left(writers, promise.record) :]
        return any(found == self._content(number, sector) for number in since)

    def _content(self, number: int, sector: int) -> bytes:
        record = self._log[number]
        if record.kind is LogKind.DISCARD:
            return bytes(SECTOR_SIZE)
        at = sector * SECTOR_SIZE - record.offset
        return record.content[at : at + SECTOR_SIZE]


def _sectors(record: LogRecord) -> range:
    if record.kind not in (LogKind.WRITE, LogKind.DISCARD):
        return range(0)
    return range(record.offset // SECTOR_SIZE, (record.offset + record.length) // SECTOR_SIZE)
