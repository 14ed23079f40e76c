"""From a fork of the zygote to the first line of a guest's code: descriptors, identity, runtime, kernel."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import socket
import sys
import traceback
from pathlib import Path

from hvd.domains.guest import Guest, GuestShutdown
from hvd.domains.kernel import KernelError, load_kernel
from hvd.domains.runtime import Runtime
from hvd.transport.process import CLONE_NEWUSER, die_with_parent, exit_on_fatal_signals, set_process_name
from hvd.transport.upcalls import UpcallReceiver

SHUTDOWN_POWEROFF, SHUTDOWN_CRASH = 0, 3
TEXT_MAX = 2000
OOM_SCORE_ADJ = "500"
"""When memory runs out a domain is killed, and started again; never the broker, let alone the machine."""
OUTSIDE_IDS = (os.geteuid(), os.getegid())
"""Read in the zygote: in a new user namespace nobody is mapped yet."""


def live(namespaces: int, name: str, domid: int, *, upcall_descriptor: int, stdio: int) -> None:
    """Be a domain until its kernel returns, dies, or the machine ends it."""
    _leave_the_zygote(namespaces, name, upcall_descriptor, stdio)
    upcalls = UpcallReceiver(socket.socket(fileno=3))
    certificate, descriptors = upcalls.wait_birth()
    if certificate["cpus"]:
        os.sched_setaffinity(0, certificate["cpus"])
    runtime = Runtime(certificate, descriptors, upcalls)
    guest = Guest(runtime)
    reason, text, last_words = SHUTDOWN_POWEROFF, "", ""
    try:
        guest.run(load_kernel(certificate["kernel"]))
    except GuestShutdown:
        reason = guest.requested_reason()
    except KernelError as error:
        reason, text, last_words = SHUTDOWN_CRASH, str(error), f"{error}\n"
    except BaseException as error:  # noqa: BLE001 - whatever a guest's program raises is its crash, and is reported as that
        reason, text = SHUTDOWN_CRASH, f"{type(error).__name__}: {error}"[:TEXT_MAX]
        last_words = traceback.format_exc()
    guest.close(reason, text, last_words)


def _leave_the_zygote(namespaces: int, name: str, upcall_descriptor: int, stdio: int) -> None:
    """Own name and standard descriptors, nothing else of the zygote's; the upcall socket is descriptor 3."""
    set_process_name(f"hvd:{name}")
    if namespaces & CLONE_NEWUSER:
        _map_own_user()
    die_with_parent(os.getppid())
    with contextlib.suppress(OSError):  # no /proc: then the kernel chooses among all alike
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE_ADJ, encoding="ascii")
    upcall_copy = os.dup(upcall_descriptor)
    os.dup2(stdio, 1)
    os.dup2(stdio, 2)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(upcall_copy, 3, inheritable=False)
    os.closerange(4, os.sysconf("SC_OPEN_MAX"))
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    exit_on_fatal_signals()
    faulthandler.enable(2)


def _map_own_user() -> None:
    """In a new user namespace: be who we were."""
    uid, gid = OUTSIDE_IDS
    for file, line in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{file}", "w", encoding="ascii") as handle:
            handle.write(line)
