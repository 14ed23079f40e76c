"""Histories written by hand."""

from pathlib import Path

import pytest

from hvd.transport.history import Event, Kind, Phase, pack


class Written:
    """A history file that a test appends to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.at_ns = 0

    def record(self, phase: Phase, kind: Kind, id_: int, place: int = 0, count: int = 0, digest: bytes = bytes(16)) -> None:
        self.at_ns += 1
        with self.path.open("ab") as file:
            file.write(pack(Event(phase, kind, id_, place, count, digest), self.at_ns))

    def done(self, kind: Kind, id_: int, place: int = 0, count: int = 0, digest: bytes = bytes(16)) -> None:
        """Invoked and ok."""
        self.record(Phase.INVOKED, kind, id_, place, count, digest)
        self.record(Phase.OK, kind, id_, place, count, digest)


@pytest.fixture
def written(tmp_path):
    return Written(tmp_path / "acks")
