"""Domain 0: the control domain, which hosts the consoles of all the others."""

from __future__ import annotations

from hvd.domains.guest import Guest


def main(guest: Guest) -> None:
    guest.serve_backends()
    guest.run_forever()
