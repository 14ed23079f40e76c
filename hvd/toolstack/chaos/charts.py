"""The pictures of a report: one run's faults on a line of time, and latencies behind them, as SVG."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from hvd.toolstack.chaos.outcome import BUCKET_MS

WIDTH, LEFT, RIGHT = 960, 110, 10
LANE, CHART = 18, 150
COLOURS = ("#1b6ca8", "#c05621", "#2f855a", "#805ad5", "#b7791f", "#2c7a7b", "#97266d", "#4a5568")
LEAST_MS, MOST_MS = 0.01, 10_000.0
"""The scale of latencies is logarithmic, and ends here."""


def chart(run: Mapping[str, Any]) -> str:
    """One run: a lane a victim, each fault from its injection until everybody went on, and every workload's p99."""
    faults = [fault for fault in run["faults"] if fault["injected"]]
    lanes = sorted({victim for fault in faults for victim in fault["victims"]} or {"-"})
    answers = [row[0] for rows in run["latencies"].values() for row in rows]
    end_ms = max([run["ended_ms"], *(_end(fault, run) for fault in faults), *answers, 1.0])
    scale = (WIDTH - LEFT - RIGHT) / end_ms
    top = LANE * (len(lanes) + 1)
    height = top + CHART + 24
    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="run {run["seed"]}">']
    for fault in faults:
        x, width = LEFT + fault["at_ms"] * scale, max(1.5, (_end(fault, run) - fault["at_ms"]) * scale)
        title = f"<title>{escape(_told(fault))}</title>"
        parts.append(f'<rect class="shade" x="{x:.1f}" y="{top}" width="{width:.1f}" height="{CHART}">{title}</rect>')
        for victim in fault["victims"]:
            y = LANE * (lanes.index(victim) + 0.5)
            kind = "bar" if fault["recovered"] else "bar lost"
            place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{LANE - 4}"'
            parts.append(f'<rect class="{kind}" {place}>{title}</rect>')
    parts += [_text(LEFT - 6, LANE * (lane + 1.2), name, "end") for lane, name in enumerate(lanes)]
    parts += _axes(top, scale, end_ms)
    for number, (name, rows) in enumerate(run["latencies"].items()):
        colour = COLOURS[number % len(COLOURS)]
        title = f"<title>{escape(name)}: p99</title>"
        for stretch in _without_silences(rows):
            points = [f"{LEFT + at * scale:.1f},{top + _y(p99):.1f}" for at, _, p99, _ in stretch]
            both_ends = " ".join(points if len(points) > 1 else points * 2)
            parts.append(f'<polyline class="line" stroke="{colour}" points="{both_ends}">{title}</polyline>')
        parts.append(f'<text x="{LEFT + 8 + 110 * number}" y="{height - 4}" fill="{colour}">{escape(name)} p99</text>')
    return "".join([*parts, "</svg>"])


def _end(fault: Mapping[str, Any], run: Mapping[str, Any]) -> float:
    """What was not recovered from lasted until the run ended."""
    return float(run["ended_ms"] if fault["recovered_ms"] is None else fault["at_ms"] + fault["recovered_ms"])


def _without_silences(rows: Sequence[Sequence[float]]) -> Iterator[list[Sequence[float]]]:
    """Where nothing was answered there is no latency, and no line."""
    stretch: list[Sequence[float]] = []
    for row in rows:
        if stretch and row[0] > stretch[-1][0] + BUCKET_MS:
            yield stretch
            stretch = []
        stretch.append(row)
    if stretch:
        yield stretch


def _told(fault: Mapping[str, Any]) -> str:
    fate = f"recovered after {fault['recovered_ms']} ms" if fault["recovered"] else "NOT RECOVERED"
    return f"{fault['fault']} {' '.join(fault['victims'])} at {fault['at_ms']:.0f} ms: {fate}; {fault['evidence']}"


def _y(latency_ms: float) -> float:
    bounded = min(max(latency_ms, LEAST_MS), MOST_MS)
    return CHART * (1 - math.log10(bounded / LEAST_MS) / math.log10(MOST_MS / LEAST_MS))


def _axes(top: int, scale: float, end_ms: float) -> list[str]:
    parts = []
    decade = LEAST_MS
    while decade <= MOST_MS:
        y = top + _y(decade)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(LEFT - 6, y + 4, f"{decade:g} ms", "end"))
        decade *= 10
    step = 10 ** math.floor(math.log10(max(end_ms, 10)))
    for tick in range(0, int(end_ms) + 1, max(1, int(step))):
        parts.append(_text(LEFT + tick * scale, top - 2, f"{tick / 1000:g} s", "middle"))
    return parts


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
