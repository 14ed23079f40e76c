"""xl's create beyond creating: a dry run, and staying until the domains have ended (xl create -n, -F)."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from hvd.toolstack.cli.change import configs_of
from hvd.toolstack.cli.interrupts import INTERRUPTED, Ended, ended_by_signals
from hvd.toolstack.cli.output import print_json, print_line
from hvd.toolstack.cli.xl_json import config_json
from hvd.toolstack.cluster import Cluster, Domain, DomainInfo
from hvd.toolstack.cluster.domain import ENDED
from hvd.toolstack.cluster.errors import NotRunning


def dry_run(file: Path | None, options: dict[str, object], settings: list[str]) -> None:
    """Print libxl's JSON of each domain that `create` would make of the same words. Nothing is asked of the hypervisor
    but what it has; a refusal of its own, as for want of memory, is not foreseen."""
    with Cluster.attach() as cluster:
        configs = configs_of(cluster, file, options, settings)
    for config in configs:
        print_json(config_json(config))


@contextlib.contextmanager
def interruptible(*, stays: bool) -> Iterator[None]:
    """Around a create that `stays`: a signal ends it with status 130, whatever it is about; what is created remains."""
    if not stays:
        yield
        return
    try:
        with ended_by_signals():
            yield
    except Ended:
        sys.exit(INTERRUPTED)


def stay(domains: Iterable[Domain], *, quiet: bool) -> None:
    """Until each is gone, or has died and nothing starts it again; restarts are waited through."""
    left = {domain.domid: domain.name for domain in domains}
    with contextlib.suppress(NotRunning), Cluster.attach() as cluster, cluster.events() as events:
        while left:
            infos = cluster.infos()
            for domid in list(left):
                info = infos.get(domid)
                if info is None or info.state in ENDED:
                    _say(f"{left.pop(domid)} (domid {domid}) {_how(info)}", quiet=quiet)
            if left:
                events.next_until(None)
    for domid, name in left.items():
        _say(f"{name} (domid {domid}) is gone with its cluster", quiet=quiet)


def _how(info: DomainInfo | None) -> str:
    return "is gone" if info is None else f"is {info.state_text}: {info.last_death}"


def _say(text: str, *, quiet: bool) -> None:
    if not quiet:
        print_line(text)
