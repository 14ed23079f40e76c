"""What many runs found together: counts by fault and victim, recoveries in stages, and the bound that n runs allow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hvd.toolstack.chaos.stages import STAGES
from hvd.toolstack.faults.killer import percentiles

BOUND_95 = 3
"""n trials without a failure bound its probability by 3/n, with 95 % confidence (the rule of three)."""
COUNTED = ("invoked", "ok", "failed", "unknown", "lost", "torn", "misplaced", "duplicated", "unexpected", "wrong")
FATES = ("injected", "activated", "detected", "recovered")
Row = Mapping[str, Any]
"""One run, as Outcome.as_dict makes it."""


def summary(plan: str, runs: Sequence[Row]) -> dict[str, Any]:
    """All figures of a report; `runs` in any order, each seed once."""
    faults = [fault for run in runs for fault in run["faults"] if fault["injected"]]
    failed = [run for run in runs if not run["ok"]]
    return {
        "plan": plan,
        "runs": len(runs),
        "seeds": ranges(run["seed"] for run in runs),
        "wall_s": round(sum(run["wall_s"] for run in runs), 1),
        "healthy": len(runs) - len(failed),
        "totals": _fates(faults),
        "recovered_share": _share(faults),
        "bound_95": _bound(faults),
        "faults": {name: _group([f for f in faults if f["fault"] == name]) for name in _names(faults, "fault")},
        "refused": _refused(runs),
        "victims": _by_victim(faults),
        "stages_ms": _stages(faults),
        "recovered_ms": percentiles([f["recovered_ms"] for f in faults if f["recovered_ms"] is not None]),
        "operations": {key: sum(load[key] for run in runs for load in run["workloads"]) for key in COUNTED},
        "durability": _durability(runs),
        "new_domains": sum(run["new_domains"] for run in runs),
        "broker_crashes": sum(run["broker_crashes"] for run in runs),
        "leaking_runs": sum(bool(run["leaks"]) for run in runs),
        "bystanders": _bystanders(runs),
        "problems": [{"seed": run["seed"], "problems": run["problems"], "kept": run["kept"]} for run in failed],
    }


def ranges(seeds: Iterable[int]) -> str:
    """Numbers as people write them: 1-100, 107."""
    parts: list[list[int]] = []
    for seed in sorted(seeds):
        if parts and parts[-1][1] == seed - 1:
            parts[-1][1] = seed
        else:
            parts.append([seed, seed])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def _refused(runs: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """How often a fault was not injected at all, and what the first refusal said."""
    found: dict[str, dict[str, Any]] = {}
    for fault in (fault for run in runs for fault in run["faults"] if fault["refused"]):
        found.setdefault(fault["fault"], {"times": 0, "first": fault["refused"]})["times"] += 1
    return found


def _names(faults: Iterable[Row], key: str) -> list[str]:
    return sorted({fault[key] for fault in faults})


def _fates(faults: Sequence[Row]) -> dict[str, int]:
    return {fate: sum(bool(fault[fate]) for fault in faults) for fate in FATES}


def _share(faults: Sequence[Row]) -> float | None:
    """Of what counts: the faults that were seen to take effect, and whatever was not recovered from, seen or not."""
    counted = [fault for fault in faults if fault["activated"] or not fault["recovered"]]
    return round(sum(fault["recovered"] for fault in counted) / len(counted), 6) if counted else None


def _bound(faults: Sequence[Row]) -> float | None:
    """Of the probability that a fault is not recovered from; None when one was not. What nobody saw is no trial."""
    activated = sum(bool(fault["activated"]) for fault in faults)
    return BOUND_95 / activated if activated and all(fault["recovered"] for fault in faults) else None


def _group(faults: Sequence[Row]) -> dict[str, Any]:
    return {
        **_fates(faults), "bound_95": _bound(faults), "stages_ms": _stages(faults),
        "recovered_ms": percentiles([f["recovered_ms"] for f in faults if f["recovered_ms"] is not None]),
    }  # fmt: skip


def _by_victim(faults: Sequence[Row]) -> dict[str, dict[str, int]]:
    victims = sorted({victim for fault in faults for victim in fault["victims"]})
    return {victim: _fates([fault for fault in faults if victim in fault["victims"]]) for victim in victims}


def _stages(faults: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Percentiles of each stage, and how many recoveries went through it."""
    found = {}
    for stage in STAGES:
        times = [each[stage] for fault in faults for each in fault["stages_ms"].values() if stage in each]
        if times:
            found[stage] = {"n": len(times), **percentiles(times)}
    return found


def _durability(runs: Sequence[Row]) -> dict[str, int]:
    keys = ("records", "prefixes", "images", "flushes", "lost")
    return {key: sum(disk[key] for run in runs for disk in run["durability"].values()) for key in keys}


def _bystanders(runs: Sequence[Row]) -> dict[str, Any]:
    rows = [load for run in runs for load in run["workloads"] if load["bystander"]]
    p99s = [pair for run in runs for pair in run["bystanders"].values() if pair["calm_p99_ms"]]
    return {
        "operations": sum(row["ok"] for row in rows), "failed": sum(row["failed"] for row in rows),
        "p99_factor": percentiles([round(pair["faulty_p99_ms"] / pair["calm_p99_ms"], 3) for pair in p99s]),
    }  # fmt: skip
