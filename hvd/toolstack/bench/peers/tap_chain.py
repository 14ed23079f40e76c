"""A process with two TAP devices in its network namespace, between which bare C carries packets until it is killed.

    python -m hvd.toolstack.bench.peers.tap_chain NAME NAME CPU CPU

It says "made" when the devices are there: then they may be moved elsewhere.
"""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import sys

from hvd.transport._native import TapChain

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000


def main(first: str, second: str, first_cpu: str, second_cpu: str) -> None:
    """OSError where there are no TAP devices for us."""
    chain = TapChain(_tap(first), _tap(second), int(first_cpu), int(second_cpu))
    print("made", flush=True)
    signal.pause()
    chain.close()


def _tap(name: str) -> int:
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return descriptor


if __name__ == "__main__":
    main(*sys.argv[1:])
