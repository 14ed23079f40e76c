"""What follows a death: one table of what ended a domain and what its on_* key says, and who goes with it in its group.

Pure: given a domain's record, a row. aftermath.py carries it out; docs/supervision.md shows these tables, written from
them.

The on_* key decides whether a death is repaired at all, the group who is restarted with it. So a group never brings
back what its own key lets go, and a domain that was asked to stop, or to boot again, concerns nobody else.
"""

from __future__ import annotations

from enum import StrEnum

from hvd.broker.domain import ACTING, ALIVE, Domain, Life, Shutdown
from hvd.broker.restarts import RESTARTING, Action, action_for
from hvd.transport.ids import DOM0
from hvd.transport.records import dataclass


class Cause(StrEnum):
    """What ended a domain, the strongest first: the first that holds is the one that counts."""

    DESTROYED = "destroyed"
    """`hvd destroy`, at any time before its death."""
    REFUSED = "may not run"
    """It lacks a layer of its sandbox that is required of it."""
    MACHINE = "domain 0 ends for good"
    """It is domain 0, and powers off, reboots, or is not to be started again."""
    GROUP_FAILED = "its group failed"
    GROUP_RESTARTS = "its group restarts"
    """It was stopped because of another's fault."""
    ASKED = "asked for"
    """SHUTDOWN_poweroff, reboot, suspend, soft_reset: by itself, or as `hvd shutdown` and `hvd reboot` ask."""
    FAULT = "fault"
    """SHUTDOWN_crash or watchdog, a hang, a signal, or an end without a word."""


class Own(StrEnum):
    """What becomes of it."""

    REMOVED = "it is forgotten"
    FAILED = "it is failed"
    KEPT = "it is kept as it died"
    RESTARTED = "it is started again"
    RENAMED = "it is kept under another name, and another started in its place"
    AWAITS = "it is started again when all that are stopped with it are gone"
    MACHINE_STOPS = "the machine powers off, or reboots as it asked"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    cause: Cause
    actions: frozenset[Action]
    """Of its on_* key."""
    own: Own
    with_group: bool
    """Whether its group restarts whom its strategy names."""


ANY = frozenset(Action)
REMOVING = frozenset({Action.DESTROY, Action.COREDUMP_DESTROY})
KEEPING = frozenset({Action.PRESERVE})
AGAIN = frozenset({Action.RESTART, Action.COREDUMP_RESTART})
RENAMING = frozenset({Action.RENAME_RESTART})

TABLE = (
    Row(Cause.DESTROYED, ANY, Own.REMOVED, False),
    Row(Cause.REFUSED, ANY, Own.FAILED, False),
    Row(Cause.MACHINE, ANY, Own.MACHINE_STOPS, False),
    Row(Cause.GROUP_FAILED, ANY, Own.FAILED, False),
    Row(Cause.GROUP_RESTARTS, ANY, Own.AWAITS, False),
    Row(Cause.ASKED, REMOVING, Own.REMOVED, False),
    Row(Cause.ASKED, KEEPING, Own.KEPT, False),
    Row(Cause.ASKED, AGAIN, Own.RESTARTED, False),
    Row(Cause.ASKED, RENAMING, Own.RENAMED, False),
    Row(Cause.FAULT, REMOVING, Own.REMOVED, False),
    Row(Cause.FAULT, KEEPING, Own.KEPT, False),
    Row(Cause.FAULT, AGAIN, Own.RESTARTED, True),
    Row(Cause.FAULT, RENAMING, Own.RENAMED, True),
)


def decide(domain: Domain) -> Row:
    """The row for a domain that has just died."""
    cause, action = _cause(domain), action_for(domain)
    if domain.domid == DOM0 and action is Action.RENAME_RESTART:
        action = Action.RESTART  # there is no other domain 0
    return next(row for row in TABLE if row.cause is cause and action in row.actions)


DOM0_STOPS = frozenset({Shutdown.POWEROFF, Shutdown.REBOOT})
"""Reasons of dom0's end that are the whole machine's; so is any end that is not followed by a restart."""
FAULTS = frozenset({Shutdown.CRASH, Shutdown.WATCHDOG, None})


def _cause(domain: Domain) -> Cause:
    if domain.destroying:
        return Cause.DESTROYED
    if domain.refused:
        return Cause.REFUSED
    if domain.domid == DOM0 and (domain.shutdown in DOM0_STOPS or action_for(domain) not in RESTARTING):
        return Cause.MACHINE
    if domain.given_up:
        return Cause.GROUP_FAILED
    if domain.regroup_at_ns is not None:
        return Cause.GROUP_RESTARTS
    return Cause.FAULT if domain.shutdown in FAULTS else Cause.ASKED


class Strategy(StrEnum):
    """Whom a group restarts for a fault of one of its members; the names and meanings are Erlang/OTP's."""

    ONE_FOR_ONE = "one_for_one"
    ONE_FOR_ALL = "one_for_all"
    REST_FOR_ONE = "rest_for_one"


def restarted_with(strategy: Strategy, members: list[str], at_fault: str) -> list[str]:
    """Which members a group restarts, in their order, the one at fault among them."""
    match strategy:
        case Strategy.ONE_FOR_ONE:
            return [at_fault]
        case Strategy.ONE_FOR_ALL:
            return members
        case Strategy.REST_FOR_ONE:
            return members[members.index(at_fault) :]


class Escalation(StrEnum):
    """What a group does that has restarted too often."""

    FAIL = "fail"
    """Every domain in it is stopped and failed: only `hvd reboot` or `hvd destroy` move them."""
    PARENT = "parent"
    """For the group that it is a member of this is a fault of that member."""
    REBOOT_MACHINE = "reboot-machine"


class Sibling(StrEnum):
    """What a group that restarts, or fails, does with a domain in it."""

    LEAVE = "it is left alone"
    AWAIT = "it waits with the others"
    STOP = "it is killed, and waits with the others"
    JOIN = "it ends as it does already, and waits with the others"


SIBLINGS: dict[Life, Sibling] = {
    Life.WAITING: Sibling.AWAIT,
    Life.STARTING: Sibling.STOP,
    Life.RUNNING: Sibling.STOP,
    Life.PAUSED: Sibling.STOP,
    Life.DUMPING: Sibling.JOIN,
    Life.DYING: Sibling.JOIN,
    Life.DEAD: Sibling.AWAIT,
    Life.BACKING_OFF: Sibling.AWAIT,
    Life.FAILED: Sibling.LEAVE,
    Life.PRESERVED: Sibling.LEAVE,
}
"""Where nothing stronger holds. Who waits does so until all are gone, and the back-off of who died is over."""


def sibling(domain: Domain) -> Sibling:
    """What its group does with a domain when it restarts or fails.

    Who is destroyed, was asked to stop or boot again, or ends already by what its own key does not repair, has a
    stronger reason for its end than the group.
    """
    if domain.destroying or (domain.life in ACTING and domain.shutdown is not None):
        return Sibling.LEAVE
    if domain.life in ALIVE - ACTING and domain.regroup_at_ns is None and action_for(domain) not in RESTARTING:
        return Sibling.LEAVE
    return SIBLINGS[domain.life]
