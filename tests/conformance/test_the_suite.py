"""The conformance suite itself: what a driver's author runs, and that a driver which breaks a promise does not pass."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

DEADLINE_S = 100.0
BROKEN = Path(__file__).parent / "broken_drivers.py"
PROJECT = '[project]\nname = "broken"\n[project.entry-points."hvd.drivers"]\n{points}\n'
MODULES = '[tool.setuptools]\npy-modules = ["broken_drivers"]\n'
NOTICED_BY = {
    "corrupting": ("test_both_ends_connect_and_traffic_flows", "came back as"),
    "silent": ("test_both_ends_connect_and_traffic_flows", "supplies no exercise"),
    "secretive": ("test_every_key_that_an_end_writes_is_named_in_the_drivers_prose", "feature-secret"),
    "leaking": ("test_a_backend_serves_its_frontends_next_incarnation", "mappings"),
    "fragile": ("test_garbage_in_a_frontends_keys_closes_that_device_alone", "ended the driver domain"),
    "trusting": ("test_garbage_in_a_frontends_keys_closes_that_device_alone", "left the backend CONNECTED"),
    "unguarded": ("test_a_ring_index_that_jumps_closes_that_device_alone", "the jump ended the driver domain"),
    "blind": ("test_a_ring_index_that_jumps_closes_that_device_alone", "XenbusState.CLOSED"),
}


def run_suite(*arguments):
    """`pytest --pyargs hvd.toolstack.conformance`, as outside this repository."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--pyargs", "hvd.toolstack.conformance"]
    return subprocess.run(
        [*command, *arguments], cwd="/", capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )


@pytest.mark.parametrize("kind", NOTICED_BY)
def test_a_driver_that_breaks_a_promise_fails_the_test_of_that_promise(kind, installed, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    points = "\n".join(f'{kind} = "broken_drivers:{kind}"' for kind in NOTICED_BY)
    (source / "pyproject.toml").write_text(PROJECT.format(points=points) + MODULES)
    (source / BROKEN.name).write_text(BROKEN.read_text())
    installed(source)
    test, words = NOTICED_BY[kind]
    result = run_suite("--hvd-device", kind, "-k", test)
    assert re.search(rf"^FAILED .*{test}", result.stdout, re.MULTILINE), result.stdout + result.stderr
    assert words in result.stdout, result.stdout


def test_a_kind_that_nobody_registered_is_named_with_those_there_are():
    result = run_suite("--hvd-device", "barometer", "-x")
    assert "no driver for device kind 'barometer'; there are vbd, echo, vif" in result.stdout


def test_the_suite_asks_for_a_device():
    assert "name the device to try with --hvd-device KIND" in run_suite("-x").stdout
