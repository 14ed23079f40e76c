"""A guest that asks for memory without pause, and says when it is refused some and when it gets it again."""

import time

AUTO_READY = False
BYTES, PAUSE_S = 32 << 20, 0.005


def main(guest):
    guest.ready()
    was_refused = refused = False
    while True:
        try:
            bytearray(BYTES)
        except MemoryError:
            refused = True
        else:
            refused = False
        if refused != was_refused:
            print("it is refused" if refused else "it is not refused")
        was_refused = refused
        time.sleep(PAUSE_S)
