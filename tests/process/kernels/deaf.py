"""A guest that takes the signal over by which faults reach a process."""

import signal

from hvd.transport.faults import ORDER_SIGNAL


def main(guest):
    signal.signal(ORDER_SIGNAL, signal.SIG_IGN)
    guest.run_forever()
