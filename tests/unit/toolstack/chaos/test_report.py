"""Summaries and pages, from runs written by hand."""

import re
import xml.etree.ElementTree as ET

import pytest

from hvd.toolstack.chaos.charts import RIGHT, WIDTH, chart
from hvd.toolstack.chaos.page import page
from hvd.toolstack.chaos.stages import Recovery, first_response_ns
from hvd.toolstack.chaos.summary import ranges, summary
from hvd.toolstack.cli.chaos import show
from hvd.toolstack.cluster import LifecycleEvent

REAPED = "suspected 2.000000 ms, fenced 1.000000 ms, reaped 0.250000 ms before"


def fault(name="kill", victim="storage", recovered_ms=12.5, activated=True, **others):
    stages = {"detect": 0.2, "fence": 0.5, "reap": 3.0, "respawn": 8.0, "reconnect": 9.0, "first response": 10.0}
    return {
        "step": 1, "fault": name, "victims": [victim], "seed": 3, "for_s": 0.0, "parameters": {}, "at_ms": 100.0,
        "injected": True, "refused": "", "activated": activated, "evidence": "<reaper>", "detected": True,
        "recovered": recovered_ms is not None, "recovered_ms": recovered_ms, "stages_ms": {victim: stages}, **others,
    }  # fmt: skip


def run(seed, *faults, problems=(), **others):
    counts = dict.fromkeys(("failed", "unknown", "lost", "torn", "misplaced", "duplicated", "unexpected", "wrong"), 0)
    load = {"name": "writer", "kind": "disk", "bystander": False, "invoked": 10, "ok": 10, **counts}
    return {
        "plan_digest": "", "kept": "", "ended_ms": 900.0,
        "seed": seed, "at": 0.0, "wall_s": 2.0, "ok": not problems, "problems": list(problems), "faults": list(faults),
        "workloads": [load], "leaks": {}, "new_domains": 1, "broker_restarts": 0, "broker_crashes": 0, "durability": {},
        "bystanders": {}, "latencies": {"writer": [[0, 0.1, 0.2, 5], [100, 0.1, 9.0, 5]]}, **others,
    }  # fmt: skip


def test_a_summary_counts_what_was_injected_only():
    told = summary("p", [run(1, fault(), fault("stall"), fault(injected=False)), run(2, fault(victim="writer"))])
    assert told["totals"] == {"injected": 3, "activated": 3, "detected": 3, "recovered": 3}
    assert told["faults"]["kill"]["injected"] == 2
    assert told["victims"]["writer"]["injected"] == 1
    assert told["stages_ms"]["respawn"] == {"n": 3, "p50": 8.0, "p90": 8.0, "p99": 8.0, "max": 8.0}
    assert (told["recovered_share"], told["bound_95"]) == (1.0, 1.0)


def test_what_was_refused_is_told_with_the_first_reason_in_figures_page_and_lines(tmp_path, capsys):
    refusals = [fault("fill-disk", "", injected=False, refused=why) for why in ("/run has <9> MiB free", "other")]
    runs = [run(1, fault(), refusals[0]), run(2, refusals[1])]
    told = summary("p", runs)
    assert told["refused"] == {"fill-disk": {"times": 2, "first": "/run has <9> MiB free"}}
    assert "2 of fill-disk were refused, the first with: /run has &lt;9&gt; MiB free" in page(told, runs)
    show(told, tmp_path, as_json=False)
    assert "fill-disk: 2 refused, the first with: /run has <9> MiB free\n" in capsys.readouterr().out


def test_where_one_is_not_recovered_from_there_is_no_bound_but_a_share():
    told = summary("p", [run(1, fault(), fault(recovered_ms=None), problems=["not recovered"])])
    assert (told["recovered_share"], told["bound_95"], told["healthy"]) == (0.5, None, 0)
    assert told["problems"] == [{"seed": 1, "problems": ["not recovered"], "kept": ""}]


def test_an_activation_that_nobody_saw_counts_as_none():
    told = summary("p", [run(1, fault(activated=None), fault())])
    assert (told["totals"]["activated"], told["recovered_share"], told["bound_95"]) == (1, 1.0, 3.0)


def test_what_nobody_saw_and_was_not_recovered_from_counts_against_it():
    told = summary("p", [run(1, fault(activated=None, recovered_ms=None), fault())])
    assert (told["recovered_share"], told["bound_95"]) == (0.5, None)


def test_a_broker_that_greets_again_is_a_death_of_the_machines():
    recovery = Recovery("machine", 1_000_000)
    for name, domid, detail, at_ns in (
        ("died", 4, "", 2_000_000), ("hello", -1, "", 3_000_000), ("reaped", 4, REAPED, 3_500_000),
        ("reaped", -1, "suspected 0.500000 ms, fenced 0.250000 ms, reaped 0.000000 ms before", 2_500_000),
    ):  # fmt: skip
        recovery.hear(LifecycleEvent(name, domid, "", 0, detail, 0), at_ns)
    assert recovery.stages_ms == {"detect": 1.0, "fence": 1.25, "reap": 1.5, "respawn": 2.0}


