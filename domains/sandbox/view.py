"""Which files of the host every domain needs: the interpreter, hvd itself, the system's libraries, harmless devices."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import cache

SYSTEM = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime",
          "/usr/share/zoneinfo")  # fmt: skip
PROGRAMS = ("/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/libexec", "/bin", "/sbin", "/etc/alternatives")
"""For a domain that starts programs."""
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
TERMINALS = ("/dev/ptmx", "/dev/pts")
"""For domain 0, whose console daemon makes terminals that the host's programs open."""


@cache
def interpreter() -> tuple[str, ...]:
    """Where Python finds modules, but for the folder of the program that it was started as, or was started in.

    Where hvd is run from its own tree the tree is not shown, but the packages that are hvd.
    """
    return tuple(_interpreter())


def _interpreter() -> Iterator[str]:
    own = set(map(os.path.realpath, sys.modules["hvd"].__path__))
    trees = set(map(os.path.dirname, own))
    found = sys.path if sys.flags.safe_path else sys.path[1:]
    for entry in dict.fromkeys(os.path.abspath(entry) for entry in found if entry):
        if os.path.realpath(entry) not in trees or _is_installed(entry):
            yield entry
    for folder in sorted(own):
        yield folder
        for name in ("domains", "transport"):  # links, where hvd is run from its own tree
            if os.path.islink(link := os.path.join(folder, name)):
                yield os.path.realpath(link)


def _is_installed(entry: str) -> bool:
    return any(os.path.commonpath([entry, prefix]) == prefix for prefix in (sys.prefix, sys.base_prefix))


def commands() -> Iterator[str]:
    """Where programs are, the interpreter among them."""
    yield from PROGRAMS
    yield from dict.fromkeys((os.path.join(sys.prefix, "bin"), os.path.join(sys.base_prefix, "bin")))
    yield os.path.join(sys.prefix, "pyvenv.cfg")
