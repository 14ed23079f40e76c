"""From an identity to the first line of a guest's code: certificate, runtime, kernel."""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from hvd.domains.guest import Guest, GuestShutdown, sendable
from hvd.domains.kernel import KernelError, load_kernel
from hvd.domains.rehearsal import Props, rehearse
from hvd.domains.runtime import SHUTDOWN_CRASH, SHUTDOWN_POWEROFF, Runtime
from hvd.domains.standby import UPCALL, Identity
from hvd.transport.kernels import is_program
from hvd.transport.messages import SandboxReport
from hvd.transport.process import allow_tracing, report_fatal_signals
from hvd.transport.sandbox import Kind
from hvd.transport.upcalls import UpcallReceiver

if TYPE_CHECKING:
    from hvd.domains.program.init import Init

TEXT_MAX = 2000


def live(identity: Identity) -> None:
    """Be a domain until its kernel returns, dies, or the machine ends it."""
    upcalls = UpcallReceiver(identity.upcalls)
    certificate, descriptors = upcalls.wait_birth()
    if certificate["traceable"]:
        allow_tracing()
    if certificate["reports_faults"]:
        report_fatal_signals(UPCALL)
    if certificate["cpus"]:
        os.sched_setaffinity(0, certificate["cpus"])
    init = _init(certificate) if is_program(certificate["kernel"]) else None
    props = _props(certificate)
    address = identity.sandbox.enter(certificate, None if init is None else init.launch.fork)
    runtime = Runtime(certificate, descriptors, upcalls, address)
    guest = Guest(runtime)
    lacking = identity.sandbox.lacking | ({} if init is None else init.launch.hold())
    may_run = not lacking.keys() & certificate["sandbox"]["require"]
    if certificate["spare"] and may_run:
        runtime.stand_by(lacking)
        if props is not None:
            rehearse(runtime, props)
    else:
        runtime.hypercalls.post(SandboxReport(lacking))
        if not may_run:
            upcalls.wait_end()
        upcalls.wait_run()
    reason, text, last_words = SHUTDOWN_POWEROFF, "", ""
    try:
        guest.run(load_kernel(certificate["kernel"]) if init is None else init.main)
    except GuestShutdown:
        reason = guest.requested_reason()
    except KernelError as error:
        reason, text, last_words = SHUTDOWN_CRASH, str(error), f"{error}\n"
    except BaseException as error:  # noqa: BLE001 - whatever a guest's program raises is its crash, and is reported as that
        reason, text = SHUTDOWN_CRASH, sendable(f"{type(error).__name__}: {error}")[:TEXT_MAX]
        last_words = traceback.format_exc()
        if certificate["reports_faults"]:
            sys.last_value = error  # a core of it is to hold the frames that it went through
    if runtime.stands_by:
        runtime.give_up(text[:TEXT_MAX] or "its kernel ended while it stood by")
    guest.close(reason, text, last_words)


def _props(certificate: dict[str, Any]) -> Props | None:
    """For the rehearsal of a spare that is to serve devices; a host that refuses them has it do without."""
    if certificate["spare"] and certificate["sandbox"]["kind"] in (Kind.DRIVER, Kind.NETWORK):
        with suppress(OSError):
            return Props()
    return None


def _init(certificate: dict[str, Any]) -> Init:
    from hvd.domains.program.init import Init  # in the image when domain 0 is up, which does without

    return Init(certificate)
