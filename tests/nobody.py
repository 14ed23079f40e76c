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

import pytest

NOBODY = 1_800_000_000 + os.getpid()
"""A user of this session's alone, of a number that no distribution gives out. The kernel counts descriptors on their
way by user: with a higher limit than ours another session's attackers would leave us none ("Too many references")."""
BECOME = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]


WITH_TAP = [
    "unshare", "--mount", "sh", "-c",
    'mount -t tmpfs hvd /dev/net && mknod -m 666 /dev/net/tun c 10 200 && chmod 755 /dev/net && exec "$@"', "sh",
]  # fmt: skip
"""A command line in front of another: there everybody may make a TAP device, as on most hosts."""


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


def passes_as_nobody_with_tap(file: Path, timeout_s: float) -> str:
    """A file of tests, once more as nobody, who may make TAP devices: what it printed. It is skipped where none may."""
    if subprocess.run([*WITH_TAP, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no mount namespaces here")
    with nobody() as somebody:
        if somebody is None:
            pytest.skip("no interpreter of this version that other users may execute")
        options = ["-q", "-x", "--noconftest", "-o", f"cache_dir={somebody.home}/cache"]
        done = subprocess.run(
            [*WITH_TAP, *somebody.python, "-P", "-m", "pytest", *options, file], check=False,
            cwd=Path(__file__).parents[1], env=somebody.environment, text=True, capture_output=True, timeout=timeout_s,
        )  # fmt: skip
    sys.stdout.write(done.stdout)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return done.stdout


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
