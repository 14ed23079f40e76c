"""The composition root: starts the command line, or the machine with its broker and zygote."""

from __future__ import annotations

import os
import sys

ORDERS, REPORTS = 0, 3
"""The machine's descriptors: orders come in, what becomes of them goes out. Whoever starts one puts pipes there."""


def main() -> None:
    """The `hvd` command."""
    from hvd.toolstack.cli.app import run

    run()


def run_machine() -> None:
    """Be the machine until it is powered off: load what it runs, wait for an order, carry it out.

    Imports stand here, so that whoever only starts machines does not load what runs in them; and before the order is
    read, so that a machine can warm up while its order is still being written. Without an order nothing is done.
    """
    from hvd.broker.loop import run_broker
    from hvd.domains.zygote import run_zygote
    from hvd.machine.machine import Machine
    from hvd.machine.run_dir import RunDirRefused, claim, release
    from hvd.machine.standing import detach, follow_owner
    from hvd.transport.run_dir import Order

    def report(line: str) -> None:
        try:
            os.write(REPORTS, f"{line}\n".encode())
        except OSError:
            return  # whoever started us has gone on

    order = Order.read(ORDERS)
    if order is None:
        return
    try:
        claim(order.run_dir)
    except RunDirRefused as refusal:
        report(str(refusal))
        return
    try:
        detach(order.run_dir)
        follow_owner(ORDERS, lifeline=order.lifeline)
        Machine(order.run_dir, order.configuration, run_broker, run_zygote, report).run()
    finally:
        release(order.run_dir, everything=order.temporary)


if __name__ == "__main__":
    if sys.argv[1:] == ["machine"]:
        run_machine()
    else:
        main()
