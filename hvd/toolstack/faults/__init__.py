"""Faults from outside: inject them by name, know whether they took effect, and judge what was lost.

    from hvd.toolstack.faults import FAULTS, inject

    with inject(cluster, "hang", "storage", for_s=2.0) as injection:
        assert injection.wait_activated(), injection.evidence
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hvd.toolstack.faults.fault import BadFault, Fault
    from hvd.toolstack.faults.injection import Injection, inject
    from hvd.toolstack.faults.registry import FAULTS

__all__ = ["FAULTS", "BadFault", "Fault", "Injection", "inject"]
_MODULES = {"FAULTS": "registry", "BadFault": "fault", "Fault": "fault"}


def __getattr__(name: str) -> object:
    """Loaded when asked for: the checker alone needs none of it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'injection')}"), name)
