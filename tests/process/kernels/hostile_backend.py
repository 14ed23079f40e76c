"""A driver domain whose first incarnation abuses the ring as its argument says; later ones are honest."""

import signal
from typing import Any

from hvd.domains.block import backend
from hvd.domains.programs import driver_domain

AUTO_READY = False
answer, features = backend.Connection._answer, backend.BlockBackend.features
first: list[Any] = []


def invented(connection, request):
    return answer(connection, (request[0] + 1000, *request[1:]))


def repeated(connection, request):
    """Every answer carries the first request's id."""
    first.append(request)
    return answer(connection, (first[0][0], *request[1:]))


def jumping(connection, request):
    connection._ring_pages.view[8:12] = (5000).to_bytes(4, "little")
    connection._endpoint.notify()
    while True:
        signal.pause()


def many_sectors(device):
    return features(device) | {"sectors": "many"}


def main(guest):
    if guest.incarnation == 1:
        if guest.args[0] == "many_sectors":
            backend.BlockBackend.features = many_sectors  # type: ignore[method-assign]
        else:
            backend.Connection._answer = globals()[guest.args[0]]  # type: ignore[method-assign]
    driver_domain.main(guest)
