"""What may be changed of a domain that exists without ending it: its name, and what its next start is made of."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from hvd.broker.domain import Domain
from hvd.broker.errors import Refused
from hvd.broker.store import StoreError
from hvd.transport.ids import DOM0, DomId

if TYPE_CHECKING:
    from hvd.broker.lives import Lives
    from hvd.transport.messages import DomainConfig


def rename(h: Lives, dom: DomId, name: str) -> None:
    """Another name, and the same domain. EINVAL or EEXIST change nothing."""
    domain = h.domain(dom)
    if dom == DOM0:
        raise Refused(errno.EPERM, "Domain-0 keeps its name")
    h.check_name(name)
    old, domain.name, domain.config = domain.name, name, replace(domain.config, name=name)
    for other in h.domains.values():
        _name_anew(other, old, name)
    if h.store.is_introduced(dom):
        _write_name(h, domain)
    h.hardware.announce("renamed", domain, f"it was {old}")
    h.collect_store_events()


def set_config(h: Lives, dom: DomId, config: DomainConfig) -> None:
    """What the domain is made of when it starts next. EINVAL changes nothing."""
    domain = h.domain(dom)
    if config.name != domain.name:
        text = f"the configuration is of {config.name!r}, the domain is {domain.name!r}: `hvd rename` renames it"
        raise Refused(errno.EINVAL, text)
    if dom == DOM0:
        raise Refused(errno.EPERM, "what Domain-0 is made of is said when the machine is started")
    h.check_config(config)
    domain.config = config
    h.hardware.announce("configured", domain, "from its next start on")


def _name_anew(domain: Domain, old: str, new: str) -> None:
    config = domain.config
    if old in config.after or any(device.backend == old for device in config.devices):
        devices = [replace(d, backend=new) if d.backend == old else d for d in config.devices]
        domain.config = replace(config, after=_with(config.after, old, new), devices=devices)


def _with(names: Sequence[str], old: str, new: str) -> list[str]:
    return [new if name == old else name for name in names]


def _write_name(h: Lives, domain: Domain) -> None:
    h.store.write(DOM0, 0, f"/local/domain/{domain.domid}/name", domain.name.encode())
    for device, backend in h.own_devices(domain):
        path = f"/local/domain/{backend}/backend/{device.kind}/{domain.domid}/{device.devid}"
        try:
            h.store.read(DOM0, 0, path)
        except StoreError:
            continue  # it is made at its next start
        h.store.write(DOM0, 0, f"{path}/domain", domain.name.encode())
