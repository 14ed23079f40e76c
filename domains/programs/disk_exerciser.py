"""A guest that writes and reads its disk without pause and notes every acknowledgement for a checker outside.

Arguments `acks=FILE` (records are appended there), `seed=N`, `depth=N` requests in flight, `blocks=N` of the disk to
use, `largest=N` blocks of one operation, `operations=N` (0: no end), `flush_every=N`. Whoever writes `data/finish`
into its XenStore home ends it too; either way it powers off when everything that it asked for has been answered.
"""

from __future__ import annotations

import errno
import math
import os
import random
import time
from dataclasses import dataclass

from hvd.domains.block.frontend import BlockFrontend, Completion
from hvd.domains.guest import Guest
from hvd.transport.ack_log import BLOCK_SIZE, SECTORS_PER_BLOCK, Ack, Kind, content, digest, pack, parse_block

FINISH = "data/finish"
INCARNATION_SHIFT = 40
"""Sequence numbers of different incarnations never meet."""
WAIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Operation:
    """One request in flight."""

    kind: Kind
    sequence: int
    block: int
    blocks: int
    digest: bytes = b""


class Exerciser:
    """Keeps `depth` operations in flight, checks what reads bring, and logs what is acknowledged."""

    def __init__(self, guest: Guest, options: dict[str, str]) -> None:
        self._disk: BlockFrontend = guest.disk()
        self._seed = int(options.get("seed", "1"))
        self._random = random.Random(self._seed + guest.incarnation)
        self._depth = int(options.get("depth", "8"))
        self._blocks = min(int(options.get("blocks", "4096")), self._disk.sectors // SECTORS_PER_BLOCK)
        self._largest = min(
            int(options.get("largest", "64")), self._disk.request_sectors_max // SECTORS_PER_BLOCK, self._blocks
        )
        self._flush_every = int(options.get("flush_every", "64"))
        self._acks = os.open(options["acks"], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._sequence = guest.incarnation << INCARNATION_SHIFT
        self._flying: dict[int, Operation] = {}
        self._least: dict[int, int] = {}
        """Block -> the sequence number it must have reached."""
        self._store = guest.runtime.store
        self._told_to_finish = False
        self._store.watch(FINISH, self._on_finish)

    def _on_finish(self, path: str) -> None:
        self._told_to_finish = self._store.read(FINISH) is not None

    def run(self, operations: int) -> None:
        """So many operations, or (0) until told to finish; ends when all are answered."""
        submitted = 0
        while (more := not self._told_to_finish and submitted < (operations or math.inf)) or self._flying:
            while more and len(self._flying) < self._depth and submitted < (operations or math.inf):
                self._submit()
                submitted += 1
            for completion in self._disk.completions(WAIT_S):
                self._acknowledge(completion)

    def _submit(self) -> None:
        self._sequence += 1
        if self._sequence % self._flush_every == 0:
            self._flying[self._disk.submit_flush()] = Operation(Kind.FLUSH, self._sequence, 0, 0)
            return
        blocks = self._random.randint(1, self._largest if self._random.random() < 0.1 else min(8, self._largest))
        block = self._random.randrange(self._blocks - blocks + 1)
        if self._random.random() < 0.25:
            request = self._disk.submit_read(block * SECTORS_PER_BLOCK, blocks * SECTORS_PER_BLOCK)
            self._flying[request] = Operation(Kind.READ, self._sequence, block, blocks)
            return
        data = content(self._seed, self._sequence, block, blocks)
        request = self._disk.submit_write(block * SECTORS_PER_BLOCK, data)
        self._flying[request] = Operation(Kind.WRITE, self._sequence, block, blocks, digest(data))

    def _acknowledge(self, completion: Completion) -> None:
        operation = self._flying.pop(completion.id)  # a KeyError here is a request that completed twice
        kind = Kind.FAILED if completion.errno else operation.kind
        if kind is Kind.WRITE:
            for block in range(operation.block, operation.block + operation.blocks):
                self._least[block] = max(operation.sequence, self._least.get(block, 0))
        elif kind is Kind.READ:
            self._check(operation, completion.data)
        ack = Ack(kind, operation.sequence, operation.block, operation.blocks, time.monotonic_ns(), operation.digest)
        os.write(self._acks, pack(ack))

    def _check(self, operation: Operation, data: bytes) -> None:
        """Every block must be whole, in its place, and no older than what was acknowledged before the read."""
        for index in range(operation.blocks):
            block = operation.block + index
            if self._least.get(block, operation.sequence) >= operation.sequence:
                continue  # nothing was acknowledged before this read, or something later has been
            found = parse_block(data[index * BLOCK_SIZE : (index + 1) * BLOCK_SIZE])
            if found is None or found[2] != block or found[1] < self._least[block]:
                raise OSError(
                    errno.EIO, f"block {block} read back as {found}, acknowledged was sequence {self._least[block]}"
                )


def main(guest: Guest) -> None:
    options = dict(argument.split("=", 1) for argument in guest.args)
    Exerciser(guest, options).run(int(options.get("operations", "0")))
