"""Reads the `[[group]]` tables: which domains are supervised together, and what must hold between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import NamedTuple

from hvd.toolstack.config.names import DOM0_NAME, DOM0_NAMES
from hvd.toolstack.config.problems import Place, Report, nearest, shown
from hvd.toolstack.config.table import Table
from hvd.transport.messages import GroupConfig

STRATEGIES = ("one_for_one", "one_for_all", "rest_for_one")
ESCALATIONS = ("fail", "parent", "reboot-machine")
RESTARTS_MAX = 1_000_000
WINDOW_MS_MAX = 86_400_000


class GroupDraft(NamedTuple):
    """A group as read, and where."""

    place: Place
    config: GroupConfig


def read_group(table: Table) -> GroupDraft:
    """One `[[group]]`; whatever is wrong in it is reported and replaced by something that can be read on."""
    name = table.name("name")
    table.report.label(table.place, name)
    default = GroupConfig("", [])
    config = GroupConfig(
        name=name,
        members=table.texts("members", "names of domains or groups"),
        strategy=table.choice("strategy", default.strategy, STRATEGIES),
        limit=table.whole("restart_limit", default.limit, 0, RESTARTS_MAX),
        window_ms=table.whole("restart_window_ms", default.window_ms, 1, WINDOW_MS_MAX),
        escalate=table.choice("escalate", default.escalate, ESCALATIONS),
    )
    table.finish()
    return GroupDraft(table.place, config)


def check_groups(report: Report, groups: list[GroupDraft], domains: Mapping[str, Place]) -> None:
    """Report whatever does not hold: names of their own, members that exist, in one group each, no circle of groups.

    `domains`: where each domain but dom0 stands.
    """
    by_name: dict[str, GroupDraft] = {}
    for group in groups:
        _check_words(report, group)
        name = group.config.name
        taken = domains.get(name) or (by_name[name].place if name in by_name else None)
        if name in DOM0_NAMES or taken:
            found = f"{shown(name)}, the name of {report.spell(taken) if taken else 'dom0'}"
            report.wrong((*group.place, "name"), "a name that no domain and no other group has", found)
        elif name:
            by_name[name] = group
    group_of = _members(report, groups, [*domains, *by_name])
    for group in groups:
        _check_parent(report, group, group_of)


def _check_words(report: Report, group: GroupDraft) -> None:
    """For groups that were made in Python; those of a file have been read so."""
    for key, value, words in (
        ("strategy", group.config.strategy, STRATEGIES), ("escalate", group.config.escalate, ESCALATIONS)
    ):  # fmt: skip
        if value not in words:
            report.wrong((*group.place, key), f"one of {', '.join(words)}", shown(value), nearest(value, words))


def _members(report: Report, groups: list[GroupDraft], known: list[str]) -> dict[str, GroupDraft]:
    """The group of each member."""
    group_of: dict[str, GroupDraft] = {}
    for group in groups:
        if not group.config.members:
            report.wrong((*group.place, "members"), "the names of its members", "none")
        for index, member in enumerate(group.config.members):
            place: Place = (*group.place, "members", index)
            first = group_of.setdefault(member, group)
            if member in DOM0_NAMES:
                hint = f"{DOM0_NAME} is restarted alone, or the machine with it"
                report.wrong(place, "the name of a domain or group", shown(member), hint)
            elif member not in known:
                report.wrong(place, "the name of a domain or group", shown(member), nearest(member, known))
            elif first is not group or group.config.members.index(member) != index:
                found = f"{shown(member)}, which {report.spell(first.place)} has already"
                report.wrong(place, "a member of no other group", found)
    return group_of


def _check_parent(report: Report, group: GroupDraft, group_of: Mapping[str, GroupDraft]) -> None:
    parent = group_of.get(group.config.name)
    if group.config.escalate == "parent" and parent is None:
        report.wrong((*group.place, "escalate"), '"parent" in a group that is a member of another', '"parent"')
    seen = [group.config.name]
    while parent is not None and parent.config.name not in seen:
        seen.append(parent.config.name)
        parent = group_of.get(parent.config.name)
    if parent is not None and parent.config.name == group.config.name:
        report.wrong((*group.place, "members"), "groups that are not in themselves", " in ".join([*seen, seen[0]]))


def starts_behind(groups: list[GroupDraft]) -> Iterator[tuple[str, str]]:
    """(domain, the domain that starts before it), as the orders of the groups' members have it."""
    by_name = {group.config.name: group.config for group in groups}

    def domains(member: str, above: tuple[str, ...] = ()) -> list[str]:
        if member not in by_name or member in above:
            return [member] * (member not in by_name)
        return [domain for each in by_name[member].members for domain in domains(each, (*above, member))]

    for name in by_name:
        yield from ((later, earlier) for earlier, later in pairwise(domains(name)) if earlier != later)
