#!/usr/bin/env python3
"""Writes docs/supervision.md: when a domain hangs, what follows a death, who is restarted together.

Examples:
  .venv/bin/python scripts/generate_supervision.py            # write the page
  .venv/bin/python scripts/generate_supervision.py --check    # exit status 1 if the page is not what the code says
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from hvd.broker.domain import Life
from hvd.broker.heartbeats import GUEST_PATIENCE, SECOND, SERVER_PATIENCE, Patience, Verdict
from hvd.broker.restarts import Action
from hvd.broker.supervision import ANY, SIBLINGS, TABLE, Cause, Escalation, Row, Strategy
from hvd.transport.limits import HEARTBEAT_MS_LEAST
from hvd.transport.messages import DomainConfig, GroupConfig

PAGE = Path(__file__).resolve().parents[1] / "docs" / "supervision.md"

FOUND = {
    Verdict.BEATING: "it has taken the event",
    Verdict.BUSY: "it has run since the last beat, any of its threads",
    Verdict.STARVED: "a thread of it is runnable, and others have the CPUs",
    Verdict.NAPPING: "it sleeps until a time of its own, or a program that it has started ends; events wait for it",
    Verdict.DEBUGGED: "somebody traces it (`TracerPid`): a debugger, strace, the dumper",
    Verdict.STOPPED: "SIGSTOP",
    Verdict.IN_KERNEL: "uninterruptible (`D`): as a rule a disk",
    Verdict.DEAF: "it waits for a lock, a pipe, a socket; events wait for it",
    Verdict.ASLEEP: "it waits for something else, and nothing waits for it",
    Verdict.UNSEEN: "/proc does not show it (`hidepid`), or it is just ending",
}
CAUSES = {
    Cause.DESTROYED: "`hvd destroy`, at any time before its death",
    Cause.REFUSED: "it lacks a layer of its sandbox that is required",
    Cause.MACHINE: "domain 0 powers off, reboots, or is not to be started again",
    Cause.GROUP_FAILED: "its group has restarted too often, and failed",
    Cause.GROUP_RESTARTS: "it was stopped for another's fault",
    Cause.ASKED: "SHUTDOWN_poweroff, reboot, suspend: by itself or as it was asked",
    Cause.FAULT: "SHUTDOWN_crash, SHUTDOWN_watchdog, a hang, a signal, an end without a word",
}
STRATEGIES = {
    Strategy.ONE_FOR_ONE: "nobody else",
    Strategy.ONE_FOR_ALL: "every member",
    Strategy.REST_FOR_ONE: "the members that start behind it",
}
ESCALATIONS = {
    Escalation.FAIL: "every domain in it is stopped and failed; `hvd reboot` starts one by hand, and the counting anew",
    Escalation.PARENT: "the group that it is a member of restarts it, as for a fault of any member",
    Escalation.REBOOT_MACHINE: "every domain ends, and the cluster boots anew",
}

PAGE_TEXT = """\
# Hangs, deaths and groups

`scripts/generate_supervision.py` writes this page; its tables are the code's (`hvd/broker/heartbeats.py`,
`supervision.py`).

## Heartbeats

Each domain has one, `heartbeat_ms` in the cluster file ({default_ms} ms; {least_ms} or more, 0 for none; in an
xl.cfg, which knows none, 0). The broker raises an event, which every wait of a domain takes, in `guest.wait`,
`guest.sleep`, disk and console I/O alike. At the next beat it looks whether the event was taken. Only if it was not
does it ask the kernel about the process:

{found}

What is found lasts, or does not. It is a hang when it was found at as many beats in a row as this says, without the
domain having run in between; the domain then ends as SHUTDOWN_watchdog, and its `on_watchdog` says what follows:

{patience}

- A driver domain is one with `driver_domain = true` whose devices somebody who lives has; domain 0 is one.
- A guest that computes is never a hang. What a driver domain computes is counted in CPU time, so that load is not
  held against it.
