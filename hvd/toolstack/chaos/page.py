"""report.html: a summary and some runs as one page that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from hvd.toolstack.chaos.charts import chart
from hvd.toolstack.chaos.stages import STAGES
from hvd.toolstack.chaos.summary import FATES

CHARTS_MAX = 4
"""Runs that are drawn: those that failed first, then the first ones."""
RANKS = ("p50", "p90", "p99", "max")
STYLE = """
body{font:15px/1.45 system-ui,sans-serif;max-width:62em;margin:2em auto;padding:0 1em;color:#1a202c}
table{border-collapse:collapse;margin:.6em 0 1.4em}
td,th{padding:.2em .7em;text-align:right;border-bottom:1px solid #e2e8f0}
td:first-child,th:first-child{text-align:left}.good{color:#276749}.bad{color:#9b2c2c}
svg{width:100%;font:11px sans-serif}
.bar{fill:#2f855a}.lost{fill:#c53030}.shade{fill:#cbd5e0;opacity:.5}.grid{stroke:#edf2f7}
.line{fill:none;stroke-width:1.5;stroke-linecap:round;stroke-linejoin:round}pre{white-space:pre-wrap}
"""


def page(told: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> str:
    """The whole document."""
    body = [
        f"<h1>{escape(told['plan'])}</h1>", _verdict(told), "<h2>Faults</h2>", _faults(told), "<h2>Victims</h2>",
        _table(("victim", *FATES), [(name, *(row[f] for f in FATES)) for name, row in told["victims"].items()]),
        "<h2>Recovery</h2><p>Milliseconds since the injection. <i>Detect</i>: the machine saw the first thread end. "
        "<i>Fence</i>: none of them runs any more, and a successor is started. <i>Reap</i>: the kernel has taken the "
        "process apart, which nobody waits for.</p>", _stages(told), "<h2>Operations</h2>",
        _operations(told), *_problems(told), "<h2>Runs</h2>",
        "<p>Each bar is a fault, from its injection until every domain was ready and every workload went on; the same "
        "times are shaded behind the latencies (p99 of each tenth of a second).</p>", *_runs(runs),
    ]  # fmt: skip
    head = f"<meta charset='utf-8'><title>{escape(told['plan'])}</title><style>{STYLE}</style>"
    return f"<!doctype html><html lang='en'><head>{head}</head><body>{''.join(body)}</body></html>\n"


def _verdict(told: Mapping[str, Any]) -> str:
    good = not told["problems"]
    totals = told["totals"]
    share = "-" if told["recovered_share"] is None else f"{told['recovered_share']:.4%}"
    bound = "" if told["bound_95"] is None else f" With 95 % confidence fewer than {told['bound_95']:.2%} are not."
    lines = [
        f"{told['healthy']} of {told['runs']} runs were as expected (seeds {escape(told['seeds'])},"
        f" {told['wall_s']:.0f} s of runs).",
        f"{totals['injected']} faults were injected, {totals['activated']} were seen to take effect by a witness,"
        f" {totals['recovered']} were recovered from ({share} of those seen).{bound}",
        *(f"{refusal['times']} of {name} were refused, the first with: {escape(refusal['first'])}"
          for name, refusal in told["refused"].items()),
        f"Broker crashes that nobody injected: {told['broker_crashes']}. Runs that leaked: {told['leaking_runs']}."
        f" New domains created meanwhile: {told['new_domains']}.",
    ]  # fmt: skip
    word = "healthy" if good else "NOT HEALTHY"
    paragraphs = "".join(f"<p>{line}</p>" for line in lines)
    return f"<p class='{'good' if good else 'bad'}'><b>{word}</b></p>{paragraphs}"


def _faults(told: Mapping[str, Any]) -> str:
    headings = ("fault", *FATES, *(f"recovered {rank}, ms" for rank in RANKS), "95 % bound")
    rows = [
        (name, *(row[fate] for fate in FATES), *(_number(row["recovered_ms"].get(rank)) for rank in RANKS),
         "-" if row["bound_95"] is None else f"{row['bound_95']:.3%}")
        for name, row in told["faults"].items()
    ]  # fmt: skip
    return _table(headings, rows)


def _stages(told: Mapping[str, Any]) -> str:
    found = told["stages_ms"]
    stages = [stage for stage in STAGES if stage in found]
    rows = [(stage, found[stage]["n"], *(_number(found[stage][rank]) for rank in RANKS)) for stage in stages]
    return _table(("stage", "n", *RANKS), rows)


def _operations(told: Mapping[str, Any]) -> str:
    operations, durability, bystanders = told["operations"], told["durability"], told["bystanders"]
    parts = [
        _table(("operations", ""), list(operations.items())),
        f"<p>Power cuts: {durability['images']} images rebuilt at {durability['prefixes']} moments,"
        f" {durability['flushes']} answered FLUSHes, {durability['lost']} sectors lost.</p>",
        f"<p>Bystanders: {bystanders['operations']} operations, {bystanders['failed']} failed;"
        f" p99 while there are faults over p99 before, by run: {escape(str(bystanders['p99_factor'] or '-'))}.</p>",
    ]
    return "".join(parts)


def _problems(told: Mapping[str, Any]) -> Iterable[str]:
    if told["problems"]:
        yield "<h2>What was not as expected</h2>"
    for row in told["problems"]:
        text = "\n".join((*row["problems"], *([f"logs and files: {row['kept']}"] if row["kept"] else [])))
        yield f"<pre class='bad'>seed {row['seed']}: {escape(text)}</pre>"


def _runs(runs: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    for run in sorted(runs, key=lambda run: (run["ok"], run["seed"]))[:CHARTS_MAX]:
        word = "as expected" if run["ok"] else "<span class='bad'>not as expected</span>"
        yield f"<h3>Seed {run['seed']}: {word}, {run['wall_s']:.1f} s</h3>{chart(run)}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    body = "".join(f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"
