#!/usr/bin/env python3
"""Plays Python targets, each with the modules under test instrumented: a guided run, or inputs once each.

  play.py TARGET[,TARGET...] [libFuzzer's flags] [CORPUS...]   guided by coverage, with atheris; one after the other
  play.py --once TARGET FILE...                                needs nothing; the first input that fails raises
"""

from __future__ import annotations

import importlib
import importlib.machinery
import os
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))  # behind the editable install, whose hvd is the one to be played with


def target_named(name: str) -> ModuleType:
    return importlib.import_module(f"tests.fuzz.python.{name}")


def play_once(name: str, files: list[str]) -> None:
    play = target_named(name).play
    for file in files:
        try:
            play(Path(file).read_bytes())
        except BaseException:
            print(f"{name}: {file}", file=sys.stderr)
            raise


def fuzz(names: list[str], arguments: list[str]) -> int:
    """Each target in a child: an engine never returns."""
    import atheris

    # What the editable install's finder loads cannot be instrumented: from here on it finds the native module alone.
    sys.path.insert(0, str(ROOT))
    sys.meta_path.insert(0, importlib.machinery.PathFinder)
    with atheris.instrument_imports(include=["hvd"]):
        plays = {name: target_named(name).play for name in names}
    failed = 0
    for name, play in plays.items():
        pid = os.fork()
        if pid == 0:
            again = f"{sys.executable} {__file__} {name}"  # with which the engine starts itself to merge corpora
            atheris.Setup([again, *(argument.replace("%TARGET%", name) for argument in arguments)], play)
            atheris.Fuzz()
        failed = failed or os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return failed


if __name__ == "__main__":
    if sys.argv[1] == "--once":
        play_once(sys.argv[2], sys.argv[3:])
    else:
        sys.exit(fuzz(sys.argv[1].split(","), sys.argv[2:]))
