"""`cluster.trace(...)`: what happens while the block runs, in a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from hvd.toolstack.trace.perfetto_file import PerfettoFile
from hvd.toolstack.trace.session import TraceSession, summary_of
from hvd.toolstack.trace.story import tell

if TYPE_CHECKING:
    from hvd.toolstack.cluster.cluster import Cluster


class Trace:
    """Use with `with`: the file is there when the block has ended, however it did, and `summary` says what is in it."""

    def __init__(self, cluster: Cluster, path: Path, names: Sequence[str | int]) -> None:
        """Nothing is traced before it is entered."""
        self._cluster = cluster
        self.path = path
        self._names = names
        self._session: TraceSession | None = None
        self._file: PerfettoFile | None = None
        self.summary: dict[str, Any] = {}

    def __enter__(self) -> Self:
        domids = [self._cluster.domain(name).domid for name in self._names]
        self._file = PerfettoFile(self.path)
        try:
            self._session = TraceSession(self._cluster.connection, domids)
            self._session.start()
        except BaseException:
            self._file.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self._session is not None and self._file is not None
        with self._file:
            recording = self._session.stop()
            story = tell(recording)
            self._file.write(story)
        began, ended = recording.timeline.began, recording.timeline.ended
        self.summary = {
            "file": str(self.path),
            "duration_s": round((ended.ns - began.ns) / 1e9, 3),
            "flows": story.flows,
            "undrawn": story.undrawn,
            "lifecycle_events": len(recording.lifecycle),
            "ended_early": recording.ended_early,
            "tracks": [summary_of(track) for track in recording.tracks],
        }

    @property
    def session(self) -> TraceSession:
        """What runs inside the block."""
        assert self._session is not None
        return self._session
