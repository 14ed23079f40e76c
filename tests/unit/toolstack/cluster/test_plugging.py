"""When a device that is plugged in counts as refused."""

from types import SimpleNamespace

import pytest

from hvd.toolstack.cluster import plugging
from hvd.toolstack.cluster.plugging import SILENT_S, Ends, Refusals
from hvd.transport.xenbus_state import XenbusState

CLOSED, OFFERED = {"state": str(int(XenbusState.CLOSED))}, {"state": str(int(XenbusState.INIT_WAIT))}


@pytest.fixture
def clock(monkeypatch):
    made = SimpleNamespace(now=5.0)
    monkeypatch.setattr(plugging, "time", SimpleNamespace(monotonic=lambda: made.now))
    return made


@pytest.mark.parametrize(
    ("front", "back", "told"),
    [
        ({}, CLOSED | {"error": "b"}, "b"),
        (CLOSED | {"error": "f"}, OFFERED, "f"),
        ({"error": "f"}, {"error": "b"}, "b"),
    ],
)
def test_a_reason_is_told_at_once_the_backends_first(front, back, told):
    assert Refusals().seen(Ends(front, back)) == told


@pytest.mark.parametrize(("front", "back", "who"), [(CLOSED, OFFERED, "frontend"), (CLOSED, CLOSED, "backend")])
def test_who_gives_no_reason_is_told_of_when_none_has_come_for_a_while(clock, front, back, who):
    refusals = Refusals()
    assert not refusals.seen(Ends(front, back))
    clock.now += SILENT_S - 0.1
    assert not refusals.seen(Ends(front, back))
    clock.now += 0.2
    assert refusals.seen(Ends(front, back)) == f"its {who} closed it, and does not say why"


def test_when_nobody_waits_any_longer_whoever_has_closed_it_has_refused(clock):
    assert not Refusals().seen(Ends({}, OFFERED), last=True)
    assert "its backend closed it" in Refusals().seen(Ends({}, CLOSED), last=True)


def test_a_late_word_of_the_device_before_this_is_no_refusal(clock):
    refusals = Refusals()
    assert not refusals.seen(Ends(CLOSED, {}))
    clock.now += SILENT_S / 2
    assert not refusals.seen(Ends({}, OFFERED))
    clock.now += SILENT_S
    assert not refusals.seen(Ends(CLOSED, OFFERED)), "its time begins anew"
