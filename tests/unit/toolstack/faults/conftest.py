"""Histories written by hand."""

from pathlib import Path
from typing import Any

import pytest

from hvd.transport.history import Event, Kind, Phase, pack


class Written:
    """A history file that a test appends to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.at_ns = 0

    def record(self, phase: Phase, kind: Kind, id_: int, *what: Any) -> None:
        """`what`: place, count and digest, as far as they matter."""
        self.at_ns += 1
        with self.path.open("ab") as file:
            file.write(pack(Event(phase, kind, id_, *what), self.at_ns))

    def done(self, kind: Kind, id_: int, *what: Any) -> None:
        """Invoked and ok."""
        self.record(Phase.INVOKED, kind, id_, *what)
        self.record(Phase.OK, kind, id_, *what)


@pytest.fixture
def written(tmp_path):
    return Written(tmp_path / "acks")
