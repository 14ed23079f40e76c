"""A guest that takes the signal over by which faults reach a process."""

import signal

from hvd.transport.faults import ORDER_SIGNAL

AUTO_READY = False


def main(guest):
    signal.signal(ORDER_SIGNAL, signal.SIG_IGN)
    guest.ready()
    guest.run_forever()
