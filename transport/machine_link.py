"""What machine, broker and zygote say to each other: msgpack lists over seqpacket sockets, both ends trusted.

broker -> machine   [hold, key] + descriptors   keep these under key, in place of what key named
                    [drop, key]
                    [spawn, domid, incarnation, name] + (upcall socket, stdio)
                    [signal, domid, incarnation, number]
                    [up]                        tables are recovered, endpoints are bound
                    [stop, reboot]
machine -> broker   [started, domid, incarnation, pid]
                    [died, domid, incarnation, how]
machine -> zygote   [spawn, domid, incarnation, name] + (upcall socket, stdio)
zygote -> machine   [spawned, domid, incarnation, pid], pid 0 with a reason in its place when it could not
"""

from __future__ import annotations

import socket
from dataclasses import dataclass

HOLD, DROP, SPAWN, SIGNAL, UP, STOP = "hold", "drop", "spawn", "signal", "up", "stop"
STARTED, DIED, SPAWNED = "started", "died", "spawned"


@dataclass(frozen=True, slots=True)
class Inheritance:
    """What a broker finds when the machine has forked it."""

    link: socket.socket
    run_dir: str
    configuration: bytes
    """The machine's cluster: a msgpack list of domain configs, dom0's first."""
    held: dict[str, list[int]]
    alive: list[tuple[int, int, int]]
    """(domid, incarnation, pid) of the domains' processes."""
    ended: dict[tuple[int, int], str]
    """How the last process of each domid ended, by (domid, incarnation)."""
    machine_pid: int
    brokers_before: int = 0
    predecessor_end: str = ""
    """How the broker before this one ended."""
