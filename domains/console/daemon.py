"""The console daemon, xenconsoled's part: finds every console in XenStore and serves it until its domain is gone."""

from __future__ import annotations

import itertools
import select
import time
from collections import deque
from collections.abc import Callable

from hvd.domains.console.backend import ConsoleBackend
from hvd.domains.console.frontend import ConsoleFrontend
from hvd.domains.console.pty import AGAIN_S, NoPty, Pty
from hvd.domains.console.readers import Readers
from hvd.domains.device import Keys
from hvd.domains.runtime import Runtime
from hvd.transport.errors import HvdError, PeerFault
from hvd.transport.ids import DOM0, DomId

TERMINALS_PER_EVENT = 64
"""Ptys served before the domains' rings have their turn."""
SUCCESSION_S = 0.03
"""How long a console waits for its domain's next incarnation: others wait for that, and both need the hypervisor."""
CAME, WENT = "@introduceDomain", "@releaseDomain"
LINGER_S = 1.0
"""How long a pty outlives its domain: closing it takes from whoever is attached what he has not read yet."""


class Console:
    """One domain's console: its backend, and the incarnation whose ring that is attached to."""

    def __init__(self, backend: ConsoleBackend) -> None:
        self.backend = backend
        self.incarnation = ""
        self.watch = ""
        self.attached = False


class ConsoleDaemon:
    """All consoles of the machine, domain 0's own among them."""

    def __init__(self, runtime: Runtime, own: ConsoleFrontend, log: Callable[[str], None]) -> None:
        self._runtime = runtime
        self._store = runtime.store
        self._log = log
        self._consoles: dict[DomId, Console] = {}
        self._by_master: dict[int, ConsoleBackend] = {}
        self._lingering: deque[tuple[float, ConsoleBackend]] = deque()
        self._withheld: deque[tuple[float, DomId]] = deque()
        """When a console's pty is given what waits for it."""
        self._due: dict[DomId, float] = {}
        """When to look at consoles of which something was heard; in this order."""
        self._terminals = select.epoll()
        self._readers = Readers()
        runtime.watch_fd(self._terminals.fileno(), self._pump)
        self._scan_due: float | None = None
        self._heard: set[str] = set()
        """Of domains that came and went, since the last look."""
        for event in (CAME, WENT):
            self._store.watch(event, self._hear_of_domains)
        self.scan()
        for domid in self._consoles:
            self._look(domid)  # before the watches fire: whoever hears that we are ready finds the consoles there
        own.relieve = self._serve_own

    def _hear_of_domains(self, event: str) -> None:
        self._heard.add(event)
        self._store.afterwards(self._scan_in_time)

    def _scan_in_time(self) -> None:
        """At once, unless one came and one went in the same moment: it was started again, and others wait for it."""
        heard, self._heard = self._heard, set()
        if {CAME, WENT} <= heard:
            self._scan_due = time.monotonic() + SUCCESSION_S
        else:
            self.scan()

    def scan(self) -> None:
        """Take up domains that are new, let go of those that are no more."""
        self._scan_due = None
        found = {DomId(int(name)) for name in self._store.directory("/local/domain") if name.isdecimal()}
        for domid in self._consoles.keys() - found:
            self._remove(domid)
        for domid in sorted(found - self._consoles.keys()):
            self._add(domid)

    def patience_s(self) -> float | None:
        """How long to wait before `catch_up` has something to do; None: until something happens."""
        due = [*itertools.islice(self._due.values(), 1), *(at for at, _ in itertools.islice(self._lingering, 1))]
        due += [at for at, _ in itertools.islice(self._withheld, 1)]
        due += [] if self._scan_due is None else [self._scan_due]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def catch_up(self) -> None:
        """Do what has come due: look for domains, attach to new incarnations, close the ptys of who is gone."""
        now = time.monotonic()
        if self._scan_due is not None and self._scan_due <= now:
            self.scan()
        for domid in [domid for domid, at in self._due.items() if at <= now]:
            del self._due[domid]
            self._look(domid)
        while self._withheld and self._withheld[0][0] <= time.monotonic():
            console = self._consoles.get(self._withheld.popleft()[1])
            if console is not None:
                console.backend.pty.flush()
        while self._lingering and self._lingering[0][0] <= time.monotonic():
            _, backend = self._lingering.popleft()
            self._by_master.pop(backend.pty.master, None)
            backend.close()

    def _add(self, domid: DomId) -> None:
        home = f"/local/domain/{domid}"
        keys = {"name": self._store.read_text(f"{home}/name")}
        pty = self._open_pty(domid)
        backend = ConsoleBackend(self._runtime, domid, keys, pty, lambda fault: self._fault(domid, fault))
        self._by_master[pty.master] = backend
        self._consoles[domid] = Console(backend)
        self._consoles[domid].watch = self._store.watch(f"{home}/console/incarnation", lambda _: self._hear(domid))

    def _hear(self, domid: DomId) -> None:
        """A first incarnation has its console at once, a later one soon."""
        console = self._consoles.get(domid)
        if console is not None and console.incarnation:
            self._due.setdefault(domid, time.monotonic() + SUCCESSION_S)
        else:
            self._look(domid)

    def _open_pty(self, domid: DomId) -> Pty:
        try:
            withholds = lambda: self._withheld.append((time.monotonic() + AGAIN_S, domid))  # noqa: E731
            return Pty(self._terminals, self._readers, withholds)
        except OSError as error:
            self._log(f"console of domain {domid}: no pty ({error.strerror}): nobody can attach to it, its log goes on")
            return NoPty()

    def _look(self, domid: DomId) -> None:
        """Follow the domain from incarnation to incarnation."""
        console = self._consoles.get(domid)
        if console is None:
            return  # all watches are called when events were lost, ones just taken back too
        keys = self._store.read_all(f"/local/domain/{domid}/console")
        incarnation = keys.get("incarnation", "")
        if incarnation in ("", console.incarnation):
            return
        self._detach(console)
        console.incarnation = incarnation
        console.attached = True
        try:
            console.backend.attach(keys)
            self._publish(domid, console.backend.features())
        except (HvdError, KeyError, ValueError) as error:
            self._log(f"console of domain {domid}: {error}")
            self._detach(console)

    def _publish(self, domid: DomId, keys: Keys) -> None:
        home = f"/local/domain/{domid}"
        self._store.write_all(f"{home}/console", keys)
        if self._store.read(f"{home}/domid") is None:
            self._store.remove(home)  # the domain had gone meanwhile, and our write made its directories anew

    def _fault(self, domid: DomId, fault: PeerFault) -> None:
        """The domain broke its ring: it has no console until its next incarnation."""
        self._log(f"console of domain {domid}: {fault}")
        self._detach(self._consoles[domid])

    def _remove(self, domid: DomId) -> None:
        console = self._consoles.pop(domid)
        self._store.unwatch(console.watch)
        self._detach(console)
        console.backend.pty.end()
        self._lingering.append((time.monotonic() + LINGER_S, console.backend))

    def _detach(self, console: Console) -> None:
        if console.attached:
            console.attached = False
            console.backend.detach()

    def _pump(self) -> None:
        for master, ready in self._terminals.poll(0, TERMINALS_PER_EVENT):
            self._by_master[master].pump(ready)

    def _serve_own(self) -> None:
        console = self._consoles.get(DOM0)
        if console is not None:
            console.backend.serve()
