"""The states either end of a device announces in XenStore (public/io/xenbus.h), and which may follow which."""

from enum import IntEnum


class XenbusState(IntEnum):
    """One end's state, written in decimal to its `state` node."""

    UNKNOWN = 0
    """No node: the end does not exist, or its domain has just died."""
    INITIALISING = 1
    """The toolstack made the device; nobody has looked at it yet."""
    INIT_WAIT = 2
    """The backend has written its features and waits for the frontend's ring."""
    INITIALISED = 3
    """The frontend has published ring and event channel."""
    CONNECTED = 4
    """Requests may flow."""
    CLOSING = 5
    """The end wants to stop, or has seen the other end do so."""
    CLOSED = 6
    """The end has let go of everything shared."""
    RECONFIGURING = 7
    """Part of the device is being changed."""
    RECONFIGURED = 8
    """The change is done."""


def parse_state(untrusted_value: str | None) -> XenbusState:
    """The state in a store node; anything that is not a known state counts as UNKNOWN."""
    if untrusted_value is None:
        return XenbusState.UNKNOWN
    try:
        return XenbusState(int(untrusted_value))
    except ValueError:
        return XenbusState.UNKNOWN
