"""A domain that does nothing until it is told to stop."""

from __future__ import annotations

from hvd.domains.guest import Guest


def main(guest: Guest) -> None:
    guest.run_forever()
