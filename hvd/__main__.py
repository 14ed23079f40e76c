"""The composition root: starts the command line, or the machine with its broker and zygote."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """The `hvd` command."""
    from hvd.toolstack.cli.app import run

    run()


def start_machine(run_dir: str, configuration: bytes, report_descriptor: int) -> None:
    """Be the machine until it is powered off. `report_descriptor` gets a line when the broker is up, and what goes wrong.

    Imports stand here, so that whoever only starts machines does not load what runs in them.
    """
    from hvd.broker.loop import run_broker
    from hvd.domains.zygote import run_zygote
    from hvd.machine.machine import Machine
    from hvd.machine.run_dir import claim, release

    def report(line: str) -> None:
        try:
            os.write(report_descriptor, f"{line}\n".encode())
        except OSError:
            return  # whoever started us has gone on

    claim(run_dir)
    try:
        Machine(run_dir, configuration, run_broker, run_zygote, report).run()
    finally:
        release(run_dir)


def machine_main() -> None:
    """`python -m hvd machine RUN_DIR FD`: the configuration comes on standard input."""
    run_dir, descriptor = sys.argv[2], int(sys.argv[3])
    start_machine(run_dir, sys.stdin.buffer.read(), descriptor)


if __name__ == "__main__":
    if sys.argv[1:2] == ["machine"]:
        machine_main()
    else:
        main()
