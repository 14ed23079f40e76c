"""Hands out tickets, as the one gate that is active: each number once, whoever of the gates is killed."""


def main(guest):
    service = guest.service("gate")
    print(f"{guest.name} stands by")
    epoch = service.wait_active()
    print(f"{guest.name} is active, epoch {epoch}")
    while True:
        ticket = int(service.read("ticket") or 0) + 1
        service.write("ticket", ticket)
        guest.sleep(0.1)
