"""Exactly once: each caller's last sequence number and its answer, so that a repeat is not carried out again."""

from __future__ import annotations

from typing import Any

from hvd.broker.answers import Descriptors
from hvd.transport.codec import pack_reply
from hvd.transport.ids import DomId, Incarnation
from hvd.transport.limits import TOOLSTACK_CLIENTS_MAX
from hvd.transport.records import dataclass, field

TOOLSTACK = "t:"


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to one sequence number."""

    sequence: int
    errno: int
    value: Any
    descriptors: Descriptors = ()

    def packed(self) -> bytes:
        """As it goes to the caller."""
        return pack_reply(self.sequence, self.errno, self.value, len(self.descriptors))


@dataclass(slots=True)
class Suspect:
    """A hypercall that brokers died over: its number, and how many of them were killed by nobody else."""

    sequence: int
    found_open: int = 0
    crashed: int = 0


def domain_session(domid: DomId, incarnation: Incarnation) -> str:
    return f"d:{domid}.{incarnation}"


def store_session(domid: DomId, incarnation: Incarnation) -> str:
    """Of what a domain asks by XenStore's socket or ring."""
    return f"x:{domid}.{incarnation}"


def toolstack_session(client: bytes) -> str:
    return TOOLSTACK + client.hex()[:60]


@dataclass(slots=True)
class Sessions:
    """Last replies by caller: one for each living incarnation, a bounded number of toolstack programs.

    Of journaled hypercalls only: all others may be carried out twice, and leave no trace here.
    """

    last: dict[str, Reply] = field(default_factory=dict)
    suspects: dict[str, Suspect] = field(default_factory=dict)

    def reply(self, session: str) -> Reply | None:
        return self.last.get(session)

    def remember(self, session: str, reply: Reply) -> None:
        """The newest stand last; of the toolstack's, the one unused longest is forgotten past the bound."""
        self.last.pop(session, None)
        self.last[session] = reply
        self.suspects.pop(session, None)
        if session.startswith(TOOLSTACK):
            known = [s for s in self.last if s.startswith(TOOLSTACK)]
            if len(known) > TOOLSTACK_CLIENTS_MAX:
                self.forget(known[0])

    def suspect(self, session: str, sequence: int, *, crashed: bool) -> Suspect:
        """A broker died while it carried this hypercall out; `crashed`: of itself."""
        suspect = self.suspects.pop(session, None)
        if suspect is None or suspect.sequence != sequence:
            suspect = Suspect(sequence)
        suspect.found_open += 1
        suspect.crashed += crashed
        self.suspects[session] = suspect
        if len(self.suspects) > TOOLSTACK_CLIENTS_MAX:
            del self.suspects[next(iter(self.suspects))]
        return suspect

    def forget(self, session: str) -> None:
        self.last.pop(session, None)
        self.suspects.pop(session, None)
