"""What can go wrong between a program and a cluster; each text says who, what, and what to do."""

from __future__ import annotations

from hvd.transport.errors import HvdError


class ClusterError(HvdError):
    """Base of what this package raises."""


class NotRunning(ClusterError):
    """No machine runs in this directory, or it stopped while we were talking to it."""


class StartFailed(ClusterError):
    """The machine, or a domain that had to become ready, did not come up; nothing is left running."""


class NoSuchDomain(ClusterError):
    """No domain has this name or domid (any more)."""


class NotReached(ClusterError):
    """What was waited for cannot come any more, or did not come before the deadline."""


class BadRunDir(ClusterError):
    """The directory cannot be a cluster's: not ours, not a directory, or full of other things."""
