"""A log that cannot fill the disk: appended to by path, rotated at a bound, one old file kept."""

from __future__ import annotations

import os
from contextlib import suppress

from hvd.transport.limits import CONSOLE_LOG_BYTES_MAX


def append(path: str | os.PathLike[str], data: bytes) -> None:
    """Append, opening by path each time so that two writers may share and rotate it. An unwritable log loses data."""
    data = data[-CONSOLE_LOG_BYTES_MAX:]
    try:
        with open(path, "ab") as log:
            if log.tell() + len(data) <= CONSOLE_LOG_BYTES_MAX:
                log.write(data)
                return
        _rotate(os.fspath(path), data)
    except OSError:
        return


def _rotate(path: str, data: bytes) -> None:
    """The full file becomes the old one and another begins with this data; a reader finds both at any moment."""
    begun, ended = f"{path}.new", f"{path}.ended"
    with open(begun, "wb") as log:
        log.write(data)
    with suppress(FileNotFoundError):  # whoever was killed between the next two lines left it
        os.unlink(ended)
    os.link(path, ended)
    os.replace(ended, f"{path}.1")
    os.replace(begun, path)
