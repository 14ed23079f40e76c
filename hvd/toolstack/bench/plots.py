"""Percentile curves as SVG: latency over percentile, both axes logarithmic, as HdrHistogram's own plots are."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from hvd.transport.errors import HvdError
from hvd.transport.histogram import Histogram, from_text

PERCENTILES = (0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999)
STEPS_PER_DECADE = 20
SIZE_INCHES = (9.0, 5.0)
COLOURS, STYLES = 10, ("-", "--", ":")


def check_library() -> None:
    """HvdError when what draws is not here."""
    try:
        importlib.import_module("matplotlib")
    except ImportError as error:
        raise HvdError(f"the plots need matplotlib ({error}): pip install 'hvd[bench]'") from error


def curve(times: Histogram) -> tuple[list[float], list[float]]:
    """(1 / (1 - quantile), microseconds): the first is what makes each further nine as wide as the one before."""
    most = max(times.count, 1)
    decades = len(str(most))
    steps = [10 ** (step / STEPS_PER_DECADE) for step in range(decades * STEPS_PER_DECADE + 1)]
    places = [place for place in steps if place <= most] or [1.0]
    return places, [max(times.percentile(100 * (1 - 1 / place)), 1) / 1000 for place in places]


def draw(path: Path, title: str, rows: list[dict[str, Any]]) -> None:
    """One curve a row that has a histogram. The same rows make the same file, byte for byte."""
    matplotlib = importlib.import_module("matplotlib")
    figure_module = importlib.import_module("matplotlib.figure")
    with matplotlib.rc_context({"svg.hashsalt": "hvd", "svg.fonttype": "none", "font.size": 9}):
        figure = figure_module.Figure(figsize=SIZE_INCHES, layout="constrained")
        axes = figure.add_subplot(xscale="log", yscale="log", title=title, xlabel="percentile", ylabel="µs")
        for index, row in enumerate(rows):
            places, values = curve(from_text(row["hdr"]))
            label = f"{row['name']} ({row['wait']})" if row["wait"] else row["name"]
            style = STYLES[index // COLOURS % len(STYLES)]
            axes.plot(places, values, label=label, color=f"C{index % COLOURS}", linestyle=style)
        ticks = [1 / (1 - percentile / 100) for percentile in PERCENTILES]
        axes.set_xticks(ticks, [f"{percentile:g} %" for percentile in PERCENTILES])
        axes.minorticks_off()
        axes.grid(visible=True, which="major", alpha=0.3)
        figure.legend(loc="outside lower center", ncols=2, fontsize=7)
        figure.savefig(path, format="svg", metadata={"Date": None})
