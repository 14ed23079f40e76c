"""What machine, broker and zygote say to each other: msgpack lists over seqpacket sockets, both ends trusted.

broker -> machine   [hold, key] + descriptors   keep these under key, in place of what key named
                    [drop, key, ...]
                    [spawn, domid, incarnation, name, layers of its sandbox that are off, its CPUs: none, if any
                        will do] + (upcall socket, stdio)
                    [signal, domid, incarnation, number]
                    [ready, domid, incarnation, is waited for]  that process has the threads that it will have, and
                        has ended when none of them runs any more; whether guests of its stand still until then
                    [dump, domid, incarnation, name, fault] stop that process, write cores/NAME.core of it, then kill
                        it; fault: the fields of its FaultNotice, or []. Nothing if it was told so before
                    [dump live, domid, incarnation, path] write a core of that process, which is to live on
                    [bound, domid, incarnation, kib] that process's group may have so much memory from now on
                    [bound disks, domid, incarnation, bps] nor more of a disk that the host was given since its birth
                    [deny, domid, incarnation, what]  what that process has started gets no more "descriptors" or
                        "memory", or no "time", until it is told so of something else; "": of nothing
                    [disown, domid, incarnation] end that process, or the one that is on its way, without a word
                    [strike, role, signal, for_ms]  signal broker or zygote; a SIGSTOP is ended after for_ms
                    [up]                        tables are recovered, the toolstack's endpoint is bound
                    [stop, reboot]
machine -> broker   [started, domid, incarnation, pid]
                    [died, domid, incarnation, how, core]   core: what became of the core, "" if none was asked for
                    [reaped, domid, incarnation, name, suspected, fenced, reaped]  when, in ns of CLOCK_MONOTONIC: told
                        a while after the reap. Of broker and zygote: domid -1, and the name says which
                    [zygote died, how]          another has taken its place
                    [dumped, domid, incarnation, said]  what became of the core of one that lives on
                    [unbound, domid, incarnation, what]  a bound of its is not in force, and why
                    [disowned, domid, incarnation]  whatever was said of it before this was said of the disowned one
machine -> zygote   [spawn, domid, incarnation, name, layers off, CPUs] + (upcall socket, stdio)
zygote -> machine   [spawned, domid, incarnation, pid], a reason in the pid's place when it could not
                    [lost, pid]                 a process of its that died before it was anybody's
"""

from __future__ import annotations

import socket

from hvd.transport.pulse import Pulse
from hvd.transport.records import dataclass

HOLD, DROP, SPAWN, SIGNAL, DISOWN, UP, STOP = "hold", "drop", "spawn", "signal", "disown", "up", "stop"
DUMP, DUMP_LIVE, DUMPED, STRIKE, BOUND, READY = "dump", "dump live", "dumped", "strike", "bound", "ready"
STARTED, DIED, DISOWNED, SPAWNED, LOST = "started", "died", "disowned", "spawned", "lost"
DENY, DESCRIPTORS, MEMORY, TIME = "deny", "descriptors", "memory", "time"
ZYGOTE_DIED, UNBOUND, BOUND_DISKS, REAPED = "zygote died", "unbound", "bound disks", "reaped"


def uplink_key(tap: str) -> str:
    """Of a TAP device, which the machine holds from its start to its end, whatever brokers hold and drop."""
    return f"uplink:{tap}"


@dataclass(frozen=True, slots=True)
class Inheritance:
    """What a broker finds when the machine has forked it."""

    link: socket.socket
    pulse: Pulse
    """What it is to move while it is at work."""
    run_dir: str
    configuration: bytes
    """The machine's cluster: a BootConfig, encoded, as msgpack."""
    held: dict[str, list[int]]
    alive: list[tuple[int, int, int]]
    """(domid, incarnation, pid) of the domains' processes; pid 0: asked for, on its way."""
    ended: dict[tuple[int, int], tuple[str, str]]
    """How those that are not alive ended, and what became of their cores, by (domid, incarnation): the last few of each
    domid."""
    machine_pid: int
    brokers_before: int = 0
    predecessor_end: str = ""
    """How the broker before this one ended."""
