"""When a core is taken of a domain that is to end, and what its death then says. Given its record, a verdict.

An incarnation is killed only when its core is written: until then it is dumping. What it ends by is decided before, and
does not change: a core that cannot be written is one more line in the reason of its death.
"""

from __future__ import annotations

import signal

from hvd.broker.domain import ACTING, Domain
from hvd.broker.restarts import COREDUMPING, action_for
from hvd.transport.messages import DomainConfig


def is_wanted(domain: Domain) -> bool:
    """Whether the on_* action of the end that it is about to meet, or has met, asks for a core."""
    stopped = domain.destroying or domain.given_up or domain.regroup_at_ns is not None
    return not stopped and action_for(domain) in COREDUMPING


def must_be_taken(domain: Domain) -> bool:
    """Whether its process, which is to be killed, is to be dumped first."""
    return domain.life in ACTING and is_wanted(domain)


def may_be_wanted(config: DomainConfig) -> bool:
    """Whether any end of it asks for a core: then it lets itself be traced."""
    return bool(COREDUMPING & {config.on_poweroff, config.on_reboot, config.on_crash, config.on_watchdog})


def reports_faults(config: DomainConfig) -> bool:
    """Whether it waits for its core to be taken when a fatal signal meets it, in place of ending at once."""
    return config.on_crash in COREDUMPING


def core_name(domain: Domain) -> str:
    """The file's name without its suffix; it is that of another core of the same name and incarnation in its place."""
    return f"{domain.name}.{domain.incarnation}"


def describe_death(domain: Domain, how: str, core: str) -> str:
    """The reason for people: why it ended, or else how; then where its core is, or why there is none."""
    reason = how if domain.fault is None else f"killed by {signal.Signals(domain.fault.signal).name}"
    if domain.shutdown is not None:
        reason = domain.shutdown.name.lower()
    said = f"{reason}: {domain.shutdown_text}" if domain.shutdown_text else reason
    if core:
        return f"{said}; {core}"
    if not is_wanted(domain):
        return said
    return f"no core: {how}" if said == how else f"{said}; no core: {how}"
