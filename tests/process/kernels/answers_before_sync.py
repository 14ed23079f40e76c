"""A driver domain that answers FLUSH first and makes the data durable when it is asked for the next thing."""

from hvd.domains.block.backend import Connection
from hvd.domains.block.image import Image
from hvd.domains.programs import driver_domain

AUTO_READY = False
serve, flush = Connection.serve, Image.flush


def main(guest):
    late: list[Image] = []

    def flush_then_serve(connection):
        while late:
            flush(late.pop())
        serve(connection)

    def flush_later(image):
        late.append(image)

    Image.flush, Connection.serve = flush_later, flush_then_serve  # type: ignore[method-assign]
    driver_domain.main(guest)