- A stop that is shorter than the heartbeat is never found; one that lasts two beats always, and what is in between by
  when it began.
- Who is paused, is dumped or has not been started is not looked at. A broker that looks more than a beat too late,
  because it, or the machine, stood still, judges nobody, and everybody begins anew.
- A process that is not root cannot see what a domain sleeps for, unless that has a coredump action: all sleep counts
  as a nap then.
- Any of its threads that runs makes a domain busy: a deadlock beside a thread that ticks is not found.

`hvd list -r` shows how a domain was found if it is not beating, `hvd info --heartbeat` all of them, `hvd events` says
`hangs`. The watchdogs that a domain sets itself (SCHEDOP_watchdog) are as in Xen, and know nothing of this.

## What follows a death

The first line that fits. The on_* key decides whether a death is repaired at all, its group who is restarted with it.

{table}

Who cannot be started, because the host refuses or its own keys in XenStore do, is failed, and nobody with it. Without
a group the domain's own `restart_*` keys bound its restarts. For a member's faults the group's limit stands in their
place; the member's back-off remains, and holds those who are restarted with it.

## Groups

```toml
[[group]]
name = "cockpit"
members = ["storage", "ivi", "ic"]   # domains or groups, in the order in which they start
strategy = "rest_for_one"            # {strategy}
restart_limit = {limit}                    # 0: no limit
restart_window_ms = {window_ms}
escalate = "fail"
```

`hvd up` reads them, `cluster = hvd.Cluster.build(domains, groups=[GroupConfig(...)])` takes them. A domain, or a
group, is in one group at most; domain 0 is in none. A fault of a member restarts, beside the member:

{strategies}

They are killed, the last that was started first. When all are gone they start as at power-on: in their order, each
when those that it comes `after` and those that host its backends are ready. What the group does with each:

{siblings}

Stronger than that: who is destroyed, or was asked to shut down or reboot, is left to it; so is who ends already by
what its own key does not repair. A fault of somebody who is started again already is another fault, and counted.

More than `restart_limit` restarts within the window lead to:

{escalations}
"""


def page() -> str:
    """The whole page."""
    group = GroupConfig("", [])
    return PAGE_TEXT.format(
        default_ms=DomainConfig("", "").heartbeat_ms,
        least_ms=HEARTBEAT_MS_LEAST,
        found=table(("found", "when"), ((verdict, FOUND[verdict]) for verdict in Verdict)),
        patience=table(("found", "guest", "driver domain"), (_patience(verdict) for verdict in SERVER_PATIENCE)),
        table=table(("what ended it", "that is", "on_* action", "what follows", "its group"), map(_row, TABLE)),
        strategy=", ".join(Strategy),
        limit=group.limit,
        window_ms=group.window_ms,
        strategies=table(("strategy", "beside it"), STRATEGIES.items()),
        siblings=table(("who is", "what happens to it"), ((_life(life), does) for life, does in SIBLINGS.items())),
        escalations=table(("escalate", "what follows"), ESCALATIONS.items()),
    )


def table(headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (headings, ["---"] * len(headings), *rows))


def _patience(verdict: Verdict) -> tuple[str, str, str]:
    return verdict, _lasting(GUEST_PATIENCE.get(verdict)), _lasting(SERVER_PATIENCE.get(verdict))


def _lasting(patience: Patience | None) -> str:
    if patience is None:
        return "never"
    beats = f"{patience.beats} beat{'s' * (patience.beats > 1)}"
    return f"{beats}, at least {patience.least_ns / SECOND:g} s" if patience.least_ns else beats


def _row(row: Row) -> tuple[str, ...]:
    actions = "any" if row.actions == ANY else ", ".join(action for action in Action if action in row.actions)
    return row.cause, CAUSES[row.cause], actions, row.own, "as its strategy says" if row.with_group else "untouched"


def _life(life: Life) -> str:
    return life.name.lower().replace("_", " ")


if __name__ == "__main__":
    from generated_page import main

    sys.exit(main(PAGE, lambda _: page(), __doc__))
