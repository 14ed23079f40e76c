"""What the machine remembers of ends: how domains' last processes ended, how often broker and zygote died in a row."""

from __future__ import annotations

ENDED_MAX = 4
"""Ends of a domid's processes that are remembered: of the domain and its spare, and of those that a broker asked for
and did not live to record."""
DEATHS_MAX = 5
"""Brokers in a row that may die before they say `up`, zygotes before they fork; then the machine powers off."""


class Ends:
    """Of domains' processes by (domid, incarnation): for a broker that was not there."""

    def __init__(self) -> None:
        self.known: dict[tuple[int, int], tuple[str, str]] = {}
        """How each ended, and what became of its core."""

    def note(self, domid: int, incarnation: int, how: str, core: str) -> None:
        self.known[domid, incarnation] = how, core
        of_this = [process for process in self.known if process[0] == domid]
        for process in of_this[:-ENDED_MAX]:
            del self.known[process]

    def forget(self, domid: int, incarnation: int) -> None:
        """Another process begins under this number."""
        self.known.pop((domid, incarnation), None)


class Vitality:
    """Of broker and zygote: one that cannot live is not forked for ever."""

    def __init__(self) -> None:
        self._deaths = {"broker": 0, "zygote": 0}

    def proved(self, role: str) -> None:
        """It has done what it is for."""
        self._deaths[role] = 0

    def spent(self, role: str) -> bool:
        """One more has died: whether it was one too many."""
        self._deaths[role] += 1
        return self._deaths[role] > DEATHS_MAX
