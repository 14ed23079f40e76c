"""Which domains belong together, in which order, and how often."""

from __future__ import annotations

import pytest

from hvd.broker.groups import Groups
from hvd.transport.messages import GroupConfig

MS = 1_000_000
INNER = GroupConfig("inner", ["b", "c"], strategy="rest_for_one", limit=2, window_ms=1000)
OUTER = GroupConfig("outer", ["a", "inner", "d"], strategy="rest_for_one")


@pytest.fixture
def groups() -> Groups:
    return Groups([INNER, OUTER])


def test_a_domain_is_in_the_group_that_names_it_and_that_may_be_in_another(groups):
    assert [groups.name_of(name) for name in ("a", "b", "inner")] == ["outer", "inner", "outer"]
    assert [groups.name_of(name) for name in ("outer", "nobody")] == ["", ""]


def test_its_domains_are_those_of_its_groups_too_in_order(groups):
    outer, inner = groups.of("a"), groups.of("b")
    assert (groups.domains(outer), groups.domains(inner)) == (["a", "b", "c", "d"], ["b", "c"])


@pytest.mark.parametrize(
    ("member", "at_fault", "restarted"),
    [("a", "a", "abcd"), ("a", "inner", "bcd"), ("a", "d", "d"), ("b", "b", "bc"), ("b", "c", "c")],
)
def test_a_group_that_is_at_fault_is_restarted_with_all_its_domains(groups, member, at_fault, restarted):
    assert groups.restarted(groups.of(member), at_fault) == list(restarted)


@pytest.mark.parametrize(("name", "family"), [("a", "abcd"), ("c", "abcd"), ("nobody", "")])
def test_a_family_is_everybody_in_the_outermost_group(groups, name, family):
    assert groups.family(name) == list(family)


def test_a_group_restarts_so_often_within_its_window(groups):
    inner = groups.of("b")
    answers = [inner.may_restart(at * MS) for at in (0, 10, 999, 1000, 1005, 1010)]
    assert answers == [True, True, False, True, False, True]
    assert inner.reason("b: x") == "group inner: 2 restarts within 1 s; last: b: x"


def test_a_group_without_a_limit_restarts_for_ever():
    group = Groups([GroupConfig("g", ["a"], limit=0)]).of("a")
    assert group is not None
    assert all(group.may_restart(1) for _ in range(100))


def test_what_was_counted_is_forgiven_in_every_group_around(groups):
    inner, outer = groups.of("b"), groups.of("a")
    for group in (inner, outer):
        group.may_restart(0)
    groups.forgive("c")
    assert not inner.restarted_at_ns and not outer.restarted_at_ns


def test_a_renamed_domain_stays_where_it_is_in_its_group(groups):
    groups.rename("b", "x")
    assert (groups.name_of("x"), groups.name_of("b")) == ("inner", "")
    assert groups.domains(groups.of("a")) == ["a", "x", "c", "d"]
    assert groups.restarted(groups.of("x"), "x") == ["x", "c"]


def test_a_domain_in_no_group_is_in_none_under_another_name(groups):
    groups.rename("nobody", "x")
    assert (groups.name_of("x"), groups.family("a")) == ("", list("abcd"))


@pytest.mark.parametrize(("gone", "inner"), [("c", ["c"]), ("d", ["d", "c"])])
def test_the_place_of_one_that_is_gone_is_given_up_for_who_takes_its_name(groups, gone, inner):
    groups.rename("b", gone)
    assert groups.domains(groups.of(gone)) == inner
    assert sorted(groups.family("a")) == ["a", "c", "d"]
