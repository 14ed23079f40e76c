"""The checker of a disk, which forgets what no longer matters, against one that remembers everything."""

from __future__ import annotations

import tempfile
from pathlib import Path
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from hvd.toolstack.faults import checker as checker_module
from hvd.toolstack.faults import history as history_module
from hvd.toolstack.faults.checker import Checker
from hvd.transport.history import INCARNATION_SHIFT, Event, Kind, Phase, pack
from hvd.transport.stamped_blocks import BLOCK_SIZE, block_content, content_digest

SEED, BLOCKS, IDS = 3, 3, 60
NO_BLOCK = bytes(BLOCK_SIZE)
COUNTS = ("invoked", "ok", "failed", "unknown", "compared", "lost", "torn", "misplaced", "duplicated", "unexpected")

writes = st.tuples(st.just("write"), st.integers(0, BLOCKS - 1), st.integers(1, BLOCKS))
answers = st.tuples(st.just("ok"), st.integers(0, IDS))
steps = st.one_of(
    writes,
    writes,
    writes,
    answers,
    answers,
    answers,
    st.tuples(st.just("failed"), st.integers(0, IDS)),
    st.tuples(st.just("answer nobody asked for"), st.integers(0, IDS)),
    st.just(("die",)),
    st.just(("follow",)),
)
blocks = st.lists(st.tuples(st.integers(0, IDS), st.sampled_from((0, 0, 0, 0, 1))), min_size=BLOCKS, max_size=BLOCKS)


class Writer:
    """Writes a history as a guest would, and remembers all of it."""

    def __init__(self) -> None:
        self.incarnation, self.sequence = 0, 0
        self.asked: list[int] = []
        self.open: list[int] = []
        self.answered: set[int] = set()
        self.covered: dict[int, range] = {}
        self.newest: dict[int, int] = {}
        self.counts = dict.fromkeys(COUNTS, 0)

    def step(self, name: str, *how: int) -> bytes:
        """The records of it."""
        match name:
            case "write":
                return self._ask(how[0], min(how[1], BLOCKS - how[0]))
            case "ok" | "failed" if self.open:
                return self._answer(self.open.pop(how[0] % len(self.open)), Phase[name.upper()])
            case "answer nobody asked for":
                if how[0] in self.answered or how[0] not in self.asked:
                    self.counts["duplicated" if how[0] in self.answered else "unexpected"] += 1
                    return self._record(Phase.OK, how[0], range(1))
            case "die":
                self.open.clear()
                self.incarnation += 1
                self.sequence = self.incarnation << INCARNATION_SHIFT
        return b""

    def _ask(self, place: int, count: int) -> bytes:
        self.sequence += 1
        self.asked.append(self.sequence)
        self.open.append(self.sequence)
        self.covered[self.sequence] = range(place, place + count)
        self.counts["invoked"] += 1
        return self._record(Phase.INVOKED, self.sequence, self.covered[self.sequence])

    def _answer(self, id_: int, phase: Phase) -> bytes:
        self.counts[phase.name.lower()] += 1
        self.answered.add(id_)
        for block in self.covered[id_] if phase is Phase.OK else ():
            self.newest[block] = max(self.newest.get(block, 0), id_)
        return self._record(phase, id_, self.covered[id_])

    def _record(self, phase: Phase, id_: int, covers: range) -> bytes:
        hashed = content_digest(SEED, id_, covers.start, len(covers))
        return pack(Event(phase, Kind.WRITE, id_, covers.start, len(covers), hashed), 1)

    def judge(self, image: list[tuple[int, int]]) -> dict[str, int]:
        """What is wrong with an image of (id, how far from its place it is) for each block; id 0: there is nothing."""
        counts = self.counts
        counts["compared"] = len(self.newest)
        counts["unknown"] = counts["invoked"] - counts["ok"] - counts["failed"]
        for block, newest in self.newest.items():
            found, off = image[block]
            what = (
                "torn" if not found else "misplaced" if off else "lost" if found < newest
                else "unexpected" if block not in self.covered.get(found, ()) else ""
            )  # fmt: skip
            if what:
                counts[what] += 1
        return counts


@settings(max_examples=300, deadline=None)
@given(st.lists(steps, min_size=40, max_size=120), blocks, st.integers(1, 9))
def test_it_finds_what_one_that_remembers_everything_finds(
    done: list[tuple[str, *tuple[int, ...]]], wanted: list[tuple[int, int]], part: int
) -> None:
    writer = Writer()
    in_parts = patch.object(history_module, "PART_RECORDS", part)
    at_once = patch.object(checker_module, "PATIENCE_S", 0.0)  # nobody writes what is torn by now
    with tempfile.TemporaryDirectory() as name, in_parts, at_once:
        acks, image = Path(name) / "acks", Path(name) / "image"
        checker = Checker(str(image), str(acks), SEED)
        with acks.open("ab", buffering=0) as file:
            for step in done:
                file.write(writer.step(*step))
                if step[0] == "follow":
                    checker.follow()
        ids = [0, *writer.asked, writer.sequence + 1]
        held = [(ids[-1 - number % len(ids)], off) for number, off in wanted]
        image.write_bytes(b"".join(
            block_content(SEED, id_, block + off) if id_ else NO_BLOCK for block, (id_, off) in enumerate(held)
        ))  # fmt: skip
        verdict = checker.check()
        assert {count: getattr(verdict, count) for count in COUNTS} == writer.judge(held)
