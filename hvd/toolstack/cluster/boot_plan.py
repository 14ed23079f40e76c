"""What a machine is to boot: all that is left of a cluster's description once it is checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hvd.transport.run_dir import Order


@dataclass(frozen=True, slots=True)
class BootPlan:
    """Made by configuration.py, which is not loaded by programs that only attach to what runs."""

    name: str
    configuration: bytes
    """A BootConfig, encoded, as msgpack: the security policy, and dom0 first, each domain behind those it needs."""
    uplinks: list[tuple[str, int]]
    """The TAP devices of the host that its networks have, with their MTU."""
    cpus: list[int]
    """Where the hypervisor's own processes run; none: wherever there is room."""
    held_back: frozenset[str]
    """The domains that do not start by themselves: created paused, or behind one that is."""
    warnings: tuple[str, ...] = ()
    """What of the cluster's file is done without."""

    def order(self, run_dir: Path, *, temporary: bool) -> Order:
        """What a machine is told that is to boot it there."""
        return Order(str(run_dir), self.configuration, temporary, self.uplinks, self.cpus)
