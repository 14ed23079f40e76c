"""A driver domain that is gone between its I/O and the answer: one time in so many, it ends after the transfer.

It exits without a word: a SIGKILL from inside is nothing to the first process of a PID namespace.
"""

import os
import random

from hvd.domains.block.backend import MAPPINGS_MAX, Connection
from hvd.domains.peer_runs import PeerRuns
from hvd.domains.programs import driver_domain
from hvd.transport._native import BlkBack
from hvd.transport.protocols.block import INDIRECT_SEGMENTS_MAX, REQUEST_SIZE, RESPONSE_SIZE
from hvd.transport.rings import BackRing, FrontRing

AUTO_READY = False
connect, serve = Connection.open, Connection.serve


def main(guest):
    odds = int(guest.args[0])
    source = random.Random(guest.incarnation)

    def open_privately(connection, untrusted_keys):
        """The backend proper works on a ring of our own, whose answers nobody sees until we pass them on."""
        connect(connection, untrusted_keys)
        memory = bytearray(4096)
        connection.private = FrontRing(memory, REQUEST_SIZE, RESPONSE_SIZE)
        connection.private.init()
        connection._back = BlkBack(
            BackRing(memory, REQUEST_SIZE, RESPONSE_SIZE), connection._attached.ports[0][1],
            connection._image.descriptor, connection._image.sectors, False, INDIRECT_SEGMENTS_MAX,
            connection._persistent,
        )  # fmt: skip
        grants, frontend = connection._runtime.grants, connection._frontend
        connection._runs = PeerRuns(grants, frontend, MAPPINGS_MAX, connection._back.add)

    def serve_and_perhaps_die(connection):
        slot = connection._ring.pop()
        if slot is None:
            return
        connection.private.push(slot)
        serve(connection)
        if source.randrange(odds) == 0:
            os._exit(1)
        if connection._ring.push(connection.private.pop()):
            connection._attached.ports[0][1].notify()

    Connection.open, Connection.serve = open_privately, serve_and_perhaps_die  # type: ignore[method-assign]
    driver_domain.main(guest)
