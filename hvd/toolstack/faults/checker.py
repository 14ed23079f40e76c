"""The checker of a disk, outside the domains: compares an image with the history of its one writer."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence

from hvd.toolstack.faults.history import INVOKED, OK, History, Verdict
from hvd.transport.history import Kind, Record
from hvd.transport.stamped_blocks import BLOCK_SIZE, content_digest, parse_block

__all__ = ["Checker", "Verdict"]

PATIENCE_S, AGAIN_S = 10.0, 0.002
"""How long a block may be torn that is being written while we look: whoever writes it may have lost its CPU in the
middle of it."""
WRITE = int(Kind.WRITE)


class Checker:
    """Follows a disk exerciser's history and judges one image, while the writer runs or after.

    Lost: a block older than the newest write that is ok for it. Torn: no write's whole content. Misplaced: another
    block's or another writer's. Unexpected: a write that was never invoked.
    """

    def __init__(self, image: str, acks: str, seed: int) -> None:
        self._image = image
        self._seed = seed
        self._newest: dict[int, int] = {}
        """Block -> the newest write that is ok and covers it."""
        self._unsure: dict[int, range] = {}
        """Blocks of each write that was asked for and is not ok, as far as it may be found."""
        self._done: dict[int, range] = {}
        """Blocks of each write that is ok, as far as it may be found."""
        self.verdict = Verdict()
        self.history = History(acks, self.verdict)

    @property
    def times_ns(self) -> Sequence[int]:
        """When each answer was given, on CLOCK_MONOTONIC."""
        return self.history.times_ns

    def follow(self) -> None:
        """Take in what has happened since the last call."""
        for part in self.history.parts():
            self._take(part)
            if len(self._done) > 2 * len(self._newest):
                self._forget()

    def check(self) -> Verdict:
        """Every block acknowledged before this call must be on the image, whole and no older. Counts add up."""
        self.follow()
        expected = dict(self._newest)
        self.verdict.compared = len(expected)
        image = os.open(self._image, os.O_RDONLY | os.O_CLOEXEC)
        try:
            for block, newest in expected.items():
                self._check_block(image, block, newest)
        finally:
            os.close(image)
        return self.verdict

    def _take(self, records: Iterable[Record]) -> None:
        for phase, kind, count, id_, place, _, hashed in records:
            if kind != WRITE:
                continue
            if phase == INVOKED:
                self._check_digest(id_, place, count, hashed)
                self._unsure[id_] = range(place, place + count)
            elif phase == OK:
                self._acknowledge(id_, range(place, place + count))

    def _check_digest(self, id_: int, place: int, count: int, hashed: bytes) -> None:
        if hashed != content_digest(self._seed, id_, place, count):
            self.verdict.note(f"operation {id_}: the history's hash is not that of its content")
            self.verdict.torn += 1

    def _acknowledge(self, id_: int, blocks: range) -> None:
        asked = self._unsure.pop(id_, None)
        if asked != blocks:
            self.verdict.unexpected += 1
            self.verdict.note(f"operation {id_} was answered as a write of {blocks}; asked for was {asked}")
            return
        self._done[id_] = blocks
        newest = self._newest
        for block in blocks:
            if newest.get(block, -1) < id_:
                newest[block] = id_

    def _forget(self) -> None:
        """What is older than the newest write that is ok for each of its blocks: found there, it is a loss anyway.

        All but those whose answer may come yet.
        """
        newest, unanswered = self._newest, self.history.open
        self._done = {id_: self._done[id_] for id_ in set(newest.values())}
        self._unsure = {
            id_: blocks for id_, blocks in self._unsure.items()
            if id_ in unanswered or any(newest.get(block, -1) < id_ for block in blocks)
        }  # fmt: skip

    def _check_block(self, image: int, block: int, newest: int) -> None:
        until = time.monotonic() + PATIENCE_S
        while (found := _read(image, block)) is None and self._is_being_written(block) and time.monotonic() < until:
            time.sleep(AGAIN_S)
        found = found or _read(image, block)  # it may have become whole before we saw that nobody writes it
        verdict = self.verdict
        if found is None:
            verdict.torn += 1
            verdict.note(f"block {block} is torn; operation {newest} was acknowledged for it")
        elif found[0] != self._seed or found[2] != block:
            verdict.misplaced += 1
            verdict.note(f"block {block} holds block {found[2]} of writer {found[0]}")
        elif found[1] < newest:
            verdict.lost += 1
            verdict.note(f"block {block} holds operation {found[1]}; {newest} was acknowledged")
        elif not self._was_invoked(found[1], block):
            verdict.unexpected += 1
            verdict.note(f"block {block} holds operation {found[1]}, which nobody asked for")

    def _is_being_written(self, block: int) -> bool:
        """Whether an answer is due to a write of it."""
        self._hear()
        return any(block in self._unsure.get(id_, ()) for id_ in self.history.open)

    def _hear(self) -> None:
        """What has happened since, forgetting nothing."""
        for part in self.history.parts():
            self._take(part)

    def _was_invoked(self, operation: int, block: int) -> bool:
        """The writer goes on while we look: it may have been asked for a moment ago, and overtaken in the next."""
        if operation not in self._unsure and operation not in self._done:
            self._hear()
        asked = self._unsure.get(operation) or self._done.get(operation)
        return asked is not None and block in asked


def _read(image: int, block: int) -> tuple[int, int, int] | None:
    """(writer, operation, block) of what stands there; None: no write's whole content."""
    return parse_block(os.pread(image, BLOCK_SIZE, block * BLOCK_SIZE).ljust(BLOCK_SIZE, b"\0"))
