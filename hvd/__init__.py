"""hvd: Xen's paravirtual architecture carried out by Linux processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hvd.toolstack.chaos.scenario import Scenario
    from hvd.toolstack.cluster import Cluster

__all__ = ["Cluster", "Scenario"]


def __getattr__(name: str) -> object:
    """The classes, loaded when somebody asks: a guest imports hvd too, and must not load the toolstack."""
    if name == "Cluster":
        from hvd.toolstack.cluster import Cluster

        return Cluster
    if name == "Scenario":
        from hvd.toolstack.chaos.scenario import Scenario

        return Scenario
    raise AttributeError(f"module 'hvd' has no attribute {name!r}")
