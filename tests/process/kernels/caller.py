"""A guest that makes hypercalls without pause, some of which would leave a trace if they were carried out twice."""

import os

from hvd.transport import messages as m
from hvd.transport.ids import DOM0

PAUSE_S = 0.02
COUNT, COPY = "data/count", "data/copy"


def main(guest):
    store, call, count = guest.runtime.store, guest.runtime.hypercalls.call, 0
    while True:
        count += 1

        def both(tx, number=count):
            store.write(COUNT, number, tx)
            store.write(COPY, number, tx)

        store.transaction(both)
        extent, (descriptor,) = call(m.GnttabAllocate(DOM0, 1))
        os.close(descriptor)
        call(m.GnttabFree(extent))
        found = store.read_number(COUNT), store.read_number(COPY)
        assert found == (count, count), f"{found} after {count} transactions"
        guest.runtime.wait(PAUSE_S)
