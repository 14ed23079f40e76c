"""A driver domain: serves the backends that the toolstack gives it, and nothing else."""

from __future__ import annotations

from hvd.domains.guest import Guest

AUTO_READY = False


def main(guest: Guest) -> None:
    guest.serve_backends()
    guest.ready()
    guest.run_forever()
