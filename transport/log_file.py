"""A log that cannot fill the disk: appended to by path, rotated at a bound, one old file kept."""

from __future__ import annotations

from pathlib import Path

from hvd.transport.limits import CONSOLE_LOG_BYTES_MAX


def append(path: Path, data: bytes) -> None:
    """Append, opening by path each time so that two writers may share and rotate it. An unwritable log loses data."""
    data = data[-CONSOLE_LOG_BYTES_MAX:]
    try:
        with path.open("ab") as log:
            if log.tell() + len(data) <= CONSOLE_LOG_BYTES_MAX:
                log.write(data)
                return
        _rotate(path, data)
    except OSError:
        return


def _rotate(path: Path, data: bytes) -> None:
    """The full file becomes the old one and another begins with this data; a reader finds the path at any moment."""
    old, begun = path.with_suffix(path.suffix + ".1"), path.with_suffix(path.suffix + ".new")
    begun.write_bytes(data)
    old.unlink(missing_ok=True)
    old.hardlink_to(path)
    begun.replace(path)
