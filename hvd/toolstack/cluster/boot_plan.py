"""What a machine is to boot: all that is left of a cluster's description once it is checked."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BootPlan:
    """Made by configuration.py, which is not loaded by programs that only attach to what runs."""

    name: str
    configuration: bytes
    """A BootConfig, encoded, as msgpack: the security policy, and dom0 first, each domain behind those it needs."""
    held_back: frozenset[str]
    """The domains that do not start by themselves: created paused, or behind one that is."""