@pytest.mark.parametrize(("seeds", "text"), [([], ""), ([3], "3"), ([2, 1, 3, 7], "1-3, 7"), ([5, 6], "5-6")])
def test_seeds_are_written_as_ranges(seeds, text):
    assert ranges(seeds) == text


def test_a_page_needs_nothing_else_and_hides_no_problem():
    runs = [run(1, fault()), run(2, fault(recovered_ms=None), problems=["storage <did> not come back"])]
    text = page(summary("p & q", runs), runs)
    assert not re.search(r"(src|href)=|https?://|@import|url\(", text)
    assert "NOT HEALTHY" in text
    assert "storage &lt;did&gt; not come back" in text
    assert "p &amp; q" in text
    assert "<reaper>" not in text


def test_a_chart_shades_each_fault_and_draws_each_workload():
    root = ET.fromstring(chart(run(1, fault(), fault("stall", "writer", recovered_ms=None))))
    rectangles = [each.get("class") for each in root.iter("rect")]
    assert rectangles.count("shade") == 2
    assert (rectangles.count("bar"), rectangles.count("bar lost")) == (1, 1)
    assert len(list(root.iter("polyline"))) == 1


def test_a_fault_that_was_not_recovered_from_is_shaded_to_the_end_of_the_run():
    drawn = chart(run(1, fault(recovered_ms=None), ended_ms=10_100.0))
    (shade,) = [each for each in ET.fromstring(drawn).iter("rect") if each.get("class") == "shade"]
    assert float(shade.attrib["x"]) + float(shade.attrib["width"]) == pytest.approx(WIDTH - RIGHT, abs=1)


def test_where_nothing_was_answered_there_is_no_line():
    latencies = {"writer": [[0, 0.1, 0.2, 5], [100, 0.1, 0.2, 5], [700, 0.1, 9.0, 5]]}
    drawn = ET.fromstring(chart(run(1, latencies=latencies)))
    lines = [each.attrib["points"].split() for each in drawn.iter("polyline")]
    assert [len(points) for points in lines] == [2, 2]
    assert lines[1][0] == lines[1][1], "one point alone is a dot"


def test_a_run_that_came_to_nothing_is_drawn_too():
    assert ET.fromstring(chart(run(1, latencies={}))).tag == "svg"


def heard(*events):
    recovery = Recovery("storage", 1_000_000)
    for name, domain, at_ns, *incarnation in events:
        detail = REAPED if name == "reaped" else ""
        recovery.hear(LifecycleEvent(name, 1, domain, incarnation[0] if incarnation else 1, detail, 0), at_ns)
    return recovery.stages_ms


def test_stages_are_told_by_the_victims_own_events_behind_the_fault():
    events = [("died", "storage", 500_000), ("died", "writer", 2_000_000), ("ready", "storage", 1_500_000),
              ("died", "storage", 3_000_000), ("ready", "storage", 9_000_000),
              ("reaped", "writer", 9_200_000), ("reaped", "storage", 9_500_000)]  # fmt: skip
    assert heard(*events) == {"detect": 6.5, "fence": 7.5, "reap": 8.25, "respawn": 8.0}


def test_the_first_of_two_deaths_is_the_one_that_was_detected():
    deaths = ("died", "storage", 4_000_000, 1), ("died", "storage", 5_000_000, 2)
    reaps = ("reaped", "storage", 6_000_000, 2), ("reaped", "storage", 7_000_000, 1)
    assert heard(*deaths, *reaps)["reap"] == 5.75


def test_an_end_that_was_suspected_before_the_fault_is_none_of_its():
    assert heard(("died", "storage", 1_500_000), ("reaped", "storage", 2_500_000)) == {}


def test_who_has_died_awaits_the_word_of_its_end_and_one_that_lives_none():
    recovery = Recovery("storage", 1_000_000)
    assert not recovery.awaits_end
    recovery.hear(LifecycleEvent("died", 1, "storage", 1, "", 0), 2_000_000)
    assert recovery.awaits_end
    recovery.hear_end(LifecycleEvent("reaped", 1, "storage", 1, REAPED, 0), 4_000_000)
    assert not recovery.awaits_end


def test_a_page_tells_detect_fence_and_reap_apart():
    text = page(summary("p", runs := [run(1, fault())]), runs)
    rows = re.findall(r"<tr><td>(detect|fence|reap)</td><td>1</td><td>([0-9.]+)</td>", text)
    assert rows == [("detect", "0.2"), ("fence", "0.5"), ("reap", "3.0")]


def test_the_first_response_ends_the_longest_silence():
    assert first_response_ns([5, 11, 12, 60, 61, 70], 10, 100) == 60
    assert first_response_ns([5, 13, 14, 200], 10, 100) == 13
    assert first_response_ns([5], 10, 100) is None
