"""Sends messages in parts that do not end: as long as another process is the domain, or as the domain itself."""

import threading
import time

import zmq

from hvd.domains.hostile.messages import certificate

PART, PARTS, BETWEEN_S = b"x" * 66_000, 12_000, 1.5
AUTO_READY = False


def send_without_end(key):
    while True:
        endless: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        endless.linger = endless.sndhwm = 0
        endless.curve_serverkey = key
        endless.curve_publickey, endless.curve_secretkey = zmq.curve_keypair()
        endless.connect("ipc:///run/hvd/hypercall")
        for _ in range(PARTS):
            endless.send(PART, zmq.SNDMORE, copy=False)
        endless.send(b"the last")
        time.sleep(BETWEEN_S)
        endless.close(0)


def main(guest):
    if guest.runtime.stands_by or "as-the-domain" in guest.args:
        threading.Thread(target=send_without_end, args=(certificate()["server_key"],), daemon=True).start()
    guest.ready()
    guest.run_forever()
