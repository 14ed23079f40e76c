"""Which of the domains that somebody waits for are not ready yet, learned from events and from looking."""

from __future__ import annotations

from pathlib import Path

from hvd.toolstack.cluster.domain import ENDED, DomainInfo, DomainState
from hvd.toolstack.cluster.errors import NotReached
from hvd.toolstack.cluster.events import HELLO, LifecycleEvent
from hvd.transport.ids import DomId, Incarnation
from hvd.transport.run_dir import LOG

LAST_LINES = 5
SERVING = frozenset({DomainState.RUNNING, DomainState.PAUSED})


class Readiness:
    """Domains by domid, each with the least incarnation that counts. No I/O but reading the log of one that failed."""

    def __init__(self, wanted: dict[DomId, Incarnation], run_dir: Path) -> None:
        self._pending = dict(wanted)
        self._run_dir = run_dir
        self._deaths: dict[DomId, tuple[str, str]] = {}
        """Name and last death."""
        self._news_to_come: set[DomId] = set()
        """Whom we have seen since we listen: if one of them is gone, events that we have not read yet say how."""

    @property
    def complete(self) -> bool:
        return not self._pending

    def want(self, created: LifecycleEvent) -> None:
        """Wait for this one, whether it is there yet or not: the events behind this one say what has become of it."""
        domid = DomId(created.domid)
        self._pending.setdefault(domid, Incarnation(1))
        self._news_to_come.add(domid)

    def note(self, event: LifecycleEvent) -> None:
        """Take in news: a domain may become ready and be gone again before anybody looks."""
        domid = DomId(event.domid)
        if event.event == HELLO:
            self._news_to_come.clear()  # a new broker: some may have been lost
        elif event.event == "destroyed":
            self._news_to_come.discard(domid)
        elif event.event == "ready" and event.incarnation >= self._pending.get(domid, event.incarnation + 1):
            del self._pending[domid]
        elif event.event in ("died", "failed"):
            self._deaths[domid] = event.name, event.detail

    def look(self, infos: dict[DomId, DomainInfo]) -> None:
        """Compare with how things are; NotReached when one of them cannot become ready any more."""
        self._news_to_come.update(infos)
        for domid, least in list(self._pending.items()):
            info = infos.get(domid)
            if info is None and domid in self._news_to_come:
                continue
            if info is None:
                raise NotReached(self._told(domid, str(domid), "is gone"))
            if info.ready and info.incarnation >= least and info.state in SERVING:
                del self._pending[domid]
            elif info.state in ENDED:
                self._deaths[domid] = info.name, info.last_death
                raise NotReached(self._told(domid, info.name, f"is {info.state_text} and will not become ready"))

    def names(self, infos: dict[DomId, DomainInfo]) -> str:
        """Who is waited for."""
        return ", ".join(infos[domid].name for domid in self._pending if domid in infos)

    def missing(self, infos: dict[DomId, DomainInfo]) -> str:
        """What is told when the time is over."""
        late = [infos[domid] for domid in self._pending if domid in infos]
        return "; ".join(self._told(info.domid, info.name, f"is {info.state_text}, not ready") for info in late)

    def last_failure(self) -> str:
        """The last death that was heard of, for when the machine itself is gone."""
        domid = next(reversed(self._deaths), None)
        return "" if domid is None else self._told(domid, "", "died")

    def _told(self, domid: DomId, name: str, what: str) -> str:
        known_name, death = self._deaths.get(domid, (name, ""))
        text = f"domain {known_name} (domid {domid}) {what}"
        if death:
            text += f"; its last death: {death}"
        lines = _last_lines(self._run_dir / LOG / f"{known_name}.log")
        return text + "".join(f"\n    {line}" for line in lines)


def _last_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
    except OSError:
        return []
