"""A guest that writes and reads its disk without pause and notes every operation for a checker outside.

Arguments `acks=FILE` (its history is appended there), `seed=N`, `depth=N` requests in flight, `blocks=N` of the disk to
use, `largest=N` blocks of one operation, `operations=N` (0: no end), `flush_every=N`, `pace_ms=N` of rest between two
looks at what is done. Whoever writes `data/finish` into its XenStore home ends it too; either way it powers off when
everything that it asked for has been answered.
"""

from __future__ import annotations

import math
import random

from hvd.domains.block.frontend import BlockFrontend, Completion
from hvd.domains.finishing import Finish
from hvd.domains.guest import Guest
from hvd.transport.history import INCARNATION_SHIFT, Event, HistoryWriter, Kind, Phase
from hvd.transport.records import replace
from hvd.transport.stamped_blocks import BLOCK_SIZE, SECTORS_PER_BLOCK, content, digest, parse_block

WAIT_S = 60.0


class Exerciser:
    """Keeps `depth` operations in flight, checks what reads bring, and keeps the history."""

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
        self._history = HistoryWriter(options["acks"])
        self._sequence = guest.incarnation << INCARNATION_SHIFT
        self._flying: dict[int, Event] = {}
        self._least: dict[int, int] = {}
        """Block -> the sequence number it must have reached."""
        self._finish = Finish(guest)
        self._guest = guest
        self._pace_s = int(options.get("pace_ms", "0")) / 1000

    def run(self, operations: int) -> None:
        """So many operations, or (0) until told to finish; ends when all are answered."""
        submitted = 0
        while (more := not self._finish.told and submitted < (operations or math.inf)) or self._flying:
            while more and len(self._flying) < self._depth and submitted < (operations or math.inf):
                self._submit()
                submitted += 1
            for completion in self._disk.completions(WAIT_S):
                self._acknowledge(completion)
            if self._pace_s:
                self._guest.sleep(self._pace_s)

    def _submit(self) -> None:
        self._sequence += 1
        if self._sequence % self._flush_every == 0:
            event = self._invoke(Event(Phase.INVOKED, Kind.FLUSH, self._sequence))
            self._flying[self._disk.submit_flush()] = event
            return
        blocks = self._random.randint(1, self._largest if self._random.random() < 0.1 else min(8, self._largest))
        block = self._random.randrange(self._blocks - blocks + 1)
        if self._random.random() < 0.25:
            event = self._invoke(Event(Phase.INVOKED, Kind.READ, self._sequence, block, blocks))
            request = self._disk.submit_read(block * SECTORS_PER_BLOCK, blocks * SECTORS_PER_BLOCK)
        else:
            data = content(self._seed, self._sequence, block, blocks)
            event = self._invoke(Event(Phase.INVOKED, Kind.WRITE, self._sequence, block, blocks, digest(data)))
            request = self._disk.submit_write(block * SECTORS_PER_BLOCK, data)
        self._flying[request] = event

    def _invoke(self, event: Event) -> Event:
        """It counts as asked for before it is: whatever is found on the disk has been announced."""
        self._history.record(event)
        return event

    def _acknowledge(self, completion: Completion) -> None:
        event = self._flying.pop(completion.id)  # a KeyError here is a request that completed twice
        phase = Phase.FAILED if completion.errno else Phase.OK
        if phase is Phase.OK and event.kind is Kind.WRITE:
            for block in range(event.place, event.place + event.count):
                self._least[block] = max(event.id, self._least.get(block, 0))
        elif phase is Phase.OK and event.kind is Kind.READ and not self._holds(event, completion.data):
            phase = Phase.WRONG
        self._history.record(replace(event, phase=phase))

    def _holds(self, event: Event, data: bytes) -> bool:
        """Whether every block is whole, in its place, and no older than what was acknowledged before the read."""
        for index in range(event.count):
            block = event.place + index
            if self._least.get(block, event.id) >= event.id:
                continue  # nothing was acknowledged before this read, or something later has been
            found = parse_block(data[index * BLOCK_SIZE : (index + 1) * BLOCK_SIZE])
            if found is None or found[2] != block or found[1] < self._least[block]:
                print(f"block {block} read back as {found}, acknowledged was sequence {self._least[block]}")
                return False
        return True


def main(guest: Guest) -> None:
    options = dict(argument.split("=", 1) for argument in guest.args)
    Exerciser(guest, options).run(int(options.get("operations", "0")))
