"""Runs of grants that a frontend names for its backend: few, and numbers."""

import pytest

from hvd.domains.peer_runs import RUNS, RUNS_NAMED_MAX, named_runs
from hvd.transport.errors import PeerFault


@pytest.mark.parametrize(("text", "refs"), [("9", [9]), ("9 300", [9, 300]), (" 9  9 ", [9, 9]), ("", [])])
def test_refs_are_named_with_spaces_between_them(text, refs):
    assert named_runs({RUNS: text}) == refs


def test_who_names_none_has_none():
    assert named_runs({}) == []


@pytest.mark.parametrize("text", ["x", "-1", "9,300", "4294967296", "1 2 3 4 5", "9" * 200, "9 " * 200])
def test_nonsense_and_more_than_runs_named_max_are_the_frontends_fault(text):
    with pytest.raises(PeerFault, match=RUNS):
        named_runs({RUNS: text})


def test_as_many_as_may_be_are_taken():
    assert len(named_runs({RUNS: " ".join(["7"] * RUNS_NAMED_MAX)})) == RUNS_NAMED_MAX
