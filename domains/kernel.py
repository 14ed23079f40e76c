"""What a domain boots: a Python file with `main(guest)`, or an entry point of the group `hvd.kernels`."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from hvd.transport.errors import HvdError

FILE_MODULE = "hvd_guest"
Main = Callable[[Any], None]

SHIPPED = {
    "hvd:dom0": "hvd.domains.programs.dom0:main",
    "hvd:driver_domain": "hvd.domains.programs.driver_domain:main",
    "hvd:idle": "hvd.domains.programs.idle:main",
    "hvd:conformance": "hvd.domains.programs.conformance:main",
    "hvd:disk_exerciser": "hvd.domains.programs.disk_exerciser:main",
    "hvd:console_exerciser": "hvd.domains.programs.console_exerciser:main",
    "hvd:store_exerciser": "hvd.domains.programs.store_exerciser:main",
    "hvd:disk_caller": "hvd.domains.programs.disk_caller:main",
    "hvd:measured": "hvd.domains.programs.measured:main",
    "hvd:nuisance": "hvd.domains.programs.nuisance:main",
    "hvd:xenbus_client": "hvd.domains.programs.xenbus_client:main",
    "hvd:first_line": "hvd.domains.programs.first_line:main",
    "hvd:hostile": "hvd.domains.programs.hostile:main",
}


class KernelError(HvdError):
    """A kernel that cannot be booted; the text says which and why."""


def load_kernel(kernel: str) -> Main:
    """The `main` of a kernel. A name with a colon is an entry point or `module:function`, anything else a file."""
    target = SHIPPED.get(kernel) or _entry_point(kernel)
    try:
        main = _from_module(target) if target else _from_file(kernel)
    except BaseException as error:
        raise KernelError(f"kernel {kernel} does not import: {type(error).__name__}: {error}") from error
    if not callable(main):
        raise KernelError(f"kernel {kernel} has no function main(guest)")
    return main  # type: ignore[no-any-return]


def _entry_point(kernel: str) -> str | None:
    if "/" in kernel or ":" not in kernel:
        return None
    import importlib.metadata  # not above: it takes longer to load than all of our drivers, and dom0 does without

    for point in importlib.metadata.entry_points(group="hvd.kernels"):
        if point.name == kernel:
            return point.value
    return kernel


def _from_file(path: str) -> Any:
    """Run the file as a module of its own; it may import its neighbours. (runpy does the same in 3 ms, this in 0.3.)"""
    with open(path, "rb") as file:
        code = compile(file.read(), path, "exec")
    module = ModuleType(FILE_MODULE)
    module.__file__ = path
    sys.modules[FILE_MODULE] = module
    sys.path.insert(0, os.path.dirname(os.path.realpath(path)))
    exec(code, module.__dict__)
    return module.__dict__.get("main")


def _from_module(target: str) -> Any:
    module, _, function = target.partition(":")
    return getattr(importlib.import_module(module), function or "main", None)
