"""Named services: of the domains that name one, a single one is active, and the next stands by for its death.

Who is active stands below `/local/service/NAME`, which everybody reads: `active` (its domid, empty: nobody), `name`,
`incarnation`, and `epoch`, a number that rises with each that becomes active. `data` belongs to the active one alone:
at its death everything there changes its owner, so that nobody who was active can write there, however late it comes.
Another is chosen behind the fence, in the command that takes in the death: there are never two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvd.broker.domain import Domain
from hvd.broker.store import Store
from hvd.transport.ids import DOM0, DomId
from hvd.transport.records import dataclass, field

if TYPE_CHECKING:
    from hvd.broker.lives import Lives

ROOT = "/local/service"


@dataclass(slots=True)
class Service:
    """One name."""

    epoch: int = 0
    active: DomId | None = None
    standing: list[DomId] = field(default_factory=list)
    """Those that are ready to be active, in the order in which they became so."""


def stands(lives: Lives, domain: Domain) -> None:
    """A domain does what it is for: it is active, or stands by for whoever is."""
    name = domain.config.service
    if not name:
        return
    service = lives.services.setdefault(name, Service())
    service.standing.append(domain.domid)
    if service.active is None:
        _elect(lives, name, service)


def died(lives: Lives, domain: Domain) -> None:
    """No thread of it is left: whoever has stood by longest is active in its place."""
    for name, service in lives.services.items():
        if domain.domid in service.standing:
            service.standing.remove(domain.domid)
        if service.active == domain.domid:
            _elect(lives, name, service)


def removed(lives: Lives) -> None:
    """A domain is no more: a service goes with the last that names it."""
    named = {domain.config.service for domain in lives.domains.values()}
    for name in [name for name, service in lives.services.items() if name not in named and service.active is None]:
        del lives.services[name]
        lives.store.rm(DOM0, 0, f"{ROOT}/{name}")


def describe(lives: Lives, domain: Domain) -> str:
    """For people: "" for a domain that names none."""
    name = domain.config.service
    service = lives.services.get(name)
    if not name or service is None:
        return name
    if service.active == domain.domid:
        return f"{name}: active, epoch {service.epoch}"
    return f"{name}: stands by" if domain.domid in service.standing else name


def _elect(lives: Lives, name: str, service: Service) -> None:
    service.active = service.standing.pop(0) if service.standing else None
    domain = None if service.active is None else lives.domains[service.active]
    if domain is not None:
        service.epoch += 1
        lives.announce("active", domain, f"service {name}, epoch {service.epoch}")
    _write(lives.store, f"{ROOT}/{name}", domain, service.epoch)


def _write(store: Store, home: str, domain: Domain | None, epoch: int) -> None:
    """The data's owner first, who is active last: whoever reads that finds all else."""
    if not store.exists(f"{home}/data"):
        store.mkdir(DOM0, 0, f"{home}/data")
        store.set_perms(DOM0, 0, home, ["r0"])
    _give(store, f"{home}/data", DOM0 if domain is None else domain.domid)
    facts = {"epoch": str(epoch)}
    if domain is not None:
        facts |= {"name": domain.name, "incarnation": str(domain.incarnation)}
    for key, value in (facts | {"active": "" if domain is None else str(domain.domid)}).items():
        store.write(DOM0, 0, f"{home}/{key}", value.encode())


def _give(store: Store, path: str, owner: DomId) -> None:
    """All of it changes hands, and counts against the new owner: one that has no room left for more writes no more."""
    waiting = [path]
    while waiting:
        node = waiting.pop()
        store.set_perms(DOM0, 0, node, [f"r{owner}"])
        waiting += [f"{node}/{name}" for name in store.directory(DOM0, 0, node)]
