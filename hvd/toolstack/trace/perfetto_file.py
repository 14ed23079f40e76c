"""A story as a file that ui.perfetto.dev opens: Perfetto's protobuf, written by the `perfetto` package's classes."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from hvd.toolstack.cluster.errors import BadTraceFile, MissingPackage
from hvd.toolstack.trace.story import Lane, Mark, Shape, Story

PACKETS_PER_WRITE = 4096
SEQUENCE_ID = 1
MONOTONIC = "BUILTIN_CLOCK_MONOTONIC"
CLOCKS = {
    "BUILTIN_CLOCK_REALTIME": time.CLOCK_REALTIME,
    MONOTONIC: time.CLOCK_MONOTONIC,
    "BUILTIN_CLOCK_BOOTTIME": time.CLOCK_BOOTTIME,
}


class PerfettoFile:
    """Opened before the trace begins, so that nothing is traced in vain; in its place only when it is whole."""

    def __init__(self, path: Path) -> None:
        """MissingPackage without perfetto; BadTraceFile where no file can be made."""
        self._protos = _load_protos()
        self.path = path
        if path.is_dir():
            raise BadTraceFile(f"cannot write {path}: it is a directory")
        try:
            descriptor, self._scratch = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        except OSError as error:
            raise BadTraceFile(f"cannot write {path}: {error.strerror}: {path.parent}") from None
        self._file: BinaryIO = os.fdopen(descriptor, "wb")
        os.fchmod(descriptor, 0o644)

    def write(self, story: Story) -> None:
        """All of it, and put it in its place."""
        protos = self._protos
        trace = protos.Trace()
        self._begin(trace)
        for lane, (name, parent) in story.lanes.items():
            self._add_lane(trace, lane, name, parent)
        for mark in story.marks:
            if len(trace.packet) >= PACKETS_PER_WRITE:
                self._flush(trace)
            self._add_mark(trace, mark)
        self._flush(trace)
        self._file.close()
        Path(self._scratch).replace(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        Path(self._scratch).unlink(missing_ok=True)

    def _flush(self, trace: Any) -> None:
        """Traces one behind the other are one trace, as with every protobuf whose fields are repeated."""
        self._file.write(trace.SerializeToString())
        trace.Clear()

    def _begin(self, trace: Any) -> None:
        """Times are CLOCK_MONOTONIC's, and how it stands to the others."""
        packet = self._packet(trace)
        packet.sequence_flags = self._protos.TracePacket.SEQ_INCREMENTAL_STATE_CLEARED
        packet.trace_packet_defaults.timestamp_clock_id = self._protos.BuiltinClock.Value(MONOTONIC)
        snapshot = packet.clock_snapshot
        snapshot.primary_trace_clock = self._protos.BuiltinClock.Value(MONOTONIC)
        for name, clock in CLOCKS.items():
            snapshot.clocks.add(clock_id=self._protos.BuiltinClock.Value(name), timestamp=time.clock_gettime_ns(clock))

    def _add_lane(self, trace: Any, lane: Lane, name: str, parent: Lane | None) -> None:
        descriptor = self._packet(trace).track_descriptor
        descriptor.uuid, descriptor.name = lane, name
        if parent is not None:
            descriptor.parent_uuid = parent

    def _add_mark(self, trace: Any, mark: Mark) -> None:
        packet = self._packet(trace)
        packet.timestamp = mark.ns
        event = packet.track_event
        event.track_uuid = mark.lane
        event.type = {
            Shape.BEGIN: self._protos.TrackEvent.TYPE_SLICE_BEGIN,
            Shape.END: self._protos.TrackEvent.TYPE_SLICE_END,
            Shape.INSTANT: self._protos.TrackEvent.TYPE_INSTANT,
        }[mark.shape]
        if mark.shape is Shape.END:
            return
        event.name = mark.name
        if mark.flow is not None:
            (event.terminating_flow_ids if mark.flow_ends else event.flow_ids).append(mark.flow)
        for name, value in mark.notes:
            note = event.debug_annotations.add(name=name)
            if isinstance(value, int):
                note.uint_value = value
            else:
                note.string_value = value

    def _packet(self, trace: Any) -> Any:
        return trace.packet.add(trusted_packet_sequence_id=SEQUENCE_ID)


def _load_protos() -> Any:
    try:
        from perfetto.protos.perfetto.trace import perfetto_trace_pb2
    except ImportError as error:
        raise MissingPackage(
            f"traces are written with the package perfetto, which is not there ({error}); install it with\n"
            f"    {sys.executable} -m pip install 'perfetto>=0.16'"
        ) from None
    return perfetto_trace_pb2
