"""A driver domain whose first incarnation abuses the ring as its argument says; later ones are honest.

Of one that dies the second incarnation takes the device away before it has had it.
"""

from __future__ import annotations

import os
import signal
import struct
import time
from collections.abc import Callable
from typing import Any

from hvd.domains.block import backend
from hvd.domains.guest import Guest
from hvd.domains.programs import driver_domain
from hvd.transport.errors import PeerFault
from hvd.transport.protocols.block import REQUEST_SIZE

AUTO_READY = False
LATE, LATE_S = b"L", 6.0
features = backend.BlockBackend.features
first: list[int] = []


def notify(connection: Any) -> None:
    connection._attached.ports[0][1].notify()


def answer_all(connection: Any, id_of: Callable[[int], int]) -> None:
    """Answer every request in the ring under another id, with nothing done."""
    slots = connection._ring.pop_many()
    for at in range(0, len(slots), REQUEST_SIZE):
        (request_id,) = struct.unpack_from("<Q", slots, at + 8)
        first.append(request_id)
        if connection._ring.push(struct.pack("<QBxhxxxx", id_of(request_id), slots[at], 0)):
            notify(connection)


def invented(connection: Any) -> None:
    answer_all(connection, lambda request_id: request_id + 1000)


def repeated(connection: Any) -> None:
    """Every answer carries the first request's id."""
    answer_all(connection, lambda request_id: first[0])


def jumping(connection: Any) -> None:
    if not connection._ring.pop_many():  # the frontend is not connected before it has sent something
        return
    connection._pages.view[8:12] = (5000).to_bytes(4, "little")
    notify(connection)
    while True:
        signal.pause()


def storming(connection: Any) -> None:
    """XSA-391: events without an answer to any request, for as long as there is a guest to have them."""
    if connection._ring.pop_many():
        while True:
            notify(connection)


def late(connection: Any) -> None:
    """Leave a child behind that goes on writing to the disk, and die of the first request."""
    if not connection._ring.pop_many():
        return
    until = time.monotonic() + LATE_S
    if os.fork() == 0:
        while time.monotonic() < until:
            os.pwrite(connection._image.descriptor, LATE * 512, 0)
        os._exit(0)
    os._exit(1)


def dying(connection: Any) -> None:
    """Die of the first request."""
    if connection._ring.pop_many():
        os._exit(1)


def refuse(connection: Any, untrusted_keys: Any) -> None:
    """XSA-465: the device is closed, and has never been connected to us."""
    raise PeerFault("it is taken away")


def many_sectors(device: Any) -> dict[str, Any]:
    return features(device) | {"sectors": "many"}


def main(guest: Guest) -> None:
    if guest.incarnation == 2 and guest.args[0] == "dying":
        backend.Connection.open = refuse  # type: ignore[method-assign,assignment]
    if guest.incarnation == 1:
        if guest.args[0] == "many_sectors":
            backend.BlockBackend.features = many_sectors  # type: ignore[method-assign,assignment]
        else:
            backend.Connection.serve = globals()[guest.args[0]]  # type: ignore[method-assign]
    driver_domain.main(guest)
