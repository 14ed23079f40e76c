"""The checker of a console stream: compares a domain's console log with the history of what it printed."""

from __future__ import annotations

import os
from pathlib import Path

from hvd.toolstack.faults.history import History, Verdict
from hvd.transport.history import Kind, Phase
from hvd.transport.stamped_lines import pieces, whole_lines


class ConsoleChecker:
    """Follows a console exerciser and its log, over rotations of the log as long as it looks often enough.

    Lost: a line that the console took and that is not in the log. Misplaced: one behind a later one. Torn: more broken
    lines than deaths in the middle of one explain.
    """

    def __init__(self, log: Path, acks: str, seed: int) -> None:
        self._log = LogFollower(log)
        self._seed = seed
        self.verdict = Verdict()
        self.history = History(acks, self.verdict)
        self._invoked: set[int] = set()
        self._taken: set[int] = set()
        """Numbers of lines that are ok."""
        self._seen: set[int] = set()
        self._last = 0
        self._pieces = 0
        self._rest = ""

    def follow(self) -> None:
        """Take in what has happened since the last call."""
        text = self._rest + self._log.read()  # before the history: a line is invoked before it is printed
        for event in self.history.follow():
            if event.kind is Kind.LINE:
                (self._invoked if event.phase is Phase.INVOKED else self._taken).add(event.id)
        end = text.rfind("\n") + 1
        self._rest = text[end:]
        self._pieces += pieces(text[:end])
        for seed, number in whole_lines(text[:end]):
            self._take(seed, number)

    def check(self) -> Verdict:
        """Every line that was taken before this call must be in the log once, in its order."""
        self.follow()
        taken = set(self._taken)
        self.follow()  # what is in the log by now
        verdict = self.verdict
        verdict.compared = len(self._seen)
        lost = sorted(taken - self._seen)
        verdict.lost = len(lost)
        for number in lost[:1]:
            verdict.note(f"line {number} and {len(lost) - 1} others are not in the log")
        verdict.torn = max(0, self._pieces - verdict.orphaned)
        if verdict.torn:
            verdict.note(f"{self._pieces} lines are torn, {verdict.orphaned} were being printed when their domain died")
        return verdict

    def _take(self, seed: int, number: int) -> None:
        verdict = self.verdict
        if seed != self._seed or number not in self._invoked:
            verdict.unexpected += 1
            verdict.note(f"line {number} of writer {seed}, which nobody printed")
        elif number in self._seen:
            verdict.duplicated += 1
            verdict.note(f"line {number} is in the log twice")
        elif number < self._last:
            verdict.misplaced += 1
            verdict.note(f"line {number} stands behind line {self._last}")
        self._seen.add(number)
        self._last = max(self._last, number)


class LogFollower:
    """A log that is rotated (transport/log_file.py), read on from where it was read to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode = 0
        self._offset = 0

    def read(self) -> str:
        """What was appended since the last call."""
        data = b""
        for path in (self._path.with_suffix(".log.1"), self._path):
            try:
                with path.open("rb") as file:
                    data += self._read(os.fstat(file.fileno()).st_ino, file.read())
            except FileNotFoundError:
                continue
        return data.decode("utf-8", "replace")

    def _read(self, inode: int, content: bytes) -> bytes:
        if inode != self._inode:
            if self._inode and content and self._is_older(inode):
                return b""
            self._inode, self._offset = inode, 0
        new, self._offset = content[self._offset :], len(content)
        return new

    def _is_older(self, inode: int) -> bool:
        """A rotated file that was read to its end before the one that is read now was begun."""
        try:
            return self._path.stat().st_ino == self._inode != inode
        except FileNotFoundError:
            return False
