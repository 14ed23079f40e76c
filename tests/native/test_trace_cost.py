"""What a trace costs while nobody traces: counted in instructions, one build with it against one without."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("trace_cost.cpp")
REPEATS = 100
RUN_DEADLINE_S = 300
FLAGS = ("-std=c++20", "-O3", "-fPIC")
LOOK_MAX = 2 if platform.machine() == "x86_64" else 3
"""Instructions of one look: compare and jump; elsewhere than on x86 an address, a load and a jump."""


@pytest.fixture(scope="module")
def counts(compile_native) -> list[dict[str, int]]:
    """Steps by operation: without a trace, with one that is off."""
    return [run(compile_native(SOURCE, "g++", *FLAGS, *more)) for more in (("-DHVD_WITHOUT_TRACE",), ())]


def run(program: Path) -> dict[str, int]:
    result = subprocess.run([program], capture_output=True, text=True, timeout=RUN_DEADLINE_S, check=False)
    assert result.returncode == 0, result.stderr
    return {name: int(count) for name, count in (line.split() for line in result.stdout.splitlines())}


def test_a_notification_takes_two_instructions_more_while_nobody_traces(counts):
    without, with_it = counts
    assert 0 < with_it["notify"] - without["notify"] <= LOOK_MAX * REPEATS, counts
    assert with_it["notify"] > 10 * REPEATS, "nothing was counted"


def test_a_request_and_its_response_take_two_more_at_each_of_four_places(counts):
    without, with_it = counts
    assert 0 < with_it["request"] - without["request"] <= 4 * LOOK_MAX * REPEATS, counts
