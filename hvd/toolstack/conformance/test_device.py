"""What every device driver promises, whoever wrote it: connects, survives either end's death, and trusts nobody."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hvd.toolstack.conformance.trial import BACKEND, DONE, PASSING, SUBJECT, DeviceUnderTest, Trial, running_trial
from hvd.transport.xenbus_state import XenbusState

KILLS = 20
CONSOLE_MAPPINGS = 1
"""Domain 0's mapping of a guest's console."""
ESSENTIAL = frozenset({
    "ring-ref", "event-channel", "tx-ring-ref", "rx-ring-ref", "event-channel-tx", "event-channel-rx",
})
NO_RING = "no ring-ref and event-channel"
GARBAGE = ("", "nonsense", "-1", "0", "4095", "18446744073709551616", "9" * 4000, "\N{SUPERSCRIPT TWO}")


@pytest.fixture
def trial(device_under_test: DeviceUnderTest) -> Iterator[Trial]:
    with running_trial(device_under_test) as running:
        yield running


def republish(trial: Trial, name: str, key: str, value: str) -> None:
    """A guest's keys with another value for one of them; when this returns, the backend has seen it."""
    path = trial.frontend_path(name)
    trial.write(path, key, value)
    trial.write(path, "state", str(int(XenbusState.INITIALISED)))
    trial.settle()


def test_both_ends_connect_and_traffic_flows(trial: Trial) -> None:
    trial.exercise()
    assert trial.state(trial.frontend_path(SUBJECT)) is XenbusState.CONNECTED
    assert trial.state(trial.backend_path(SUBJECT)) is XenbusState.CONNECTED


def test_every_key_that_an_end_writes_is_named_in_the_drivers_prose(trial: Trial) -> None:
    trial.exercise()
    assert trial.order(SUBJECT, "undeclared") == DONE


def test_a_frontend_goes_on_with_its_backends_next_incarnation(trial: Trial) -> None:
    trial.exercise()
    before = trial.counts()
    trial.kill(BACKEND)
    trial.exercise()
    assert trial.counts() == before
    assert trial.cluster.domain(SUBJECT).incarnation == 1
    assert trial.read(trial.backend_path(SUBJECT), "hvd-incarnation") == "2"


def test_a_backend_serves_its_frontends_next_incarnation(trial: Trial) -> None:
    trial.exercise()
    before = trial.counts()
    trial.kill(SUBJECT)
    trial.exercise()
    assert trial.counts() == before
    assert trial.cluster.domain(BACKEND).incarnation == 1


def test_both_ends_may_die_together(trial: Trial) -> None:
    trial.exercise()
    before = trial.counts()
    trial.kill(BACKEND, SUBJECT)
    trial.exercise()
    assert trial.counts() == before


def test_a_backend_lets_go_of_a_frontend_that_is_gone_for_good(trial: Trial) -> None:
    trial.exercise()
    before = trial.counts()
    trial.create(PASSING)
    trial.exercise(PASSING)
    assert trial.counts() != before
    trial.destroy(PASSING)
    trial.settle()
    assert trial.counts() == before


def test_a_device_can_be_taken_away_while_it_is_connected(trial: Trial) -> None:
    trial.exercise()
    before = trial.counts()
    trial.create(PASSING)
    trial.exercise(PASSING)
    path = trial.backend_path(PASSING)
    trial.remove(path)
    trial.settle()
    assert trial.counts()["mappings"] == before["mappings"] + CONSOLE_MAPPINGS
    republish(trial, PASSING, "hvd-session", "1.again")
    assert trial.counts()["mappings"] == before["mappings"] + CONSOLE_MAPPINGS
    assert trial.read(path, "state") is None, "the backend has written into a directory that was taken away"
    trial.destroy(PASSING)
    trial.settle()
    assert trial.counts() == before


def test_garbage_in_a_frontends_keys_closes_that_device_alone(trial: Trial) -> None:
    trial.exercise()
    before = trial.counts()
    keys = trial.published_keys(SUBJECT)
    for number, (key, value) in enumerate((key, value) for key in keys for value in GARBAGE):
        session = f"{trial.cluster.domain(SUBJECT).incarnation}.garbage{number}"
        trial.write(trial.frontend_path(SUBJECT), "hvd-session", session)
        republish(trial, SUBJECT, key, value)
        what = f"{key} = {value[:40]!r}"
        state = trial.state(trial.backend_path(SUBJECT))
        assert trial.cluster.domain(BACKEND).incarnation == 1, f"{what} ended the driver domain"
        if key in ESSENTIAL:
            assert state is XenbusState.CLOSED, f"{what} left the backend {state.name}"
        if state is XenbusState.CLOSED:
            assert trial.read(trial.backend_path(SUBJECT), "error"), f"{what}: the backend has not said why it closed"
        trial.kill(SUBJECT)
        trial.exercise(SUBJECT)
    assert trial.counts() == before


def test_a_ring_index_that_jumps_closes_that_device_alone(trial: Trial) -> None:
    trial.exercise()
    before = trial.counts()
    answer = trial.order(SUBJECT, "ring")
    if answer == NO_RING:
        pytest.skip(f"{trial.kind} publishes {answer}")
    assert answer == DONE
    trial.settle()
    path = trial.backend_path(SUBJECT)
    assert trial.state(path) is XenbusState.CONNECTED
    assert trial.order(SUBJECT, "jump") == DONE
    trial.settle()
    assert trial.cluster.domain(BACKEND).incarnation == 1, "the jump ended the driver domain"
    assert trial.state(path) is XenbusState.CLOSED
    assert trial.read(path, "error"), "the backend has not said why it closed"
    trial.kill(SUBJECT)
    trial.exercise()
    assert trial.counts() == before


def test_twenty_deaths_in_a_row_cost_no_port_no_grant_and_no_mapping(trial: Trial) -> None:
    trial.exercise()
    before = trial.counts()
    for number in range(KILLS):
        trial.kill(*(((BACKEND,), (SUBJECT,), (SUBJECT, BACKEND))[number % 3]))
        trial.exercise()
    assert trial.counts() == before
