"""The page and the plots that a run becomes."""

import copy
import re
from xml.etree import ElementTree

import pytest

from hvd.toolstack.bench import bounds, report
from hvd.toolstack.bench.figures import Figure, Goal, absent, value
from hvd.toolstack.bench.plots import curve
from hvd.toolstack.bench.suite import Outcome, as_object
from hvd.toolstack.config import ConfigError
from hvd.toolstack.faults.checker import Verdict
from hvd.transport.errors import HvdError
from hvd.transport.histogram import Histogram


def told():
    times = Histogram()
    for number in range(1, 20_001):
        times.record(number * 10)
    ipc = [
        Figure.timed("event channel, both hot", times, (Goal("p50", 100.5),), wait="spin"),
        Figure.timed("C spin ping-pong, hot", times, wait="polled"),
        absent("iceoryx2 Python package", "it is not here | really"),
        value("missed", "×", 3.0, Goal("p50", 2.0)),
    ]
    recovery = [Figure("wait", "ms", [1.0, 2.0], (Goal("p50", 30.0),))]
    command = {"bench": "all", "seed": 4, "duration_s": None, "cpus": [0, 1], "kills": 200}
    outcomes = [Outcome("ipc", ipc), Outcome("recovery", recovery, Verdict(operations=12))]
    return as_object({"cpu": "X"}, command, outcomes)


def test_the_page_has_every_row_goal_and_plot(tmp_path):
    report.write(tmp_path, told())
    page = (tmp_path / "performance.md").read_text()
    assert "`hvd bench all --seed 4 --kills 200 --cpus 0,1 --report docs`" in page
    assert "2 of 3 were met." in page
    assert "| ipc | missed | 3 | ≤ 2 | × | **missed** |" in page
    assert "absent: it is not here \\| really" in page
    assert "Of 12 acknowledged operations: 0 lost" in page
    for link in re.findall(r"\]\((performance/[^)]*)\)", page):
        ElementTree.parse(tmp_path / link)
    assert (tmp_path / "performance" / "ipc-both-hot.svg").is_file()


def test_a_goal_that_is_not_judged_is_neither_met_nor_missed(monkeypatch):
    monkeypatch.setattr(report, "WHAT_BOUNDS", (("^missed$", "Because."),))
    doubted = [Figure("missed", "%", [3.0], (Goal("p50", 2.0),), doubt="too few")]
    page = report.page(as_object({}, {"bench": "recovery", "seed": 1, "duration_s": None, "cpus": [0]},
                                 [Outcome("recovery", doubted)]), {})  # fmt: skip
    assert "0 of 0 were met. 1 could not be judged." in page
    assert "| recovery | missed | 3 | ≤ 2 | % | not judged |" in page
    assert "Because." not in page


def test_the_same_run_makes_the_same_files_byte_for_byte(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        report.write(tmp_path / name, copy.deepcopy(told()))
    files = {name: sorted(path.relative_to(tmp_path / name) for path in (tmp_path / name).rglob("*.*"))
             for name in ("one", "two")}  # fmt: skip
    assert files["one"] == files["two"]
    for file in files["one"]:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_plots_of_an_earlier_run_go(tmp_path):
    (tmp_path / "performance").mkdir()
    (tmp_path / "performance" / "old.svg").touch()
    report.write(tmp_path, told())
    assert not (tmp_path / "performance" / "old.svg").exists()


def test_a_curve_rises_and_ends_at_the_last_sample():
    times = Histogram()
    for number in range(1, 1001):
        times.record(number * 1000)
    places, values = curve(times)
    assert places[0] == 1.0
    assert places[-1] == pytest.approx(1000)
    assert values == sorted(values)
    assert values[-1] == pytest.approx(1000, rel=0.01)
    assert curve(Histogram()) == ([1.0], [0.001])


def test_what_bounds_a_missed_goal_is_told_only_when_it_is_missed(monkeypatch):
    monkeypatch.setattr(report, "WHAT_BOUNDS", (("^missed$", "Because."), ("hot$", "Never told.")))
    page = report.page(told(), {})
    assert "Because." in page
    assert "Never told." not in page


def test_what_bounds_goals_are_patterns_and_text():
    for pattern, text in bounds.WHAT_BOUNDS:
        re.compile(pattern)
        assert text.endswith(".")


def test_a_directory_that_does_not_exist_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(ConfigError, match="--report"):
        report.check_directory(tmp_path / "nowhere")


def test_a_missing_library_is_named_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(HvdError, match=r"matplotlib .*hvd\[bench\]"):
        report.check_directory(tmp_path)
