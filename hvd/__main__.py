"""The composition root: starts the command line, or the machine with its broker and zygote."""

from __future__ import annotations

import gc
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket

    from hvd.transport.cgroups import DomainGroups
    from hvd.transport.pulse import Pulse

ORDERS, REPORTS = 0, 3
"""The machine's descriptors: orders come in, what becomes of them goes out. Whoever starts one puts pipes there."""
HELP = ("-h", "--help")
INTERRUPTED = 130


def main() -> None:
    """The `hvd` command.

    `hvd up` forks the machine first, behind what both need: it loads what it will run while we load what reads command
    lines. It gets its order when that is done, and without one it has done nothing.
    """
    try:
        if sys.argv[1:2] != ["up"] or any(word in HELP for word in sys.argv):
            from hvd.toolstack.cli.app import run

            run()
            return
        gc.disable()  # what is loaded stays: there is nothing to collect
        from hvd.transport import hypercalls, run_dir  # noqa: F401 - for both

        pid, orders, reports = _fork_machine()
        from hvd.toolstack.cli.app import run
        from hvd.toolstack.cluster.machine_process import MachineProcess

        gc.freeze()
        gc.enable()
        run(MachineProcess(pid, orders, reports))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)  # while something was being loaded: what is started ends with us
    except RuntimeError as error:  # which Python makes of an interrupt that falls into the making of a class
        if not isinstance(error.__cause__, KeyboardInterrupt):
            raise
        sys.exit(INTERRUPTED)


def _fork_machine() -> tuple[int, int, int]:
    """The pid of a machine that waits for its order, and our ends of its pipes."""
    orders_read, orders_write = os.pipe()
    reports_read, reports_write = os.pipe()
    pid = os.fork()
    if pid:
        os.close(orders_read)
        os.close(reports_write)
        return pid, orders_write, reports_read
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for not_ours in (orders_write, reports_read):  # may be a standard one, of a command that had none
            os.dup2(null, not_ours)
        os.dup2(orders_read, ORDERS)
        os.dup2(reports_write, REPORTS)
        run_machine()
    except (SystemExit, KeyboardInterrupt):
        os._exit(0)  # asked to end while it was loading
    except BaseException:  # noqa: BLE001 - the top of a process: report, then end it without unwinding into the command
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    os._exit(0)


def run_machine() -> None:
    """Be the machine until it is powered off: load what it runs, wait for an order, carry it out.

    Imports stand here, so that whoever only starts machines does not load what runs in them; and before the order is
    read, so that a machine can warm up while its order is still being written. Without an order nothing is done.
    """
    from hvd.machine.standing import detach, end_on_sigterm, follow_owner

    os.closerange(REPORTS + 1, os.sysconf("SC_OPEN_MAX"))
    end_on_sigterm()
    gc.disable()
    from hvd.broker.loop import run_broker
    from hvd.machine.machine import Machine
    from hvd.machine.run_dir import NoRunDir, RunDirRefused, claim, release
    from hvd.machine.uplinks import UplinkRefused, open_uplinks
    from hvd.transport.run_dir import NO_UPLINK, UNUSABLE, Order

    def report(line: str) -> None:
        try:
            os.write(REPORTS, f"{line}\n".encode())
        except OSError:
            return  # whoever started us has gone on

    gc.freeze()
    gc.enable()
    order = Order.read(ORDERS)
    if order is None:
        return
    try:
        claim(order.run_dir)
    except RunDirRefused as refusal:
        report(f"{UNUSABLE if isinstance(refusal, NoRunDir) else ''}{refusal}")
        return
    try:
        uplinks = open_uplinks(order.uplinks)
        everywhere = os.sched_getaffinity(0)
        os.sched_setaffinity(0, order.cpus or everywhere)
        detach(order.run_dir)
        follow_owner(ORDERS)

        def run_zygote(link: socket.socket, groups: list[DomainGroups], pulse: Pulse) -> None:
            _run_zygote(link, groups, pulse, everywhere)

        Machine(order.run_dir, order.configuration, run_broker, run_zygote, report, uplinks=uplinks).run()
    except UplinkRefused as refusal:
        report(f"{NO_UPLINK}{refusal}")
    finally:
        release(order.run_dir, everything=order.temporary)


def _run_zygote(link: socket.socket, groups: list[DomainGroups], pulse: Pulse, everywhere: set[int]) -> None:
    """Load what runs in domains while the broker boots; neither it nor the machine has any of that in its image."""
    from hvd.domains.zygote import run_zygote

    run_zygote(link, groups, pulse, everywhere)


def try_sandbox() -> None:
    """What a domain's sandbox lacks on this machine, as JSON."""
    from hvd.domains.sandbox.trial import run_trial

    run_trial()


if __name__ == "__main__":
    if sys.argv[1:] == ["machine"]:
        run_machine()
    elif sys.argv[1:] == ["sandbox"]:
        try_sandbox()
    else:
        main()
