"""Exactly once: each caller's last sequence number and its answer, so that a repeat is not carried out again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hvd.broker.dispatch import Descriptors
from hvd.transport.ids import DomId, Incarnation
from hvd.transport.limits import TOOLSTACK_CLIENTS_MAX

TOOLSTACK = "t:"


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to one sequence number."""

    sequence: int
    errno: int
    value: Any
    descriptors: Descriptors = ()


def domain_session(domid: DomId, incarnation: Incarnation) -> str:
    return f"d:{domid}.{incarnation}"


def toolstack_session(client: bytes) -> str:
    return TOOLSTACK + client.hex()[:60]


@dataclass(slots=True)
class Sessions:
    """Last replies by caller: one for each living incarnation, a bounded number of toolstack programs."""

    last: dict[str, Reply] = field(default_factory=dict)

    def reply(self, session: str) -> Reply | None:
        return self.last.get(session)

    def remember(self, session: str, reply: Reply) -> None:
        """The newest stand last; of the toolstack's, the one unused longest is forgotten past the bound."""
        self.last.pop(session, None)
        self.last[session] = reply
        if session.startswith(TOOLSTACK):
            known = [s for s in self.last if s.startswith(TOOLSTACK)]
            if len(known) > TOOLSTACK_CLIENTS_MAX:
                del self.last[known[0]]

    def forget(self, session: str) -> None:
        self.last.pop(session, None)
