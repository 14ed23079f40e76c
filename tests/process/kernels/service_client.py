"""A client of the service `gate`: it notes in its home each that becomes active, as `domid/epoch`."""


def main(guest):
    service, seen = guest.service("gate"), []

    def note(active):
        seen.append(f"{active.domid}/{active.epoch}" if active is not None else "nobody")
        guest.runtime.store.write("data/seen", " ".join(seen))

    note(service.wait_served())
    service.on_change = note
    guest.run_forever()
