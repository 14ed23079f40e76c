"""Says which gate is open, whenever that is another."""


def main(guest):
    service = guest.service("gate")
    service.on_change = tell
    tell(service.wait_served())
    guest.run_forever()


def tell(active):
    print(f"go to {active.name} (epoch {active.epoch})" if active is not None else "no gate is open")
