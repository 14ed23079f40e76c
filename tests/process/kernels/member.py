"""A member of the service `gate`: while it is active it counts, in the data that is the active one's alone.

It counts on from what its predecessors wrote, and writes its epoch beside each number. `data/hang` in its home: it
hangs with a watchdog of a second running. `data/late`: one that stands by tries to write what it once wrote itself.
"""

import time

from hvd.transport.hypercalls import HypercallError


def main(guest):
    service, store = guest.service("gate"), guest.runtime.store
    store.watch("data/late", lambda _: write_late(guest, service))
    epoch = service.wait_active()
    service.write(f"by/{guest.domid}", epoch)
    while True:
        count = int(service.read("count") or 0)
        service.write("count", count + 1)
        service.write("epoch", epoch)
        if store.read("data/hang") is not None:
            guest.runtime.watchdog(1)
            while True:
                time.sleep(1)
        guest.sleep(0.002)


def write_late(guest, service):
    if guest.runtime.store.read("data/late") is None:
        return
    try:
        guest.runtime.store.write(f"{service.path}/data/by/{guest.domid}", "late")
        outcome = "written"
    except HypercallError as error:
        outcome = str(error.errno)
    guest.runtime.store.write("data/outcome", outcome)
