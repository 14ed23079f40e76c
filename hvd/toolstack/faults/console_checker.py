"""The checker of a console stream: compares a domain's console log with the history of what it printed."""

from __future__ import annotations

from pathlib import Path

from hvd.toolstack.faults.history import History, Verdict
from hvd.transport.history import Kind, Phase
from hvd.transport.stamped_lines import pieces, whole_lines

TAIL_BYTES = 4096


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
    """A log that is rotated (transport/log_file.py), read on from where it was read to: looked at once a file."""

    def __init__(self, path: Path) -> None:
        self._path, self._old = path, path.with_suffix(".log.1")
        self._tail = b""
        """What was read last: its lines are in no other file, while the number of an inode may be given again."""
        self._offset = 0

    def read(self) -> str:
        """What was appended since the last call."""
        old, new = self._both()
        if self._is_read(new):
            data = new[self._offset :]
        elif self._is_read(old):
            data = old[self._offset :] + new
        else:
            data = old + new
        if new:
            self._tail, self._offset = new[-TAIL_BYTES:], len(new)
        return data.decode("utf-8", "replace")

    def _is_read(self, content: bytes) -> bool:
        """Whether it is the file that was read last."""
        return self._tail != b"" and content[: self._offset].endswith(self._tail)

    def _both(self) -> tuple[bytes, bytes]:
        """The old file and the new one, of one moment: not the one from before a rotation and the other from behind."""
        while True:
            before, old, new = _content(self._path), _content(self._old), _content(self._path)
            if new.startswith(before):
                return (b"" if old and new.startswith(old) else old), new  # half-way through one they are one file


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
