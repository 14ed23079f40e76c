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


class DeviceInUse(ClusterError):
    """A domain does not let go of a device, and says why."""


class DeviceRefused(ClusterError):
    """An end of a device that was plugged in will have nothing to do with it, and says why; it was taken away again."""


class CoreDumpFailed(ClusterError):
    """A core could not be written; the domain goes on."""


class BadInput(ClusterError):
    """What was asked for cannot be begun, and nothing was."""


class MissingPackage(BadInput):
    """An optional package is needed; the text says how to install it."""


class BadTraceFile(BadInput):
    """No file can be written there."""


class NoUplink(BadInput):
    """A network's TAP device cannot be had; the text says why, and what would help."""


class BadRunDir(BadInput):
    """The directory cannot be a cluster's: not ours, not a directory, or full of other things."""
