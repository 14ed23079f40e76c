"""Owns what tests of networks run: a driver domain, a guest that asks everybody on its vifs, others that answer."""

STATION = '''
import sys
AUTO_READY = False
KIND = b"\\x88\\xb5"
BROADCAST = b"\\xff" * 6

def answer(vif):
    """Send whatever comes back to whoever sent it."""
    for packet in vif.receive_many():
        vif.send(packet[6:12] + vif.mac + packet[12:])

def main(guest):
    if guest.args[0] == "answers":
        for vif in [device for device in guest.devices()]:
            vif.on_receive = lambda vif=vif: answer(vif)
        guest.on_device(lambda vif, here: setattr(vif, "on_receive", (lambda: answer(vif)) if here else None))
        guest.ready()
        guest.run_forever()
    vifs = guest.devices()
    guest.on_device(lambda vif, here: vifs.append(vif) if here else vifs.remove(vif))
    guest.ready()
    number = 0
    while True:
        guest.sleep(0.005)
        for vif in list(vifs):
            number += 1
            mark = number.to_bytes(4, "big")
            vif.send((BROADCAST + vif.mac + KIND + mark).ljust(60, b"."))
            first = vif.receive(0.05)
            for back in [] if first is None else [first, *vif.receive_many()]:  # late ones too: none is left for later
                print("answered", vif.name, "by", back[6:12].hex(":"), "up" if vif.link_up else "down", flush=True)
'''
SWITCH = """
[[domain]]
name = "net"
kernel = "hvd:driver_domain"
driver_domain = true
restart_limit = 0
restart_delay_ms = 1
"""
"""In whose switch the networks are; it may die as often as anybody likes."""
