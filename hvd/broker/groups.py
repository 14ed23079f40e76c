"""Which domains are supervised together, in which order, and how often each group has restarted. Pure state.

A group's members are domains, by name, or other groups; each is a member of one group at most. The order of a group's
members is the order in which they start.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from hvd.broker.restarts import is_within_limit
from hvd.broker.supervision import Escalation, Strategy, restarted_with
from hvd.transport.messages import GroupConfig
from hvd.transport.records import dataclass, field, replace


@dataclass(slots=True)
class Group:
    """One group."""

    config: GroupConfig
    restarted_at_ns: deque[int] = field(default_factory=deque)

    @property
    def escalation(self) -> Escalation:
        return Escalation(self.config.escalate)

    def may_restart(self, now_ns: int) -> bool:
        """Count one more restart, if that is not too many."""
        return is_within_limit(self.restarted_at_ns, self.config.limit, self.config.window_ms, now_ns)

    def reason(self, last: str) -> str:
        """Why it has given up, for people."""
        window_s = self.config.window_ms / 1000
        return f"group {self.config.name}: {self.config.limit} restarts within {window_s:g} s; last: {last}"


class Groups:
    """All groups of a machine."""

    def __init__(self, configs: Iterable[GroupConfig] = ()) -> None:
        self._by_name = {config.name: Group(config) for config in configs}
        self._group_of = {member: group for group in self._by_name.values() for member in group.config.members}

    def of(self, member: str) -> Group | None:
        """The group that a domain, or a group, is a member of; None if it is in none."""
        return self._group_of.get(member)

    def name_of(self, member: str) -> str:
        """The name of that group; empty if it is in none."""
        group = self.of(member)
        return group.config.name if group is not None else ""

    def domains(self, group: Group) -> list[str]:
        """The names of every domain in it, those of its groups too, in start order."""
        return list(self._flatten(group.config.members))

    def restarted(self, group: Group, at_fault: str) -> list[str]:
        """The names of the domains that it restarts for a fault of this member."""
        return list(self._flatten(restarted_with(Strategy(group.config.strategy), group.config.members, at_fault)))

    def family(self, name: str) -> list[str]:
        """The names of all domains that are in a group with this one, however far out."""
        outermost, group = None, self.of(name)
        while group is not None:
            outermost, group = group, self.of(group.config.name)
        return self.domains(outermost) if outermost is not None else []

    def forgive(self, name: str) -> None:
        """Somebody starts this domain by hand: what its groups have counted is over."""
        group = self.of(name)
        while group is not None:
            group.restarted_at_ns.clear()
            group = self.of(group.config.name)

    def rename(self, old: str, new: str) -> None:
        """A domain has another name and stays where it is; a place that `new` had, of one that is gone, is given up."""
        if old not in self._group_of:
            return
        for group in self._by_name.values():
            if old in group.config.members or new in group.config.members:
                kept = [member for member in group.config.members if member != new]
                members = [new if member == old else member for member in kept]
                group.config = replace(group.config, members=members)
        self._group_of[new] = self._group_of.pop(old)

    def has(self, name: str) -> bool:
        """Whether a group is called so."""
        return name in self._by_name

    def _flatten(self, members: Iterable[str]) -> Iterator[str]:
        for member in members:
            if member in self._by_name:
                yield from self._flatten(self._by_name[member].config.members)
            else:
                yield member
