"""`hvd top`: who uses what, again and again; on the screen, or as text, CSV and JSON for programs."""

from __future__ import annotations

import csv
import io
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from hvd.toolstack.cli.output import print_json, print_line, print_table
from hvd.toolstack.cluster import BadInput, Cluster, MissingPackage
from hvd.toolstack.monitor.rates import Rates
from hvd.toolstack.monitor.watcher import Watcher

DOMAIN_HEADS = ("Name", "ID", "State", "CPU%", "CPU(s)", "Mem(k)", "Used(k)", "VCPUs", "Restarts")
DEVICE_HEADS = ("Device", "Domain", "Backend", "Requests/s", "In flight", "Slots", "p50 µs", "p99 µs")
CHANNEL_HEADS = ("Channel", "Sent/s", "Received/s")
CSV_HEADS = ("time", "kind", "name", "measure", "value")
IN_THE_NAME = frozenset({"name", "domain", "device"})
"""What a line's name says already."""


def top(*, batch: bool, iterations: int | None, delay_s: float, as_csv: bool, as_json: bool) -> None:
    """On the screen unless it is for a program; so many looks, or until somebody ends it. BadInput: no screen."""
    if not (batch or as_csv or as_json):
        _on_the_screen(iterations, delay_s)
        return
    with Cluster.attach() as cluster:
        watcher = Watcher(cluster)
        if as_csv:
            print_line(",".join(CSV_HEADS))
        for number in _count(iterations):
            seen = watcher.look(delay_s)
            if as_json:
                print_json({"time": round(time.time(), 3), **seen.as_dict()})
            elif as_csv:
                print_line(_csv(seen, time.time()))
            else:
                if number:
                    print_line("")
                print_text(seen)


def _count(iterations: int | None) -> Iterator[int]:
    number = 0
    while iterations is None or number < iterations:
        yield number
        number += 1


def _on_the_screen(iterations: int | None, delay_s: float) -> None:
    if not all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        raise BadInput("the screen of `hvd top` needs a terminal: use `hvd top -b`, which prints")
    try:
        from hvd.toolstack.cli.top_screen import TopScreen
    except ImportError as error:
        install = "install it with `pip install hvd[tui]`, or use `hvd top --batch`"
        raise MissingPackage(f"the screen of `hvd top` needs the package {error.name}: {install}") from None
    with Cluster.attach() as cluster:
        TopScreen(cluster, delay_s, iterations).run()


def domain_rows(seen: Rates) -> list[tuple[str, ...]]:
    """One for each domain, under DOMAIN_HEADS."""
    return [
        (d.name, str(d.domid), d.state, f"{d.cpu_percent:.1f}", f"{d.cpu_seconds:.1f}", str(d.memory_kib),
         str(d.resident_kib), str(d.vcpus), str(d.restarts))
        for d in seen.domains
    ]  # fmt: skip


def device_rows(seen: Rates) -> list[tuple[str, ...]]:
    """One for each device, under DEVICE_HEADS."""
    return [
        (d.device, d.domain, d.backend, number(d.requests_per_s), number(d.in_flight), number(d.slots),
         number(d.p50_us), number(d.p99_us))
        for d in seen.devices
    ]  # fmt: skip


def channel_rows(seen: Rates, *, quiet_too: bool = False) -> list[tuple[str, ...]]:
    """One for each channel, under CHANNEL_HEADS; of those on which something was rung, or of all."""
    return [
        (f"{c.domain}:{c.port} ↔ {c.peer}:{c.peer_port}", number(c.sent_per_s), number(c.received_per_s))
        for c in seen.channels
        if quiet_too or c.sent_per_s or c.received_per_s
    ]


def print_text(seen: Rates) -> None:
    """Three tables."""
    print_table(DOMAIN_HEADS, right(domain_rows(seen), DOMAIN_HEADS, 3))
    for heads, rows, first in ((DEVICE_HEADS, device_rows(seen), 3), (CHANNEL_HEADS, channel_rows(seen), 1)):
        if rows:
            print_line("")
            print_table(heads, right(rows, heads, first))


def right(rows: Sequence[tuple[str, ...]], heads: tuple[str, ...], first: int) -> list[tuple[str, ...]]:
    """Numbers, from this column on, at the right."""
    widths = [max(len(cell) for cell in column) for column in zip(heads, *rows, strict=True)]
    return [(*row[:first], *(cell.rjust(widths[at]) for at, cell in enumerate(row) if at >= first)) for row in rows]


def number(value: float | None) -> str:
    """As short as it may be; "-" of what is not known."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if isinstance(value, int) or value >= 100 else f"{value:.1f}"


def _csv(seen: Rates, now: float) -> str:
    """A line for each thing that is known: time, kind, name, measure, value."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for kind, named in (("domain", seen.domains), ("device", seen.devices), ("channel", seen.channels)):
        for one in named:
            for measure, value in asdict(one).items():
                if value is not None and measure not in IN_THE_NAME:
                    writer.writerow((f"{now:.3f}", kind, _name(kind, one), measure, value))
    return text.getvalue().rstrip("\n")


def _name(kind: str, one: Any) -> str:
    match kind:
        case "domain":
            return str(one.name)
        case "device":
            return f"{one.domain}/{one.device}"
        case _:
            return f"{one.domain}:{one.port}"
