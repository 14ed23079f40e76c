"""`[[group]]` tables: what they say, and every mistake in them by line and key."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hvd.toolstack.cluster.configuration import plan_from_domains
from hvd.toolstack.config import ClusterConfig, ConfigError, Problem
from hvd.transport.messages import DomainConfig, GroupConfig

ABC = "".join(f'[[domain]]\nname = "{name}"\nkernel = "guest.py"\n' for name in "abc")
"""Nine lines: a group behind it begins at line 10."""


def group(*lines: str, name: str = "g", members: str = '["a", "b"]') -> str:
    return "\n".join(["[[group]]", f'name = "{name}"', f"members = {members}", *lines, ""])


def test_a_group_with_only_what_it_must_have_has_the_wires_defaults(cluster: Callable[[str], ClusterConfig]) -> None:
    assert cluster(ABC + group()).groups == (GroupConfig("g", ["a", "b"]),)


def test_every_key_of_a_group_reaches_the_wire(cluster: Callable[[str], ClusterConfig]) -> None:
    keys = ('strategy = "rest_for_one"', "restart_limit = 0", "restart_window_ms = 1", 'escalate = "parent"')
    inner, outer = group(*keys), group('escalate = "reboot-machine"', name="outer", members='["g", "c"]')
    assert cluster(ABC + inner + outer).groups == (
        GroupConfig("g", ["a", "b"], "rest_for_one", 0, 1, "parent"),
        GroupConfig("outer", ["g", "c"], escalate="reboot-machine"),
    )


def test_members_start_in_their_order(cluster: Callable[[str], ClusterConfig]) -> None:
    config = cluster(ABC + group(members='["c", "b"]') + group(name="h", members='["g", "a"]'))
    assert config.start_order == ("c", "b", "a")


@pytest.mark.parametrize(
    ("text", "place", "expected", "found"),
    [
        (group(name="a b"), ("group[0].name", 11), "letters, digits", '"a b"'),
        (group(name="dom0"), ('group[0] "dom0".name', 11), "no other group", "the name of dom0"),
        (group(name="a", members='["b"]'), ('group[0] "a".name', 11), "no other group", 'the name of domain[0] "a"'),
        (group(members="[]"), ('group[0] "g".members', 12), "the names of its members", "none"),
        (group(members='["a", "x"]'), ('group[0] "g".members[1]', 12), "the name of a domain or group", '"x"'),
        (group(members='["dom0"]'), ('group[0] "g".members[0]', 12), "the name of a domain or group", '"dom0"'),
        (group(members='["a", "a"]'), ('group[0] "g".members[1]', 12), "a member of no other group", "has already"),
        (group('strategy = "all"'), ('group[0] "g".strategy', 13), "one of one_for_one, one_for_all", '"all"'),
        (group("restart_limit = -1"), ('group[0] "g".restart_limit', 13), "a whole number from 0", "-1"),
        (group("restart_window_ms = 0"), ('group[0] "g".restart_window_ms', 13), "a whole number from 1", "0"),
        (group('escalate = "panic"'), ('group[0] "g".escalate', 13), "one of fail, parent, reboot-machine", '"panic"'),
        (group('escalate = "parent"'), ('group[0] "g".escalate', 13), "a member of another", '"parent"'),
        (group("limit = 1"), ('group[0] "g".limit', 13), "", ""),
        (group() + group(name="g", members='["c"]'), ('group[1] "g".name', 14), "no other group", 'of group[0] "g"'),
        (group() + group(name="h", members='["b"]'), ('group[1] "h".members[0]', 15), "no other group", 'group[0] "g"'),
        (group(members='["g"]'), ('group[0] "g".members', 12), "groups that are not in themselves", "g in g"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_group_is_told_with_its_place(
    problem: Callable[[str], Problem], text: str, place: tuple[str, int], expected: str, found: str
) -> None:
    told = problem(ABC + text)
    assert (told.key, told.line) == place
    assert expected in told.expected and found in told.found


def test_groups_in_a_circle_are_each_told(problems: Callable[[str], list[Problem]]) -> None:
    told = problems(ABC + group(name="g", members='["h"]') + group(name="h", members='["g", "a"]'))
    assert [each.found for each in told] == ["g in h in g", "h in g in h"]


def test_members_stand_in_an_order_in_which_they_can_start(problem: Callable[[str], Problem]) -> None:
    told = problem(ABC.replace('name = "a"', 'name = "a"\nafter = ["b"]') + group())
    assert (told.key, told.line, told.expected) == ('group[0] "g".members', 13, "members in an order to start in")
    assert told.found in ("a → b → a", "b → a → b")


def test_groups_that_are_made_in_python_are_checked_alike() -> None:
    domains = [DomainConfig("a", "hvd:idle")]
    with pytest.raises(ConfigError) as refused:
        plan_from_domains(domains, "x", groups=[GroupConfig("g", ["a", "b"], strategy="some", escalate="none")])
    assert [(each.file, each.key) for each in refused.value.problems] == [
        ("Cluster.build", 'group[0] "g".strategy'),
        ("Cluster.build", 'group[0] "g".escalate'),
        ("Cluster.build", 'group[0] "g".members[1]'),
    ]
