"""The pytest fixtures `cluster` and `scenario`: real domains for one test, ended and removed after it.

Which one is said by a marker, relative to the test's file, or by a fixture `cluster_config` that returns a path or a
list of `DomainConfig`s. Nothing of hvd is loaded, and nothing started, for tests that do not ask for it.

    @pytest.mark.cluster("cockpit.toml")
    def test_the_disk_comes_back(cluster):
        cluster.domain("storage").kill()
        cluster.domain("storage").wait_ready()

A scenario is a plan of faults (docs/chaos.md), named beside the test as well; nothing runs before the test says so:

    @pytest.mark.scenario("plan.toml")
    @pytest.mark.parametrize("seed", range(3))
    def test_nothing_is_lost(scenario, seed):
        outcome = scenario.run(seed)
        assert outcome.ok, outcome.problems
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from hvd.toolstack.chaos.scenario import Scenario
    from hvd.toolstack.cluster import Cluster
    from hvd.toolstack.conformance.trial import DeviceUnderTest

Tell = Callable[[str], None]
LOG_CHARACTERS_MAX = 4000


def pytest_addoption(parser: pytest.Parser) -> None:
    """Say which device `pytest --pyargs hvd.toolstack.conformance` is about."""
    group = parser.getgroup("hvd")
    group.addoption("--hvd-device", metavar="KIND", help="the device kind that the conformance suite tries")
    group.addoption(
        "--hvd-device-path", metavar="PATH[:w]", action="append", default=[], help="a file its backend reads, or writes"
    )
    group.addoption(
        "--hvd-device-key", metavar="KEY=VALUE", action="append", default=[], help="a key its ends find in XenStore"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the markers known."""
    config.addinivalue_line("markers", "scenario(file): the plan of faults that the fixture `scenario` runs")
    config.addinivalue_line("markers", "cluster(file): the cluster file that the fixture `cluster` starts")


@pytest.fixture
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A running cluster whose domains are ready; what they wrote to their consoles is shown if the test fails."""
    with _described(request) as running:
        yield running
        _show_logs(running.run_dir / "log")


@pytest.fixture
def scenario(request: pytest.FixtureRequest, tmp_path: Path) -> Scenario:
    """A plan of faults, ready to be run: each `run` has a cluster of its own, of which nothing is left.

    Of a run that is not as expected, what its domains wrote to their consoles is shown if the test fails.
    """
    from hvd.toolstack.chaos.outcome import Outcome
    from hvd.toolstack.chaos.run import LOGS
    from hvd.toolstack.chaos.scenario import Scenario

    class Told(Scenario):
        """Says what became of a run as soon as it is over, with its seed."""

        def run(self, seed: int | None = None, tell: Tell | None = None, keep: Path | None = None) -> Outcome:
            outcome = super().run(seed, tell, keep or tmp_path / f"seed-{self.plan.seed if seed is None else seed}")
            if outcome.kept is not None:
                told = f"seed {outcome.seed} of {self.plan.file} was not as expected"
                print(f"{told}; its logs and files: {outcome.kept}")
                _show_logs(outcome.kept / LOGS)
            return outcome

    marker = request.node.get_closest_marker("scenario")
    if marker is None:
        how = 'mark it @pytest.mark.scenario("FILE")'
        raise pytest.UsageError(f"{request.node.nodeid} uses the fixture scenario: {how}")
    return Told.load(request.path.parent / _only_argument(request, marker))


@pytest.fixture
def device_under_test(request: pytest.FixtureRequest) -> DeviceUnderTest:
    """What the conformance suite tries: --hvd-device, unless a test module has a fixture of this name."""
    from hvd.toolstack.conformance.trial import DeviceUnderTest

    kind = request.config.getoption("--hvd-device")
    if kind is None:
        raise pytest.UsageError("name the device to try with --hvd-device KIND")
    pairs = [pair.partition("=") for pair in request.config.getoption("--hvd-device-key")]
    paths = request.config.getoption("--hvd-device-path")
    return DeviceUnderTest(kind, {key: value for key, _, value in pairs}, tuple(paths))


def _described(request: pytest.FixtureRequest) -> Cluster:
    from hvd.toolstack.cluster import Cluster

    marker = request.node.get_closest_marker("cluster")
    if marker is not None:
        return Cluster.load(request.path.parent / _only_argument(request, marker))
    config = _config_fixture(request)
    return Cluster.load(config) if isinstance(config, str | Path) else Cluster.build(config)


def _config_fixture(request: pytest.FixtureRequest) -> Any:
    try:
        return request.getfixturevalue("cluster_config")
    except pytest.FixtureLookupError as error:
        if error.argname != "cluster_config":
            raise
    how = 'mark it @pytest.mark.cluster("FILE"), or write a fixture cluster_config'
    raise pytest.UsageError(f"{request.node.nodeid} uses the fixture cluster: {how}")


def _only_argument(request: pytest.FixtureRequest, marker: pytest.Mark) -> str:
    if len(marker.args) != 1 or marker.kwargs:
        raise pytest.UsageError(f"{request.node.nodeid}: @pytest.mark.{marker.name} takes one argument, a file")
    return str(marker.args[0])


def _show_logs(directory: Path) -> None:
    """On the test's output, which pytest shows for failures only."""
    for log in sorted(directory.glob("*.log")):
        text = log.read_text(encoding="utf-8", errors="replace")[-LOG_CHARACTERS_MAX:]
        if text:
            print(f"---- {log.name} ----\n{text}")
