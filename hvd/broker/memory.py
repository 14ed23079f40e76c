"""What a domain may use of memory: xl's mem-set and mem-max, and its own word on how far it has come.

There is no page that a balloon could hand back. What stands here is the bound on what its process uses: the domain
keeps to it by its own limit (domains/balloon.py), and the machine holds its control group to it where it has one.
XenStore's `memory` directory says what it is asked for, and what it was built with, which it can never exceed.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from hvd.broker.domain import ACTING, ALIVE, Domain
from hvd.broker.errors import Refused
from hvd.broker.spares import renew
from hvd.transport.ids import DOM0, DomId
from hvd.transport.upcalls import TOOLSTACK

if TYPE_CHECKING:
    from hvd.broker.hypervisor import Hypervisor

TARGET = "memory/target"
PAGE_KIB = 4


def set_target(h: Hypervisor, dom: DomId, kib: int) -> None:
    """mem-set: more is there at once, less when the domain has come down to it. EINVAL changes nothing."""
    domain = h.domain(dom)
    memory = domain.memory
    most = memory.static_max if domain.life in ALIVE else domain.built_with_kib()
    if kib > most:
        text = f"memory_dynamic_max ({kib} KiB) must be less than or equal to memory_static_max ({most} KiB)"
        raise Refused(errno.EINVAL, f"domain {domain.name}: {text}: what it has of its `maxmem`, or else `memory`")
    memory.asked = memory.target = memory.maximum = kib
    renew(h, domain)
    if h.store.is_introduced(dom):
        h.store.write(DOM0, 0, f"/local/domain/{dom}/{TARGET}", str(kib).encode())
    _tell(h, domain)
    h.announce("memory target", domain, f"{kib} KiB")
    h.collect_store_events()


def set_maximum(h: Hypervisor, dom: DomId, kib: int) -> None:
    """mem-max: of no use beyond what it was built with, as for a PV guest. EINVAL changes nothing."""
    domain = h.domain(dom)
    if domain.life not in ACTING:
        raise Refused(errno.EINVAL, f"domain {domain.name} is {domain.life.name.lower()}: it has no memory to bound")
    target = domain.memory.target
    if kib < target:
        text = f"memory_static_max ({kib} KiB) must be greater than or equal to memory_dynamic_max ({target} KiB)"
        raise Refused(errno.EINVAL, f"domain {domain.name}: {text}: `hvd mem-set` first")
    domain.memory.maximum = kib
    _tell(h, domain)
    h.announce("memory max", domain, f"{kib} KiB")


def reservation(h: Hypervisor, caller: DomId) -> dict[str, Any]:
    """What the caller may use and what it does: its own pages, those that it has for others included. In KiB."""
    domain, table = h.domain(caller), h.grants.tables.get(caller)
    pages = sum(extent.pages for extent in table.extents.values()) if table is not None else 0
    used = h.hardware.memory_used_kib(domain) + pages * PAGE_KIB
    memory = domain.memory
    return {
        "current": memory.current, "maximum": memory.maximum, "static_max": memory.static_max, "used": used,
    }  # fmt: skip


def set_reservation(h: Hypervisor, caller: DomId, kib: int) -> None:
    """The balloon's word."""
    domain = h.domain(caller)
    if kib > max(domain.memory.maximum, domain.memory.current):
        text = f"{kib} KiB are more than the {domain.memory.maximum} KiB that domain {domain.name} may have"
        raise Refused(errno.EINVAL, text)
    domain.memory.current = kib
    _in_force(h, domain)
    above = f", above its target of {domain.memory.target} KiB" if kib > domain.memory.target else ""
    h.announce("memory", domain, f"{kib} KiB{above}")


def _tell(h: Hypervisor, domain: Domain) -> None:
    """Its balloon hears of it when it waits; its group is bound now."""
    _in_force(h, domain)
    queue = h.upcalls.get(domain.domid)
    if queue is not None:
        queue.add(TARGET, TOOLSTACK)
        h.hardware.events_pending(domain.domid)


def _in_force(h: Hypervisor, domain: Domain) -> None:
    """Nothing before its process has put on its sandbox: then it says so, and is told what has changed since."""
    if domain.life in ACTING and domain.sandbox_lacking is not None:
        h.hardware.bound_memory(domain, domain.memory.bound)
