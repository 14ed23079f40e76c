"""Turns a target into commands: libFuzzer for native ones, atheris (libFuzzer too) for Python ones, and what works
without either.

A native target is compiled when its sources have changed: with clang++ against libFuzzer, else with g++ and a `main`
that plays files once each. AddressSanitizer and UndefinedBehaviourSanitizer look on in both.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from tests.fuzz.targets import BUILD, FUZZ, ROOT, Target

PLAY = FUZZ / "play.py"
CLANG_VERSIONS = range(30, 13, -1)
FLAGS = ("-std=c++20", "-O1", "-g", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-fno-sanitize-recover=all")
COMPILE_DEADLINE_S = 300
INPUT_DEADLINE_S = 10
"""What takes longer is a hang."""
RSS_MB_MAX = 2048
LEN_CONTROL = 10
"""How slowly inputs grow. libFuzzer's own 100 is for a hundred times as many runs a second as Python makes."""


class NoEngine(Exception):
    """This machine cannot run a target; the text says what it lacks."""


def needs_for_guided(target: Target) -> str:
    """What a guided run of the target lacks here, "" if nothing."""
    if target.native:
        return "" if _clang() else "no clang++ with libFuzzer (Debian packages: clang, libclang-rt-dev)"
    return "" if importlib.util.find_spec("atheris") else "no atheris (`hvd[test]` has it for Linux on x86-64)"


def guided(target: Target, *flags: str) -> list[str]:
    """A run that learns from coverage, beginning with the corpora among the flags."""
    if lack := needs_for_guided(target):
        raise NoEngine(f"{target.name}: {lack}")
    limits = [
        f"-max_len={target.bytes_max}", f"-timeout={INPUT_DEADLINE_S}", f"-rss_limit_mb={RSS_MB_MAX}",
        f"-len_control={LEN_CONTROL}", "-print_final_stats=1",
    ]  # fmt: skip
    if target.dictionary.exists():
        limits.append(f"-dict={target.dictionary}")
    program = (
        [str(program_of(target)), "-use_value_profile=1"] if target.native else [sys.executable, str(PLAY), target.name]
    )
    return [*program, *limits, *flags]


def once(target: Target, *files: Path) -> list[str]:
    """Each input one time."""
    program = [str(program_of(target))] if target.native else [sys.executable, str(PLAY), "--once", target.name]
    return [*program, *map(str, files)]


def program_of(target: Target) -> Path:
    """A native target, compiled."""
    compiler = _clang() or shutil.which("g++")
    if compiler is None:
        raise NoEngine(f"{target.name}: no C++ compiler")
    program, stamp = BUILD / "bin" / target.name, BUILD / "bin" / f"{target.name}.digest"
    digest = _digest(compiler, target)
    if not (program.exists() and stamp.exists() and stamp.read_text() == digest):
        program.parent.mkdir(parents=True, exist_ok=True)
        _compile(compiler, target, program)
        stamp.write_text(digest)
    return program


def _compile(compiler: str, target: Target, program: Path) -> None:
    if _clang():
        how = ["-fsanitize=fuzzer,address,undefined"]
    else:
        how = ["-fsanitize=address,undefined", "-include", str(FUZZ / "native" / "replay.hpp")]
    command = [compiler, *FLAGS, *how, str(target.source), "-o", str(program)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_DEADLINE_S, check=False)
    if result.returncode:
        raise NoEngine(f"{' '.join(command)}\n{result.stderr}")


def _digest(compiler: str, target: Target) -> str:
    headers = sorted(
        [
            *(FUZZ / "native").glob("*.hpp"),
            *(ROOT / "transport" / "native").glob("*.hpp"),
            ROOT / "tests/native/expect.hpp",
        ]
    )
    digest = hashlib.sha256(" ".join((compiler, *FLAGS)).encode())
    for source in (target.source, *headers):
        digest.update(source.read_bytes())
    return digest.hexdigest()


@cache
def _clang() -> str | None:
    """A clang++ that has libFuzzer: its runtime is a package of its own."""
    for name in ("clang++", *(f"clang++-{version}" for version in CLANG_VERSIONS)):
        if (path := shutil.which(name)) is not None and _has_libfuzzer(path):
            return path
    return None


def _has_libfuzzer(compiler: str) -> bool:
    wanted = subprocess.run([compiler, "-fsanitize=fuzzer", "-###", "-x", "c++", "/dev/null", "-o", "/dev/null"],
                            capture_output=True, text=True, timeout=COMPILE_DEADLINE_S, check=False).stderr  # fmt: skip
    runtime = next(
        (word.strip('"') for word in wanted.split() if "clang_rt.fuzzer" in word and word.strip('"').endswith(".a")),
        None,
    )
    return runtime is not None and Path(runtime).exists()
