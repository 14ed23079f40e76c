"""Owns how root's tests run something as a user who is nobody: with an interpreter that he may execute."""

from __future__ import annotations

import contextlib
import os
import shutil
import site
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NOBODY = 1_800_000_000 + os.getpid()
"""A user of this session's alone, of a number that no distribution gives out. The kernel counts descriptors on their
way by user: with a higher limit than ours another session's attackers would leave us none ("Too many references")."""
BECOME = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]


@dataclass(frozen=True)
class Somebody:
    """Another user."""

    python: list[str]
    """A command line that runs Python as him."""
    environment: dict[str, str]
    home: Path
    """A directory that is his."""


@contextlib.contextmanager
def nobody() -> Iterator[Somebody | None]:
    """With an interpreter that others may execute: the system's where ours lies in root's home. None: there is none."""
    home = Path(tempfile.mkdtemp(prefix="hvd-nobody-", dir="/tmp"))
    try:
        home.chmod(0o755)
        own = home / "tmp"
        own.mkdir()
        os.chown(own, NOBODY, NOBODY)
        python = _interpreter(home)
        environment = {**os.environ, "HOME": str(own), "TMPDIR": str(own), "PYTHONDONTWRITEBYTECODE": "1"}
        environment.pop("XDG_RUNTIME_DIR", None)
        yield None if python is None else Somebody([*BECOME, python], environment, own)
    finally:
        shutil.rmtree(home)


def _interpreter(home: Path) -> str | None:
    """Ours, or a virtual environment of the system's with our packages; None where neither can be."""
    if _runs(sys.executable):
        return sys.executable
    system = "/usr/bin/python3"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if not _runs(system):
        return None
    made = subprocess.run([system, "-m", "venv", "--without-pip", home / "venv"], check=False, capture_output=True)
    packages = home / "venv" / "lib" / version / "site-packages"
    if made.returncode or not packages.is_dir():
        return None
    line = f"import site; site.addsitedir({site.getsitepackages()[0]!r})\n"
    (packages / "hvd-tree.pth").write_text(line)
    python = str(home / "venv" / "bin" / "python")
    return python if _runs(python, "import hvd.toolstack.attacks.suite") else None


def _runs(python: str, program: str = "") -> bool:
    """Its children must be able to start it, too."""
    if shutil.which("setpriv") is None:
        return False
    again = f"import subprocess, sys; {program or 'pass'}; subprocess.run([sys.executable, '-c', ''], check=True)"
    done = subprocess.run([*BECOME, python, "-P", "-c", again], check=False, capture_output=True)
    return done.returncode == 0
