"""Domains that are given orders: what the toolstack says to `hvd:measured`, and what it hears."""

from __future__ import annotations

import json
import time
from typing import Any

from hvd.toolstack.cluster import Cluster
from hvd.transport import messages as m
from hvd.transport.errors import HvdError
from hvd.transport.histogram import Histogram, from_text
from hvd.transport.hypercalls import HypercallError
from hvd.transport.messages import DeviceConfig, DomainConfig

DEADLINE_S = 60.0
LOOK_EVERY_S = 0.005
POLLED_NS = 30_000_000_000
"""Longer than any answer takes: a wait that polls for so long never sleeps."""
SPIN_NS = {"spin": POLLED_NS, "adaptive": -1, "sleep": 0}
"""The wait modes, as `Endpoint.wait` is told them."""
TRACED = ["opaque"]
"""Layers that a domain whose memory or system calls are counted does without; it costs nothing that is measured."""


class MeasuredDomain:
    """One domain that carries out one order at a time."""

    def __init__(
        self,
        cluster: Cluster,
        name: str,
        cpu: int,
        devices: tuple[DeviceConfig, ...] = (),
        off: tuple[str, ...] = (),
    ) -> None:
        """On one CPU, ready; without the layers that are `off` its sandbox."""
        config = DomainConfig(name, "hvd:measured", cpus=[cpu], on_crash="preserve", devices=list(devices),
                              sandbox_off=[*TRACED, *off])  # fmt: skip
        self._cluster, self.domain, self._number = cluster, cluster.create(config), 0
        self.domain.wait_ready(DEADLINE_S)

    @property
    def domid(self) -> int:
        return int(self.domain.domid)

    @property
    def pid(self) -> int:
        pid = self.domain.info().pid
        if pid is None:
            raise HvdError(f"{self.domain.name} is not running")
        return pid

    def order(self, do: str, **fields: Any) -> None:
        """It begins at once; `result` waits for its end."""
        self._number += 1
        value = json.dumps({"number": self._number, "do": do, **fields}).encode()
        self._cluster.call(m.StoreWrite(0, f"/local/domain/{self.domid}/data/order", value))

    def result(self, in_s: float = 0.0) -> dict[str, Any]:
        """What came of the last order. Nobody looks before `in_s` have passed: a look would disturb the measuring."""
        time.sleep(in_s)
        until = time.monotonic() + DEADLINE_S
        while (done := self._read("done").split())[:1] != [str(self._number)]:
            if time.monotonic() > until or not self.domain.info().ready:
                state = self.domain.info()
                raise HvdError(f"{self.domain.name} did not carry out an order: it is {state.state} {state.last_death}")
            time.sleep(LOOK_EVERY_S)
        result: dict[str, Any] = json.loads("".join(self._read(f"result-{index}") for index in range(int(done[1]))))
        return result

    def do(self, do: str, **fields: Any) -> dict[str, Any]:
        """An order, and its result."""
        self.order(do, **fields)
        return self.result(fields.get("for_ns", 0) / 1e9)

    def times(self, do: str, **fields: Any) -> Histogram:
        """An order whose result is a histogram."""
        return from_text(self.do(do, **fields)["times"])

    def _read(self, node: str) -> str:
        try:
            value: bytes = self._cluster.call(m.StoreRead(0, f"/local/domain/{self.domid}/data/{node}"))
        except HypercallError:
            return ""
        return value.decode()


class Pair:
    """Two measured domains with an event channel, a ring and pages between them."""

    def __init__(self, cluster: Cluster, name: str, here: int, there: int, off: tuple[str, ...] = ()) -> None:
        """`name` distinguishes the pairs of one cluster; `off`: without these layers of the sandbox."""
        self.answerer = MeasuredDomain(cluster, f"{name}-answerer", there, off=off)
        self.caller = MeasuredDomain(cluster, f"{name}-caller", here, off=off)
        offer = self.caller.do("offer", peer=self.answerer.domid)
        self.answerer.do("accept", caller=self.caller.domid, **offer)

    def call(self, for_ns: int, wait: str, *, think_ns: int = 0, computing: bool = False) -> Histogram:
        """Round trips of an event, both ends waiting in that mode."""
        return from_text(
            self.both("call", "answer", for_ns, {"think_ns": think_ns, "computing": computing}, SPIN_NS[wait])["times"]
        )

    def call_at_rate(self, for_ns: int, wait: str, interval_ns: int) -> tuple[Histogram, Histogram]:
        """Open loop: (from when each was due, from when it was sent)."""
        result = self.both("call_at_rate", "answer", for_ns, {"interval_ns": interval_ns}, SPIN_NS[wait])
        return from_text(result["times"]), from_text(result["sent"])

    def per_second(self, ask: str, serve: str, for_ns: int, depth: int) -> float:
        """Requests answered through the ring."""
        self.answerer.order(serve)
        result = self.caller.do(ask, for_ns=for_ns, depth=depth)
        self.answerer.result()
        return float(result["answered"] / result["took_ns"] * 1e9)

    def hand_over(self, for_ns: int, bytes_count: int, *, touching: bool) -> Histogram:
        """Pages there and back."""
        self.answerer.order("receive", bytes_count=bytes_count, touching=touching)
        times = self.caller.times("hand_over", for_ns=for_ns, bytes_count=bytes_count, touching=touching)
        self.answerer.result()
        return times

    def both(
        self, ask: str, answer: str, for_ns: int, fields: dict[str, Any], spin_ns: int = SPIN_NS["adaptive"]
    ) -> dict[str, Any]:
        """The answering end begins first and ends last: nobody's polling is left over for the next contender."""
        self.answerer.order(answer, spin_ns=spin_ns)
        result = self.caller.do(ask, for_ns=for_ns, spin_ns=spin_ns, **fields)
        self.answerer.result()
        return result

    def destroy(self) -> None:
        for end in (self.caller, self.answerer):
            end.domain.destroy()
