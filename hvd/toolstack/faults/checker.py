"""The checker of a disk, outside the domains: compares an image with the history of its one writer."""

from __future__ import annotations

import os

from hvd.toolstack.faults.history import History, Verdict
from hvd.transport.history import Event, Kind, Phase
from hvd.transport.stamped_blocks import BLOCK_SIZE, content, digest, parse_block

__all__ = ["Checker", "Verdict"]

LOOKS = 5
"""A block that is being written while we look may be torn: it is looked at again so often."""


class Checker:
    """Follows a disk exerciser's history and judges one image, while the writer runs or after.

    Lost: a block older than the newest write that is ok for it. Torn: no write's whole content. Misplaced: another
    block's or another writer's. Unexpected: a write that was never invoked.
    """

    def __init__(self, image: str, acks: str, seed: int) -> None:
        self._image = image
        self._seed = seed
        self._newest: dict[int, Event] = {}
        """Block -> the newest write that is ok and covers it."""
        self._invoked: set[tuple[int, int]] = set()
        """(id, block) of each write that was asked for."""
        self.verdict = Verdict()
        self.history = History(acks, self.verdict)

    @property
    def times_ns(self) -> list[int]:
        """When each answer was given, on CLOCK_MONOTONIC."""
        return self.history.times_ns

    def follow(self) -> None:
        """Take in what has happened since the last call."""
        for event in self.history.follow():
            if event.kind is Kind.WRITE:
                self._take(event)

    def check(self) -> Verdict:
        """Every block acknowledged before this call must be on the image, whole and no older. Counts add up."""
        self.follow()
        expected = dict(self._newest)
        self.verdict.compared = len(expected)
        image = os.open(self._image, os.O_RDONLY | os.O_CLOEXEC)
        try:
            for block, event in expected.items():
                self._check_block(image, block, event)
        finally:
            os.close(image)
        return self.verdict

    def _take(self, event: Event) -> None:
        blocks = range(event.place, event.place + event.count)
        if event.phase is Phase.INVOKED:
            self._check_record(event)
            self._invoked.update((event.id, block) for block in blocks)
        elif event.phase is Phase.OK:
            for block in blocks:
                if block not in self._newest or self._newest[block].id < event.id:
                    self._newest[block] = event

    def _check_record(self, event: Event) -> None:
        if digest(content(self._seed, event.id, event.place, event.count)) != event.digest:
            self.verdict.note(f"operation {event.id}: the history's hash is not that of its content")
            self.verdict.torn += 1

    def _check_block(self, image: int, block: int, newest: Event) -> None:
        found = None
        for _ in range(LOOKS):
            found = parse_block(os.pread(image, BLOCK_SIZE, block * BLOCK_SIZE).ljust(BLOCK_SIZE, b"\0"))
            if found is not None:
                break
        verdict = self.verdict
        if found is None:
            verdict.torn += 1
            verdict.note(f"block {block} is torn; operation {newest.id} was acknowledged for it")
        elif found[0] != self._seed or found[2] != block:
            verdict.misplaced += 1
            verdict.note(f"block {block} holds block {found[2]} of writer {found[0]}")
        elif found[1] < newest.id:
            verdict.lost += 1
            verdict.note(f"block {block} holds operation {found[1]}; {newest.id} was acknowledged")
        elif not self._was_invoked(found[1], block):
            verdict.unexpected += 1
            verdict.note(f"block {block} holds operation {found[1]}, which nobody asked for")

    def _was_invoked(self, operation: int, block: int) -> bool:
        """The writer goes on while we look: it may have been asked for a moment ago."""
        if (operation, block) not in self._invoked:
            self.follow()
        return (operation, block) in self._invoked
