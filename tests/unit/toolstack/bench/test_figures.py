"""Figures, goals, and the JSON that they become."""

import json

import pytest

from hvd.toolstack.bench.figures import HEADINGS, Figure, Goal, absent, as_object, goals_of, ratio, value
from hvd.transport.histogram import Histogram, from_text


def times(*microseconds):
    histogram = Histogram()
    for each in microseconds:
        histogram.record(each * 1000)
    return histogram


@pytest.mark.parametrize(
    ("goal", "number", "met"),
    [
        (Goal("p50", 2.0), 2.0, True), (Goal("p50", 2.0), 2.1, False), (Goal("p50", least=2.0), 2.0, True),
        (Goal("p50", least=2.0), 1.9, False), (Goal("p50", 2.0), None, False), (Goal("p50", least=2.0), None, False),
    ],
)  # fmt: skip
def test_a_goal_is_a_bound_that_what_was_not_measured_never_meets(goal, number, met):
    assert goal.met_by(number) is met


def test_samples_and_histograms_have_the_same_percentiles():
    values = [1.0, 2.0, 3.0, 4.0]
    listed, counted = Figure("a", "µs", values), Figure.timed("a", times(1, 2, 3, 4))
    for key in ("p50", "p90", "p99", "max"):
        assert counted.percentiles[key] == pytest.approx(listed.percentiles[key], rel=0.001)
    assert listed.n == counted.n == 4


def test_a_row_of_json_holds_the_histogram_that_the_percentiles_are_of():
    row = Figure.timed("a", times(5, 7), wait="spin", note="x").as_dict()
    assert from_text(row["hdr"]).percentile(50) == row["p50"] * 1000
    assert (row["name"], row["unit"], row["wait"], row["n"], row["note"]) == ("a", "µs", "spin", 2, "x")
    assert "hdr" not in value("b", "×", 2.0).as_dict()


@pytest.mark.parametrize(("unit", "ns"), [("µs", 1e3), ("ms", 1e6)])
def test_durations_that_were_taken_one_by_one_have_a_curve_too(unit, ns):
    times_of_it = from_text(Figure("a", unit, [1.0, 2.0, 4.0]).as_dict()["hdr"])
    assert times_of_it.count == 3
    assert times_of_it.percentile(100) == pytest.approx(4 * ns, rel=0.001)


@pytest.mark.parametrize(("unit", "samples"), [("ms", [1.0]), ("×", [1.0, 2.0]), ("1/s", [1.0, 2.0]), ("µs", [])])
def test_what_is_one_number_or_no_duration_has_none(unit, samples):
    assert "hdr" not in Figure("a", unit, samples).as_dict()


def test_what_is_in_doubt_neither_meets_its_goal_nor_misses_it():
    figure = Figure("a", "%", [9.0], (Goal("p50", 2.0),), "of 3", doubt="too few")
    assert figure.met is None
    assert [goal["met"] for goal in goals_of([figure])] == [None]
    assert figure.as_row()[-2:] == ["not judged", "of 3; too few"]
    assert figure.as_dict()["note"] == "of 3; too few"


def test_every_goal_becomes_an_object_with_its_value():
    figure = Figure("a", "ms", [1.0, 9.0], (Goal("p50", 2.0), Goal("max", 5.0), Goal("p50", least=0.5)))
    assert goals_of([figure]) == [
        {"name": "a", "value": 1.0, "unit": "ms", "goal": 2.0, "relation": "at most", "met": True},
        {"name": "a, max", "value": 9.0, "unit": "ms", "goal": 5.0, "relation": "at most", "met": False},
        {"name": "a", "value": 1.0, "unit": "ms", "goal": 0.5, "relation": "at least", "met": True},
    ]
    assert not figure.met


def test_a_ratio_is_of_medians_and_has_its_goal():
    slow, fast = value("slow", "µs", 6.0), value("fast", "µs", 2.0)
    assert ratio("r", slow, fast, most=2.5).goals_as_dicts()[0] | {} == {
        "name": "r", "value": 3.0, "unit": "×", "goal": 2.5, "relation": "at most", "met": False,
    }  # fmt: skip
    assert ratio("r", slow, fast, least=2.5).met
    assert (ratio("r", slow, fast).p50, ratio("r", slow, fast).goals_as_dicts()) == (3.0, [])


def test_what_has_nothing_to_be_compared_with_is_absent_and_fails_nothing():
    missing = ratio("r", value("a", "µs", 1.0), absent("peer", "not here"), most=1.0)
    assert missing.goals == ()
    assert missing.note == "absent: no figure of peer"
    assert missing.met


def test_what_hvd_should_have_and_was_not_measured_fails():
    assert goals_of([value("a", "ms", None, Goal("p50", 1.0))])[0] | {} == {
        "name": "a", "value": None, "unit": "ms", "goal": 1.0, "relation": "at most", "met": False,
    }  # fmt: skip


def test_a_row_of_the_table_has_a_cell_a_heading():
    for figure in (absent("a", "x"), value("a", "×", 1.0, Goal("p50", 1.0)), Figure.timed("a", times(1))):
        assert len(figure.as_row()) == len(HEADINGS)
    assert "NOT MET" in value("a", "×", 2.0, Goal("p50", 1.0)).as_row()
    assert value("a", "×", 1.0, Goal("p50", 1.0, 0.5)).as_row()[8] == "p50 ≤ 1 and ≥ 0.5"


def test_a_run_is_one_object_with_a_schema():
    told = json.loads(json.dumps(as_object({"cpu": "x"}, [value("a", "×", 1.0, Goal("p50", 1.0))])))
    assert told["schema"] == "hvd-bench/1"
    assert set(told) == {"schema", "machine", "rows", "goals"}
