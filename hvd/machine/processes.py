"""How the machine makes the other processes: what a fresh fork keeps, and that it dies with the machine."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from hvd.transport.process import die_with_parent, run_in_usual_slices, set_process_name


def fork_process(role: str, keep: set[int], body: Callable[[], None]) -> int:
    """Fork; the child keeps these descriptors and the standard ones, dies when the machine does, and never returns."""
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        die_with_parent(parent)
        set_process_name(f"hvd-{role}")
        run_in_usual_slices()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP, signal.SIGIO):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        _close_others(keep | {0, 1, 2})
        body()
        status = 0
    except BaseException:  # noqa: BLE001 - the top of a process: report, then end it without unwinding into the machine
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(status)


def _close_others(keep: set[int]) -> None:
    low = 0
    for descriptor in sorted(keep):
        if low < descriptor:  # an empty range would close everything
            os.closerange(low, descriptor)
        low = descriptor + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))
