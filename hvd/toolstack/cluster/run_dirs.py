"""Where a cluster's directory is, and that it is fit to be one."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from hvd.toolstack.cluster.errors import BadRunDir
from hvd.transport.run_dir import LOCK, NAMES

VARIABLE = "HVD_RUN_DIR"


def default_run_dir() -> Path:
    """HVD_RUN_DIR; else hvd below XDG_RUNTIME_DIR; else /run/hvd for root and /tmp/hvd-UID for others."""
    if named := os.environ.get(VARIABLE):
        return Path(os.path.realpath(named))
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(os.path.realpath(runtime)) / "hvd"
    return Path("/run/hvd") if os.geteuid() == 0 else Path(f"/tmp/hvd-{os.geteuid()}")


def make_private_dir() -> Path:
    """A new directory for a cluster that nobody needs to find by name."""
    parent = os.environ.get("XDG_RUNTIME_DIR") or os.environ.get("TMPDIR") or "/tmp"
    path = Path(os.path.realpath(parent)) / f"hvd-{os.urandom(6).hex()}"
    path.mkdir(mode=0o700)
    return path


def check_run_dir(path: Path) -> None:
    """BadRunDir unless a machine may make this directory its own: it is missing, or ours and without strange things."""
    try:
        str(path).encode()
        found = path.lstat()
    except UnicodeEncodeError:
        raise BadRunDir(f"{str(path)!a}: expected a path in UTF-8; choose another with {VARIABLE}") from None
    except FileNotFoundError:
        _check_parent(path)
        return
    except OSError as error:
        raise BadRunDir(f"{path}: {error.strerror}; choose another directory with {VARIABLE}") from None
    if not stat.S_ISDIR(found.st_mode):
        raise BadRunDir(f"{path} is not a directory; choose another with {VARIABLE}")
    if found.st_uid != os.geteuid():
        raise BadRunDir(f"{path} belongs to user {found.st_uid}, not to us; choose another with {VARIABLE}")
    names = {entry.name for entry in path.iterdir()}
    if names - set(NAMES) and LOCK not in names:
        strange = sorted(names - set(NAMES))[0]
        raise BadRunDir(f"{path} holds other things ({strange}); name an empty or a new directory with {VARIABLE}")


def _check_parent(path: Path) -> None:
    """BadRunDir when a directory that is missing cannot be made: its nearest ancestor must take new entries."""
    ancestor = next(parent for parent in path.parents if parent.exists())
    if not (ancestor.is_dir() and os.access(ancestor, os.W_OK | os.X_OK)):
        raise BadRunDir(f"{path} cannot be made: {ancestor} takes no new directories; choose another with {VARIABLE}")


def open_run_dir(path: Path) -> int | None:
    """The directory as a descriptor, if it is there and ours; the caller closes it."""
    check_run_dir(path)
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
