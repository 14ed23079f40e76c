"""The checker outside the domains: compares a disk image with every acknowledgement its writer was given."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from typing import Any

from hvd.transport.ack_log import BLOCK_SIZE, RECORD_SIZE, Ack, Kind, content, digest, parse_block, unpack_all

LOOKS = 5
"""A block that is being written while we look may be torn: it is looked at again so often."""


@dataclass(slots=True)
class Verdict:
    """What a check found. `lost`, `torn`, `misplaced` and `duplicated` must be 0; `failed` promised nothing."""

    operations: int = 0
    writes: int = 0
    flushes: int = 0
    failed: int = 0
    blocks: int = 0
    lost: int = 0
    """Blocks older than the newest write acknowledged for them."""
    torn: int = 0
    """Blocks that are no write's whole content."""
    misplaced: int = 0
    """Whole blocks that belong elsewhere or to another writer."""
    duplicated: int = 0
    """Operations acknowledged more than once."""
    examples: list[str] = field(default_factory=list)

    @property
    def intact(self) -> bool:
        return not (self.lost or self.torn or self.misplaced or self.duplicated)

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, for JSON."""
        return asdict(self) | {"intact": self.intact}

    def lines(self) -> list[str]:
        """The same for people."""
        asked = f"{self.writes} writes, {self.flushes} flushes, {self.failed} failed"
        found = f"{self.lost} lost, {self.torn} torn, {self.misplaced} misplaced, {self.duplicated} duplicated"
        text = f"checker: {self.operations} operations acknowledged ({asked}), {self.blocks} blocks compared: {found}"
        return [text, *(f"  {example}" for example in self.examples)]

    def note(self, text: str) -> None:
        if len(self.examples) < 10:
            self.examples.append(text)


class Checker:
    """Follows one acknowledgement log and judges one image, while the writer runs or after."""

    def __init__(self, image: str, acks: str, seed: int) -> None:
        self._image = image
        self._acks = acks
        self._seed = seed
        self._offset = 0
        self._seen: set[int] = set()
        self._newest: dict[int, Ack] = {}
        """Block -> the newest acknowledged write that covers it."""
        self.verdict = Verdict()
        self.times_ns: list[int] = []
        """When each acknowledgement was given, on CLOCK_MONOTONIC."""

    def follow(self) -> None:
        """Take in what has been acknowledged since the last call."""
        try:
            with open(self._acks, "rb") as log:
                log.seek(self._offset)
                data = log.read()
        except FileNotFoundError:
            return
        for ack in unpack_all(data):
            self._offset += RECORD_SIZE
            self._take(ack)

    def check(self) -> Verdict:
        """Every block acknowledged before this call must be on the image, whole and no older. Counts add up."""
        self.follow()
        expected = dict(self._newest)
        self.verdict.blocks = len(expected)
        image = os.open(self._image, os.O_RDONLY | os.O_CLOEXEC)
        try:
            for block, ack in expected.items():
                self._check_block(image, block, ack)
        finally:
            os.close(image)
        return self.verdict

    def _take(self, ack: Ack) -> None:
        verdict = self.verdict
        verdict.operations += 1
        self.times_ns.append(ack.at_ns)
        if ack.sequence in self._seen:
            verdict.duplicated += 1
            verdict.note(f"operation {ack.sequence} was acknowledged twice")
        self._seen.add(ack.sequence)
        match ack.kind:
            case Kind.WRITE:
                verdict.writes += 1
                self._check_record(ack)
                for block in range(ack.block, ack.block + ack.blocks):
                    if block not in self._newest or self._newest[block].sequence < ack.sequence:
                        self._newest[block] = ack
            case Kind.FLUSH:
                verdict.flushes += 1
            case Kind.FAILED:
                verdict.failed += 1
            case Kind.READ:
                pass

    def _check_record(self, ack: Ack) -> None:
        if digest(content(self._seed, ack.sequence, ack.block, ack.blocks)) != ack.digest:
            self.verdict.note(f"operation {ack.sequence}: the log's hash is not that of its content")
            self.verdict.torn += 1

    def _check_block(self, image: int, block: int, ack: Ack) -> None:
        found = None
        for _ in range(LOOKS):
            found = parse_block(os.pread(image, BLOCK_SIZE, block * BLOCK_SIZE).ljust(BLOCK_SIZE, b"\0"))
            if found is not None:
                break
        verdict = self.verdict
        if found is None:
            verdict.torn += 1
            verdict.note(f"block {block} is torn; operation {ack.sequence} was acknowledged for it")
        elif found[0] != self._seed or found[2] != block:
            verdict.misplaced += 1
            verdict.note(f"block {block} holds block {found[2]} of writer {found[0]}")
        elif found[1] < ack.sequence:
            verdict.lost += 1
            verdict.note(f"block {block} holds operation {found[1]}; {ack.sequence} was acknowledged")
