"""A guest that measures the ring between two domains, and in turns with it the floor it is held against.

Arguments `out=FILE` (a JSON object is written there at the end), `hot=N` and `asleep=N` round trips, `think_us=N`
between sleeping ones, `peer_cpu=N` for the floor's answering process. Each figure is a list of round trips in
nanoseconds.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from hvd.domains.echo.frontend import EchoFrontend
from hvd.domains.guest import Guest
from hvd.transport._native import eventfd_ping_pong

MESSAGE = bytes(range(64))
WARM_UP = 2000
TURN = 100
"""Sleeping round trips of one kind before the other kind's turn: what disturbs the machine disturbs both."""


def hot(echo: EchoFrontend, rounds: int) -> list[int]:
    """Both ends polled: one request after the other."""
    clock, call = time.perf_counter_ns, echo.call
    for _ in range(WARM_UP):
        call(MESSAGE)
    times = []
    for _ in range(rounds):
        start = clock()
        call(MESSAGE)
        times.append(clock() - start)
    return times


def asleep(echo: EchoFrontend, rounds: int, think_s: float) -> list[int]:
    """Both ends asleep before each request."""
    times = []
    for _ in range(rounds):
        time.sleep(think_s)
        start = time.perf_counter_ns()
        echo.call(MESSAGE)
        times.append(time.perf_counter_ns() - start)
    return times


def main(guest: Guest) -> None:
    options = dict(argument.split("=", 1) for argument in guest.args)
    echo: EchoFrontend = guest.device("echo")
    think_us, rounds = int(options.get("think_us", "1000")), int(options.get("asleep", "1000"))
    figures: dict[str, list[int]] = {
        "hot_ns": hot(echo, int(options.get("hot", "100000"))),
        "asleep_ns": [],
        "eventfd_ns": [],
    }
    for _ in range(0, rounds, TURN):
        figures["asleep_ns"] += asleep(echo, TURN, think_us / 1e6)
        figures["eventfd_ns"] += eventfd_ping_pong(TURN, think_us * 1000, int(options.get("peer_cpu", "-1")))
    out = Path(options["out"])
    out.with_suffix(".tmp").write_text(json.dumps(figures))
    out.with_suffix(".tmp").rename(out)
