"""Hypercalls that have come and wait: their callers may reach a quota of XenStore's, and others' changes come first.

Only what asks the store waits so. A domain that renews its watchdog, or binds a port, does it at once.
"""

from __future__ import annotations

from hvd.broker.message_faults import Request
from hvd.transport.hypercalls import HypercallServer
from hvd.transport.ids import DomId


class Withheld:
    """One for each endpoint at most: nothing more is received there meanwhile."""

    def __init__(self) -> None:
        self._by_caller: dict[DomId | None, tuple[HypercallServer, Request]] = {}

    def keep(self, caller: DomId | None, server: HypercallServer, request: Request) -> None:
        """Until it is taken. A caller whose endpoint goes meanwhile asks again, if it lives."""
        self._by_caller[caller] = server, request

    def take(self, caller: DomId | None, server: HypercallServer | None) -> Request | None:
        """What has come by this endpoint; what has come by an older one of the caller's is dropped."""
        kept = self._by_caller.pop(caller, None)
        return kept[1] if kept is not None and kept[0] is server else None
