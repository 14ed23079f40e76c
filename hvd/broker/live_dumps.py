"""`hvd dump-core`: the domain is paused, its core written by the machine, and then it goes on, whatever became of that.

That a core is being written stands in the tables: a broker that dies orders it again, and its successor lets the domain
go on when the machine says that it is over.
"""

from __future__ import annotations

import errno
import posixpath
from typing import TYPE_CHECKING

from hvd.broker.domain import Domain, Life
from hvd.broker.errors import Refused
from hvd.transport.ids import DomId, Incarnation

if TYPE_CHECKING:
    from hvd.broker.hypervisor import Hypervisor
    from hvd.broker.lives import Lives

ENDED = "no core: it ended before its core was written"


def begin(h: Hypervisor, dom: DomId, path: str, now_ns: int) -> None:
    """EINVAL for a domain that does not run or what is no file's path, EBUSY while a core of it is written."""
    domain = h.domain(dom)
    if not path.startswith("/") or "\0" in path or posixpath.basename(path) in ("", ".", ".."):
        raise Refused(errno.EINVAL, f"{path!r} is no absolute path of a file, which a core is to be")
    if domain.core_to:
        raise Refused(errno.EBUSY, f"a core of domain {domain.name} is being written to {domain.core_to}")
    if domain.life not in (Life.RUNNING, Life.PAUSED) or domain.pid is None:
        raise Refused(errno.EINVAL, f"domain {domain.name} is {domain.life.name.lower()}: there is nothing to dump")
    runs = domain.life is Life.RUNNING
    if runs:
        h.pause(dom, now_ns)
    domain.core_to, domain.runs_after_core = path, runs
    h.hardware.dump_live_domain(domain)


def over(h: Hypervisor, domid: DomId, incarnation: Incarnation, said: str, now_ns: int) -> None:
    """The machine says what became of it. Nothing for one that is dead by now, or of whom none was asked for."""
    domain = h.domains.get(domid)
    if domain is None or domain.incarnation != incarnation or not domain.core_to:
        return
    runs = domain.runs_after_core and domain.life is Life.PAUSED
    _forget(domain)
    if runs:
        h.unpause(domid, now_ns)
    h.announce("core dumped", domain, said)


def domain_died(lives: Lives, domain: Domain) -> None:
    """Whoever waits for its core hears that there is none."""
    if domain.core_to:
        _forget(domain)
        lives.announce("core dumped", domain, ENDED)


def _forget(domain: Domain) -> None:
    domain.core_to, domain.runs_after_core = "", False
