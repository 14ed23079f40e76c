"""Every attack by name: it is stopped, and its control, without what stops it, succeeds. As root, and as nobody."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hvd.toolstack.attacks import broker, naive, races, suite
from hvd.toolstack.attacks.arena import Arena
from hvd.toolstack.attacks.attack import Attack, Result, Seen
from hvd.toolstack.cli.attack import list_attacks
from hvd.toolstack.config import ConfigError
from tests.nobody import nobody

ONE_BY_ONE = Path(__file__).with_name("one_by_one.py")
FEW_DESCRIPTORS = 4096
"""As many as a process has by default on some systems: the broker is not to run out of them sooner than its domains."""
IS_ROOT = os.geteuid() == 0
Run = Callable[[str], dict[str, Any] | None]


def attacker(prefix: list[str], descriptors: int, environment: dict[str, str]) -> Iterator[Run]:
    """Runs attacks in a process of its own, which keeps one cluster."""
    limited = ["sh", "-c", 'ulimit -n "$1" && shift && exec "$@"', "sh", str(descriptors)]
    with subprocess.Popen(
        [*limited, *prefix, str(ONE_BY_ONE)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=environment,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        to, out = process.stdin, process.stdout

        def run(name: str) -> dict[str, Any] | None:
            to.write(name + "\n")
            to.flush()
            line = out.readline()
            assert line, f"the suite ended: {name}"
            told: dict[str, Any] | None = json.loads(line)
            return told

        yield run
        to.close()
        assert process.wait(60) == 0


@pytest.fixture(scope="module")
def as_we_are() -> Iterator[Run]:
    yield from attacker([sys.executable, "-P"], resource.getrlimit(resource.RLIMIT_NOFILE)[1], dict(os.environ))


@pytest.fixture(scope="module")
def as_nobody() -> Iterator[Run]:
    with nobody() as somebody:
        if somebody is None:
            pytest.skip("no interpreter of this version that other users may execute")
        yield from attacker([*somebody.python, "-P"], FEW_DESCRIPTORS, somebody.environment)


def judge(told: dict[str, Any] | None) -> None:
    if told is None:
        pytest.skip("not an attack of this user's")
    if told["stopped"] is None:
        pytest.skip(told["attempt"])
    assert told["stopped"], f"not stopped: {told['attempt']}"
    assert told["control_succeeded"], f"the control did not succeed: {told['control']}"


@pytest.mark.parametrize("name", suite.ATTACKS)
def test_it_is_stopped_and_its_control_succeeds(as_we_are: Run, name: str) -> None:
    judge(as_we_are(name))


@pytest.mark.skipif(not IS_ROOT, reason="it is run by somebody else than root anyhow")
@pytest.mark.parametrize("name", suite.ATTACKS)
def test_without_root_and_with_few_descriptors_too(as_nobody: Run, name: str) -> None:
    judge(as_nobody(name))


# ---- the suite itself ------------------------------------------------------------------------------------------------


def test_names_are_chosen_by_how_they_begin_and_a_wrong_one_is_named_with_the_nearest() -> None:
    assert [attack.name for attack in suite.chosen(["XSA-39 an answer"])] == [
        "XSA-39 an answer index of a backend too far ahead"
    ]
    assert len(suite.chosen([])) == len(suite.ATTACKS)
    with pytest.raises(ConfigError, match="--only"):
        suite.chosen(["XSA-39", "no such attack"])


@pytest.mark.parametrize(
    ("stopped", "control", "good"),
    [(True, True, True), (False, True, False), (True, False, False), (None, None, True)],
)
def test_an_attack_whose_control_does_not_work_counts_as_little_as_one_that_is_not_stopped(
    stopped: bool | None, control: bool | None, good: bool
) -> None:
    assert suite.all_as_they_should_be([Result("a", "b", stopped, "", "", control)]) is good


def test_a_naive_peer_that_dies_came_to_harm_and_one_that_goes_on_did_not() -> None:
    assert naive.run("believes_responses", 1001) == (True, "it died: KeyError: 1001")
    assert naive.run("believes_responses", 1, 2) == (False, "it goes on")


def test_a_control_whose_peer_ends_before_it_begins_has_not_worked(monkeypatch: pytest.MonkeyPatch) -> None:
    """It counted as one that died of the attack: of an import that failed, say."""
    with pytest.raises(naive.NeverBegan, match="no_such_peer ended before it began: KeyError: 'no_such_peer'"):
        naive.run("no_such_peer")
    monkeypatch.setattr(naive, "__name__", "hvd.toolstack.attacks.no_such_module")
    with pytest.raises(naive.NeverBegan, match="No module named"):
        naive.run("believes_responses", 1)


def test_an_attack_that_ends_the_cluster_takes_no_other_with_it() -> None:
    """It is not stopped, and the next one has an arena of its own: one timeout once made 64 tests fail."""

    def pull_the_plug(arena: Arena) -> Seen:
        os.kill(int(arena.cluster.info()["machine_pid"]), signal.SIGKILL)
        arena.domain("store.reach_root")
        raise AssertionError("the machine is dead")

    plug = Attack("a power cut", "none", pull_the_plug, pull_the_plug, "with it")
    with suite.Runner() as runner:
        first, second = runner.run(plug), runner.run(suite.ATTACKS["XSA-353 the root node"])
    assert not first.as_it_should_be
    assert first.attempt.startswith("it was not carried out: ")
    assert second.as_it_should_be, second


def test_the_list_names_every_attack_with_its_layer(capsys: pytest.CaptureFixture[str]) -> None:
    list_attacks(as_json=True)
    listed = json.loads(capsys.readouterr().out)["attacks"]
    assert [entry["name"] for entry in listed] == list(suite.ATTACKS)
    assert all(entry["layer"] for entry in listed)


def test_a_policy_that_there_is_not_is_bad_input_and_no_attack_that_was_not_stopped() -> None:
    command = [sys.executable, "-m", "hvd", "attack", "--only", "signal", "--policy", "slio", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--policy" in done.stderr and "slio" in done.stderr


def test_json_is_what_is_promised_and_a_policy_that_denies_what_an_attack_takes_stops_it() -> None:
    command = [sys.executable, "-P", "-m", "hvd", "attack", "--json", "--policy", "silo", "--only", "writing a read"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (first, *_) = json.loads(done.stdout)["attacks"]
    assert {"name", "stopped", "layer", "control"} <= first.keys()
    assert first["stopped"] is True
    assert "the policy silo denies" in first["attempt"]


def test_an_attack_on_the_broker_that_came_to_nothing_was_not_stopped() -> None:
    """Whatever its attacker died of: it counted as stopped where the broker went on."""

    def idle(arena: Arena) -> str:
        return "failed: killed by SIGSEGV"

    attempt, control = broker.against_broker(idle, "did reset"), broker.undefended("closes_nothing", 1)
    attack = Attack("nothing", "none", attempt, control, "by one that does something")
    with suite.Runner() as runner:
        result = runner.run(attack)
    assert not result.as_it_should_be
    assert "it comes to nothing" in result.attempt


def test_who_was_killed_for_something_else_did_not_have_its_endless_messages_stopped() -> None:
    """Nor did who ended by its own hand: that counted as well, whoever had ended it."""
    with Arena() as arena, arena.fresh():
        seen = broker.endless(1, ("messages.flood_connections",))(arena)
    assert seen.harmed
    assert f"{broker.KILLED}; 0 of 1 for it" in seen.what


def test_one_that_asks_on_counts_as_answered_while_each_answer_is_right() -> None:
    """It counted while it lived."""
    with Arena() as arena, arena.fresh():
        caller = arena.domain("messages.ask_on")
        assert broker.is_answered(arena, caller)[0]

        def has_noticed() -> bool:
            arena.write(caller, "data/asked", "forged")
            return not broker.is_answered(arena, caller)[0]

        arena.until(has_noticed, "a wrong answer to be noticed")
        assert "b'forged' in the place of" in broker.is_answered(arena, caller)[1]


@pytest.mark.parametrize("told", ["failed: killed by SIGKILL", "did has {'copied': 0, 'changed': 9}", "did nothing"])
def test_a_race_in_which_nothing_was_done_was_not_stopped(told: str) -> None:
    with pytest.raises(TimeoutError, match="comes to nothing"):
        races._tried(told, "copied", "changed")
