"""What a measured domain does alone or with others than its peer: hypercalls, calls of a ring device, known work."""

from __future__ import annotations

import time
from typing import Any, ClassVar

from hvd.domains.guest import Guest
from hvd.transport import messages as m
from hvd.transport._native import Instructions, Walk, compute
from hvd.transport.histogram import Histogram, to_text

WARM_UP_NS = 20_000_000
MESSAGE = bytes(range(64))


class Hypercalls:
    """Round trips to the broker."""

    ORDERS: ClassVar[tuple[str, ...]] = ("hypercall",)

    def __init__(self, guest: Guest) -> None:
        self._runtime = guest.runtime

    def hypercall(self, for_ns: int) -> dict[str, Any]:
        """The hypercall that asks for least."""
        times, call, message = Histogram(), self._runtime.hypercalls.call, m.XenVersion()
        times.time_calls(lambda: call(message), for_ns)
        return {"times": to_text(times)}


class RingDevice:
    """Round trips through the domain's echo device, as a guest makes them."""

    ORDERS: ClassVar[tuple[str, ...]] = ("echo",)

    def __init__(self, guest: Guest) -> None:
        self._guest = guest

    def echo(self, for_ns: int, think_ns: int = 0, spin_ns: int = -1) -> dict[str, Any]:
        """`spin_ns` 0: it never polls for its answer; -1: as domains do by themselves."""
        times, call = Histogram(), self._guest.device("echo").call
        if not think_ns:
            times.time_calls(lambda: call(MESSAGE), WARM_UP_NS)
            times.reset()
        self._guest.runtime.waiter.spin_ns = spin_ns
        times.time_calls(lambda: call(MESSAGE), for_ns, think_ns)
        self._guest.runtime.waiter.spin_ns = -1
        return {"times": to_text(times)}


class Disk:
    """Reads of the domain's disk."""

    ORDERS: ClassVar[tuple[str, ...]] = ("read_disk",)

    def __init__(self, guest: Guest) -> None:
        self._guest = guest

    def read_disk(self, for_ns: int, sectors: int, think_ns: int = 0) -> dict[str, Any]:
        """One at a time, from its beginning."""
        times, read = Histogram(), self._guest.disk().read
        times.time_calls(lambda: read(0, sectors), for_ns, think_ns)
        return {"times": to_text(times)}


class Work:
    """Computing and walking through memory; the toolstack does the same outside."""

    ORDERS: ClassVar[tuple[str, ...]] = ("work",)

    def __init__(self) -> None:
        self._walks: dict[int, Walk] = {}

    def work(self, kind: str, steps: int, lines: int = 0) -> dict[str, Any]:
        """The CPU time it took this thread, and its instructions where the machine counts them."""
        if kind == "walk" and lines not in self._walks:
            self._walks[lines] = Walk(lines)
        instructions = Instructions()
        counted, start_ns = instructions.read(), time.thread_time_ns()
        if kind == "walk":
            self._walks[lines].walk(steps)
        else:
            compute(steps)
        cpu_ns, after = time.thread_time_ns() - start_ns, instructions.read()
        return {"cpu_ns": cpu_ns, "instructions": after - counted if counted >= 0 else None}
