"""Domain 0: the control domain, which hosts the consoles of all the others."""

from __future__ import annotations

import resource

from hvd.domains.console.daemon import ConsoleDaemon
from hvd.domains.guest import Guest

AUTO_READY = False


def main(guest: Guest) -> None:
    """Ready when consoles are served, so that nobody prints into the void."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each console takes four descriptors
    consoles = ConsoleDaemon(guest.runtime, guest.console, guest.log)
    guest.serve_backends()
    guest.ready()
    while True:
        guest.wait(consoles.patience_s())
        consoles.catch_up()
