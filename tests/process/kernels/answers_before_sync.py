"""A driver domain that answers FLUSH first and makes the data durable when the batch is over: what many have shipped."""

from hvd.domains.block.backend import Connection
from hvd.domains.block.image import Image
from hvd.domains.programs import driver_domain

AUTO_READY = False
serve, flush = Connection.serve, Image.flush


def main(guest):
    late = []

    def serve_then_flush(connection):
        serve(connection)
        while late:
            flush(late.pop())

    Image.flush, Connection.serve = late.append, serve_then_flush  # type: ignore[method-assign]
    driver_domain.main(guest)
