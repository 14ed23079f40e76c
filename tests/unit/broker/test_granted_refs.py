"""Granted refs by stretches are what a dictionary of them would be, in as few stretches as can be."""

from __future__ import annotations

import pickle
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvd.broker.granted_refs import GrantedRefs
from hvd.transport.ids import GrantRef

ONE, OTHER = "one extent", "another"
Step = tuple[str, int, int, str]
STEPS = st.lists(st.tuples(
    st.sampled_from(("add", "remove")), st.integers(0, 40), st.integers(1, 8), st.sampled_from((ONE, OTHER))
))  # fmt: skip


def carried_out(steps: list[Step]) -> tuple[Any, dict[int, str]]:
    refs, model = GrantedRefs(), dict[int, str]()
    taken: Any = refs
    for verb, ref, count, extent in steps:
        wanted = range(ref, ref + count)
        if verb == "add" and not any(number in model for number in wanted):
            taken.add(ref, count, extent)
            model |= dict.fromkeys(wanted, extent)
        elif verb == "remove" and all(model.get(number) == model.get(ref) is not None for number in wanted):
            taken.remove(ref, count)
            for number in wanted:
                del model[number]
    return taken, model


@given(STEPS)
def test_it_is_read_as_a_dictionary_would_be(steps: list[Step]) -> None:
    refs, model = carried_out(steps)
    for each in (refs, pickle.loads(pickle.dumps(refs))):
        assert (list(each), len(each)) == (sorted(model), len(model))
        assert {number: each.get(number) for number in range(-1, 50)} == {n: model.get(n) for n in range(-1, 50)}
        assert all(each[number] == model[number] and number in each for number in model)


@given(STEPS)
def test_there_are_no_two_stretches_that_could_be_one(steps: list[Step]) -> None:
    refs, _ = carried_out(steps)
    stretches = list(zip(refs._starts, refs._ends, refs._extents, strict=True))
    assert all(start < end for start, end, _ in stretches)
    for (_, end, extent), (start, _, following) in pairwise(stretches):
        assert end < start or (end == start and extent != following)


def test_pages_that_are_granted_one_by_one_are_one_stretch() -> None:
    refs, _ = carried_out([("add", number, 1, ONE) for number in range(1000)])
    assert (refs._starts, refs._ends) == ([0], [1000])


def test_what_is_not_granted_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        GrantedRefs()[GrantRef(8)]
