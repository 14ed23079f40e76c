"""What may be changed of a domain that exists without ending it: its name, and what its next start is made of."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hvd.broker import device_changes, spares
from hvd.broker.domain import ACTING, Domain
from hvd.broker.errors import Refused
from hvd.broker.store import StoreError
from hvd.transport.ids import DOM0, DomId
from hvd.transport.records import replace
from hvd.transport.upcalls import TOOLSTACK

if TYPE_CHECKING:
    from hvd.broker.hypervisor import Hypervisor
    from hvd.broker.lives import Lives
    from hvd.transport.messages import DomainConfig

TRIGGERS = ("power", "reset", "nmi")
"""Of xl's triggers those that mean something to a process."""
POWER_GRACE_MS = 10_000
"""How long a domain may take whose power button was pressed."""
SYSRQ = "control/sysrq"


def rename(h: Lives, dom: DomId, name: str) -> None:
    """Another name, and the same domain. EINVAL, EEXIST or EBUSY change nothing."""
    domain = h.domain(dom)
    if dom == DOM0:
        raise Refused(errno.EPERM, "Domain-0 keeps its name")
    h.check_name(name)
    for each in (domain.name, name):
        if (network := h.networks.naming(each)) is not None:
            raise Refused(errno.EBUSY, f"a rule of network {network} names {each}: {domain.name} keeps its name")
    old, domain.name, domain.config = domain.name, name, replace(domain.config, name=name)
    for other in h.domains.values():
        _name_anew(other, old, name)
    h.groups.rename(old, name)
    h.networks.rename_backend(old, name)
    spares.renew(h, domain)
    if h.store.is_introduced(dom):
        _write_name(h, domain)
    h.announce("renamed", domain, f"it was {old}")
    h.collect_store_events()


def set_config(h: Lives, dom: DomId, config: DomainConfig) -> None:
    """What the domain is made of when it starts next, and what can change of its plugged vifs now.

    EINVAL and EBUSY change nothing.
    """
    domain = h.domain(dom)
    if config.name != domain.name:
        text = f"the configuration is of {config.name!r}, the domain is {domain.name!r}: `hvd rename` renames it"
        raise Refused(errno.EINVAL, text)
    if dom == DOM0:
        raise Refused(errno.EPERM, "what Domain-0 is made of is said when the machine is started")
    h.check_config(config)
    at_once = device_changes.replaced(h, domain, config)
    domain.config = config
    domain.memory.asked = None
    spares.renew(h, domain)
    h.announce("configured", domain, f"from its next start on{at_once}")
    h.collect_store_events()


def trigger(h: Hypervisor, dom: DomId, name: str, now_ns: int) -> None:
    """A signal from the machine: `power` asks to power off, `reset` boots again at once, `nmi` is a crash.

    EINVAL for what only real processors have, and for a domain that does not run.
    """
    domain = h.domain(dom)
    if name not in TRIGGERS:
        text = f"trigger {name!r} means nothing to a process; those that do are {', '.join(TRIGGERS)}"
        raise Refused(errno.EINVAL, text)
    if dom == DOM0 or domain.life not in ACTING:
        who = "Domain-0 has no such line" if dom == DOM0 else f"domain {domain.name} is {domain.life.name.lower()}"
        raise Refused(errno.EINVAL, f"{who}: no {name}")
    match name:
        case "power":
            h.request_shutdown(dom, reboot=False, grace_ms=POWER_GRACE_MS, now_ns=now_ns)
        case "reset":
            h.reset(dom)
        case "nmi":
            h.crash(dom, "NMI")


def sysrq(h: Hypervisor, dom: DomId, letter: str) -> None:
    """A letter for the domain's kernel, which hears it when it waits (xenbus: control/sysrq)."""
    domain, queue = h.domain(dom), h.upcalls.get(dom)
    if len(letter) != 1 or not letter.isalnum() or not letter.isascii():
        raise Refused(errno.EINVAL, f"sysrq {letter!r}: expected one letter or digit")
    if queue is None or domain.life not in ACTING:
        raise Refused(errno.EINVAL, f"domain {domain.name} is {domain.life.name.lower()}: it hears no sysrq")
    h.store.write(DOM0, 0, f"/local/domain/{dom}/{SYSRQ}", letter.encode())
    queue.add(SYSRQ, TOOLSTACK)
    h.hardware.events_pending(dom)
    h.collect_store_events()


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
