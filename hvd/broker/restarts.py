"""What happens after a death: xl's on_* actions, the crash-loop limit, the back-off. Given the time, a verdict."""

from __future__ import annotations

from collections import deque
from enum import StrEnum

from hvd.broker.domain import Domain, Shutdown
from hvd.transport.records import dataclass


class Action(StrEnum):
    """xl.cfg's actions for on_poweroff, on_reboot, on_crash and on_watchdog."""

    DESTROY = "destroy"
    RESTART = "restart"
    RENAME_RESTART = "rename-restart"
    PRESERVE = "preserve"
    COREDUMP_DESTROY = "coredump-destroy"
    COREDUMP_RESTART = "coredump-restart"


RESTARTING = frozenset({Action.RESTART, Action.RENAME_RESTART, Action.COREDUMP_RESTART})
COREDUMPING = frozenset({Action.COREDUMP_DESTROY, Action.COREDUMP_RESTART})


@dataclass(frozen=True, slots=True)
class Restart:
    """Start again at this host time."""

    at_ns: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Too many restarts in the window: the domain is failed, with this text for people."""

    text: str


def action_for(domain: Domain) -> Action:
    """The on_* key that the reason of this death selects; a death without a word is a crash."""
    config = domain.config
    match domain.shutdown:
        case Shutdown.POWEROFF:
            return Action(config.on_poweroff)
        case Shutdown.REBOOT:
            return Action(config.on_reboot)
        case Shutdown.WATCHDOG:
            return Action(config.on_watchdog)
        case Shutdown.CRASH | None:
            return Action(config.on_crash)
        case Shutdown.SUSPEND | Shutdown.SOFT_RESET | Shutdown.UNKNOWN:
            return Action.DESTROY


def judge_restart(domain: Domain, now_ns: int) -> Restart | GiveUp:
    """Restart, now or later, or give up: `limit` restarts within `window_ms` are the most (0: no limit).

    A ready domain's reboot counts as none.
    """
    policy = domain.config.restart
    if domain.shutdown is Shutdown.REBOOT and domain.ready:
        return Restart(now_ns)
    if not is_within_limit(domain.restarted_at_ns, policy.limit, policy.window_ms, now_ns):
        window_s = policy.window_ms / 1000
        return GiveUp(f"{policy.limit} restarts within {window_s:g} s; last death: {domain.last_death}")
    return Restart(now_ns + back_off_ns(domain))


def is_within_limit(restarted_at_ns: deque[int], limit: int, window_ms: int, now_ns: int) -> bool:
    """Whether one more restart now is not too many; if so it is counted."""
    while restarted_at_ns and restarted_at_ns[0] <= now_ns - window_ms * 1_000_000:
        restarted_at_ns.popleft()
    if limit:
        if len(restarted_at_ns) >= limit:
            return False
        restarted_at_ns.append(now_ns)
    return True


def back_off_ns(domain: Domain) -> int:
    """How long to wait before it is started again.

    An incarnation that had become ready is replaced at once: its death is a fault, not a broken start. One that died
    before it was ready waits `delay_ms`, doubled each time in a row up to `delay_max_ms`.
    """
    policy = domain.config.restart
    domain.unready_deaths = 0 if domain.ready else domain.unready_deaths + 1
    if domain.unready_deaths == 0:
        return 0
    return min(policy.delay_ms << min(domain.unready_deaths - 1, 20), policy.delay_max_ms) * 1_000_000
