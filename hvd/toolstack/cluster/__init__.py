"""A cluster from the outside: start it, look at it, change it, wait for it, end it."""

from hvd.toolstack.cluster.cluster import Cluster
from hvd.toolstack.cluster.domain import Domain, DomainInfo, DomainState
from hvd.toolstack.cluster.errors import BadRunDir, ClusterError, NoSuchDomain, NotReached, NotRunning, StartFailed
from hvd.toolstack.cluster.events import EventStream, LifecycleEvent

__all__ = [
    "BadRunDir",
    "Cluster",
    "ClusterError",
    "Domain",
    "DomainInfo",
    "DomainState",
    "EventStream",
    "LifecycleEvent",
    "NoSuchDomain",
    "NotReached",
    "NotRunning",
    "StartFailed",
]
