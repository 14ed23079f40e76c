"""A cluster from the outside: start it, look at it, change it, wait for it, end it.

The public names are loaded when they are asked for: `hvd up` orders its machine with a few light modules of this
package, and loads the rest while the machine boots.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hvd.toolstack.cluster.cluster import Cluster
    from hvd.toolstack.cluster.domain import Domain, DomainInfo, DomainState
    from hvd.toolstack.cluster.errors import (
        BadInput,
        BadRunDir,
        BadTraceFile,
        ClusterError,
        DeviceInUse,
        DeviceRefused,
        MissingPackage,
        NoSuchDomain,
        NotReached,
        NotRunning,
        NoUplink,
        StartFailed,
    )
    from hvd.toolstack.cluster.events import EventStream, LifecycleEvent

__all__ = [
    "BadInput",
    "BadRunDir",
    "BadTraceFile",
    "Cluster",
    "ClusterError",
    "DeviceInUse",
    "DeviceRefused",
    "Domain",
    "DomainInfo",
    "DomainState",
    "EventStream",
    "LifecycleEvent",
    "MissingPackage",
    "NoSuchDomain",
    "NoUplink",
    "NotReached",
    "NotRunning",
    "StartFailed",
]
_MODULES = {
    "Cluster": "cluster",
    **dict.fromkeys(("Domain", "DomainInfo", "DomainState"), "domain"),
    **dict.fromkeys(("EventStream", "LifecycleEvent"), "events"),
}
"""Where the names are; all others are errors."""


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'errors')}"), name)
