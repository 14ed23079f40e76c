"""What a process is told that it lacks by the namespaces it was born into: all that follows goes by it."""

from __future__ import annotations

import pytest

from hvd.domains.sandbox.namespaces import FLAGS, OFF, Namespaces

EVERYTHING = sum(FLAGS.values())


@pytest.mark.parametrize("name", FLAGS)
def test_a_namespace_that_was_switched_off_is_lacking(name):
    assert Namespaces().lacking(EVERYTHING & ~FLAGS[name], {name}) == {name: OFF}


@pytest.mark.parametrize("name", sorted(set(FLAGS) - {"user"}))
def test_a_namespace_that_was_refused_is_lacking_for_another_reason(name):
    assert Namespaces().lacking(EVERYTHING & ~FLAGS[name], ()) == {name: "the kernel refuses such a namespace"}


def test_one_born_into_all_of_them_lacks_none():
    assert Namespaces().lacking(EVERYTHING, ()) == {}
