"""Which kernels are programs: executables that know nothing of hvd, and run beneath an init of ours."""

from __future__ import annotations

PYTHON = ".py"


def is_program(kernel: str) -> bool:
    """Whether this is the path of a program, and not of a Python file with `main(guest)` or the name of an entry point.

    By the name alone, as whoever starts it and whoever runs it see different files there.
    """
    return "/" in kernel and not kernel.endswith(PYTHON)
