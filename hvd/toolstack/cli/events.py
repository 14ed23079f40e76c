"""The command that tells what happens: every event once, filtered, for people or as JSON lines."""

from __future__ import annotations

import re
import sys
import time
from dataclasses import dataclass

from hvd.toolstack.cli.interrupts import Ended, ended_by_signals
from hvd.toolstack.cli.output import event_line, print_json, print_line
from hvd.toolstack.cluster import Cluster
from hvd.toolstack.cluster.domain import full_name
from hvd.toolstack.cluster.errors import NotRunning
from hvd.toolstack.cluster.events import HELLO, KINDS, MISSED, EventStream, LifecycleEvent
from hvd.toolstack.config import ConfigError
from hvd.toolstack.config.problems import Problem

AGO = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smh])", re.ASCII)
NUMBER = re.compile(r"\d{1,18}", re.ASCII)
SECONDS = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events are told."""

    names: frozenset[str]
    """Names and domids of domains; empty: all, and the machine's."""
    kinds: frozenset[str]
    """Empty: all."""
    since_ns: int
    """Wall clock."""

    def has(self, event: LifecycleEvent) -> bool:
        """How much was missed is always told."""
        if event.event in (HELLO, MISSED):
            return event.event == MISSED
        if event.at_ns < self.since_ns or (self.kinds and event.event not in self.kinds):
            return False
        return not self.names or not self.names.isdisjoint((event.name, str(event.domid)))


def events(names: list[str], kinds: list[str], since: str | None, *, follow: bool, as_json: bool | None) -> None:
    """Tell until the machine ends or a signal asks to. JSON unless a terminal reads, or as `as_json` says."""
    after, since_ns = _since(since, follow=follow)
    wanted = Wanted(frozenset(map(full_name, names)), frozenset(map(_kind, kinds)), since_ns)
    json = not sys.stdout.isatty() if as_json is None else as_json
    with Cluster.attach() as cluster, cluster.events(after) as stream, ended_by_signals():
        try:
            _check_names(cluster, wanted.names)
            _tell_all(stream, wanted, follow=follow, as_json=json)
        except (Ended, NotRunning):
            return


def _check_names(cluster: Cluster, names: frozenset[str]) -> None:
    """ConfigError for one that is no domain's, nor of any whom the kept events tell of: nothing would ever be told."""
    infos = sorted(cluster.infos().values(), key=lambda info: info.domid)
    unknown = names - {text for info in infos for text in (info.name, str(info.domid))}
    if not unknown:
        return
    with cluster.events(0) as kept:
        unknown -= {text for event in kept.up_to_now() for text in (event.name, str(event.domid))}
    expected = f"a domain that there is or was: {', '.join(info.name for info in infos)}"
    if problems := [Problem("NAME", "", expected, repr(name)) for name in sorted(unknown)]:
        raise ConfigError(problems)


def _tell_all(stream: EventStream, wanted: Wanted, *, follow: bool, as_json: bool) -> None:
    while (event := stream.next_until(None if follow else time.monotonic())) is not None:
        if wanted.has(event):
            print_json(event.as_dict()) if as_json else print_line(event_line(event))


def _since(text: str | None, *, follow: bool) -> tuple[int | None, int]:
    """(the number to begin behind, the wall clock to begin at). Who does not follow wants what there is."""
    if text is None:
        return (None if follow else 0), 0
    if NUMBER.fullmatch(text):
        return int(text), 0
    ago = AGO.fullmatch(text)
    if ago is None:
        expected = "an event's number (what comes behind it; 0: all that is kept), or how long ago: 30s, 5m, 2h"
        raise ConfigError([Problem("--since", "", expected, repr(text))])
    return 0, time.time_ns() - int(float(ago[1]) * SECONDS[ago[2]] * 1e9)


def _kind(text: str) -> str:
    kind = text.strip().replace("-", " ")
    if kind not in KINDS:
        listed = ", ".join(each.replace(" ", "-") for each in KINDS)
        raise ConfigError([Problem("--kind", "", f"one of {listed}", repr(text))])
    return kind
