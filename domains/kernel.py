"""What a domain boots: a Python file with `main(guest)`, or an entry point of the group `hvd.kernels`."""

from __future__ import annotations

import importlib
import importlib.metadata
import runpy
from collections.abc import Callable
from typing import Any

from hvd.transport.errors import HvdError

Main = Callable[[Any], None]

SHIPPED = {
    "hvd:dom0": "hvd.domains.programs.dom0:main",
    "hvd:driver_domain": "hvd.domains.programs.driver_domain:main",
    "hvd:idle": "hvd.domains.programs.idle:main",
    "hvd:disk_exerciser": "hvd.domains.programs.disk_exerciser:main",
    "hvd:echo_caller": "hvd.domains.programs.echo_caller:main",
    "hvd:first_line": "hvd.domains.programs.first_line:main",
}


class KernelError(HvdError):
    """A kernel that cannot be booted; the text says which and why."""


def load_kernel(kernel: str) -> Main:
    """The `main` of a kernel. A name with a colon is an entry point or `module:function`, anything else a file."""
    target = SHIPPED.get(kernel) or _entry_point(kernel)
    try:
        main = _from_module(target) if target else runpy.run_path(kernel, run_name="hvd_guest").get("main")
    except BaseException as error:
        raise KernelError(f"kernel {kernel} does not import: {type(error).__name__}: {error}") from error
    if not callable(main):
        raise KernelError(f"kernel {kernel} has no function main(guest)")
    return main  # type: ignore[no-any-return]


def _entry_point(kernel: str) -> str | None:
    if "/" in kernel or ":" not in kernel:
        return None
    for point in importlib.metadata.entry_points(group="hvd.kernels"):
        if point.name == kernel:
            return point.value
    return kernel


def _from_module(target: str) -> Any:
    module, _, function = target.partition(":")
    return getattr(importlib.import_module(module), function or "main", None)
