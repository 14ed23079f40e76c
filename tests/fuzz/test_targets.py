"""Every fuzz target, shortly and the same each time: nothing is wrong with its seeds, nor with what lies near them.

docs/fuzzing.md says how to run them for long.
"""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2]))

from tests.fuzz.engines import COMPILE_DEADLINE_S, PLAY, guided, needs_for_guided, once
from tests.fuzz.targets import FUZZ, ROOT, TARGETS

NATIVE = [target for target in TARGETS.values() if target.native]
PYTHON = [target for target in TARGETS.values() if not target.native]
SHARES = 4
"""Of the Python targets, so that none takes so long on a busy machine that its deadline passes."""
SEED = "-seed=7"
NATIVE_RUNS, PYTHON_RUNS = "-runs=1000", "-runs=150"
DEADLINE_S = 280
SEED_BYTES_MAX, SEEDS_MAX = 1023, 96
NOT_TARGETS = {"choices", "any_message", "file_in_memory", "problems_named", "open_descriptors"}


def played(command):
    result = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, errors="replace", timeout=DEADLINE_S, check=False
    )
    assert result.returncode == 0, result.stderr[-4000:]
    return result.stderr


def seeds_of(target):
    return sorted(target.seeds.iterdir())


@pytest.mark.timeout(COMPILE_DEADLINE_S + 2 * DEADLINE_S + 20)
@pytest.mark.parametrize("target", NATIVE, ids=lambda target: target.name)
def test_the_seeds_of_a_native_target_pass(target, tmp_path):
    ran = played(once(target, *seeds_of(target)))
    assert ran.count("Running: ") == len(seeds_of(target))
    if lack := needs_for_guided(target):
        pytest.skip(f"the seeds pass; no guided run: {lack}")
    learnt = tmp_path / "learnt"  # the engine writes into the first corpus
    learnt.mkdir()
    corpora = f"-artifact_prefix={tmp_path}/", str(learnt), str(target.seeds)
    assert "DONE" in played(guided(target, NATIVE_RUNS, SEED, *corpora))


def test_the_seeds_of_the_python_targets_pass():
    for target in PYTHON:
        seeds = seeds_of(target)
        assert seeds, f"{target.name} has none"
        played(once(target, *seeds))


@pytest.mark.parametrize("share", range(SHARES))
def test_the_python_targets_find_nothing_near_their_seeds(share, tmp_path):
    if lack := needs_for_guided(PYTHON[0]):
        pytest.skip(lack)
    targets = PYTHON[share::SHARES]
    for target in targets:
        (tmp_path / target.name).mkdir()
    names = ",".join(target.name for target in targets)
    corpora = str(tmp_path / "%TARGET%"), str(FUZZ / "corpus" / "%TARGET%")
    flags = PYTHON_RUNS, SEED, "-max_len=300", f"-artifact_prefix={tmp_path}/", *corpora
    ran = played([sys.executable, str(PLAY), names, *flags])
    assert ran.count("DONE") == len(targets)
    assert "Is the code instrumented" not in ran


def test_each_file_that_plays_inputs_is_a_target():
    native = {source.stem for source in (FUZZ / "native").glob("*.cpp")}
    python = {source.stem for source in (FUZZ / "python").glob("*.py")} - NOT_TARGETS
    assert native == {target.name for target in NATIVE}
    assert python == {target.name for target in PYTHON}


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
def test_the_seeds_of_a_target_are_few_and_small(target):
    seeds = seeds_of(target)
    assert 1 <= len(seeds) <= SEEDS_MAX
    assert all(seed.stat().st_size <= SEED_BYTES_MAX for seed in seeds)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nothing"], "TARGET: expected one of ring,"),
        ([], "TARGET: expected at least one"),
        (["ring", "--seconds", "0"], "--seconds: expected a number from 1 to"),
        (["all", "--replay", "x"], "--replay: expected one TARGET, found all"),
        (["ring", "--replay", "gone"], "--replay: expected a file, found gone"),
    ],
)
def test_bad_arguments_are_named_and_nothing_is_run(arguments, told):
    script = ROOT / "scripts" / "fuzz.py"
    result = subprocess.run(
        [sys.executable, str(script), *arguments], capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert result.returncode == 2
    assert told in result.stderr


def test_the_list_says_what_each_target_is_about(capsys):
    listed = runpy.run_path(str(ROOT / "scripts" / "fuzz.py"))["_list"]
    assert listed() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(TARGETS)
    assert all(len(line.split()) > 5 for line in lines)
