"""What only looks: domains, the machine, sandboxes, events, traces. None of it changes a table or is journaled."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from hvd.broker import sandboxes, services, spares
from hvd.broker.domain import ALIVE, Domain
from hvd.broker.errors import Refused
from hvd.transport import messages as m
from hvd.transport.ids import DOM0, DomId, Incarnation
from hvd.transport.trace import HYPERVISOR

if TYPE_CHECKING:
    from hvd.broker.hypervisor import Hypervisor


def list_domains(h: Hypervisor, caller: DomId, msg: m.DomctlList, now: int) -> list[dict[str, Any]]:
    return [describe(h, d, now) for d in h.domains.values() if caller in (DOM0, d.domid)]


def describe(h: Hypervisor, domain: Domain, now_ns: int) -> dict[str, Any]:
    """What `hvd list` knows of one domain."""
    return {
        "domid": domain.domid,
        "name": domain.name,
        "state": domain.life.name.lower(),
        "waits_for": h.waits_for(domain),
        "incarnation": domain.incarnation,
        "pid": domain.pid,
        "ready": domain.serves,
        "restarts": domain.restarts,
        "spare": spares.describe(domain),
        "service": services.describe(h, domain),
        "memory": (domain.memory.current if domain.life in ALIVE else domain.next_target_kib()) // 1024,
        "memory_target_kib": domain.memory.target,
        "memory_max_kib": domain.memory.maximum,
        "memory_static_max_kib": domain.memory.static_max,
        "vcpus": domain.config.vcpus,
        "driver_domain": domain.config.driver_domain,
        "kernel": domain.config.kernel,
        "last_death": domain.last_death,
        "uptime_ns": domain.clock.system_time_ns(now_ns) if domain.incarnation else 0,
        "devices": [{"kind": d.kind, "devid": d.devid, "backend": d.backend} for d in domain.config.devices],
        "seclabel": h.xsm.label(domain.domid),
        "denials": h.denials.get(domain.domid, 0),
        "uuid": h.uuid(domain),
        "shutdown": None if domain.shutdown is None else int(domain.shutdown),
        "cpus": domain.config.cpus,
        "io_bps": domain.config.io_bps,
        "group": h.groups.name_of(domain.name),
        "heartbeat_ms": domain.config.heartbeat_ms,
        "heartbeat": h.hardware.heartbeat(domain.domid),
    }


def list_sandboxes(h: Hypervisor, caller: DomId, msg: m.SysctlSandboxes, now: int) -> list[dict[str, Any]]:
    return [sandboxes.describe(domain) for domain in h.domains.values()]


def physinfo(h: Hypervisor, caller: DomId, msg: m.SysctlPhysinfo, now: int) -> dict[str, Any]:
    return {
        "uptime_ns": now - h.booted_ns, "domains": len(h.domains),
        "ports": sum(len(ports) for ports in h.channels.ports.values()),
        "granted_pages": sum(len(table.refs) for table in h.grants.tables.values()),
        "mappings": sum(len(table.mappings) for table in h.grants.tables.values()),
        "extents": sum(len(table.extents) for table in h.grants.tables.values()),
        **policy(h),
        **h.hardware.physinfo(),
    }


def policy(h: Hypervisor) -> dict[str, Any]:
    return {"policy": h.xsm.policy.name, "enforcing": h.xsm.enforcing}


def events(h: Hypervisor, caller: DomId, msg: m.SysctlEvents, now: int) -> dict[str, Any]:
    """A page of what has happened since."""
    page = [list(each) for each in h.events.after(msg.after)]
    return {"booted_ns": h.booted_ns, "last": h.events.last, "events": page}


def trace_buffers(h: Hypervisor, caller: DomId, msg: m.TraceBuffers, now: int) -> dict[str, Any]:
    h.tracing.check(msg.session)
    buffers = [(*HYPERVISOR, "hypervisor", True)]
    buffers += [(d.domid, d.incarnation, d.name, True) for d in h.tracing.traced(h.domains.values())]
    buffers += [(*dead, name, False) for dead, name in h.tracing.kept.items()]
    rows = [[*row, h.hardware.trace_head(row[0], row[1], kept=h.tracing.is_kept(row[0], row[1]))] for row in buffers]
    return {"clock": h.hardware.trace_clock(), "buffers": rows}


def trace_read(h: Hypervisor, caller: DomId, msg: m.TraceRead, now: int) -> list[Any]:
    h.tracing.check(msg.session)
    incarnation = Incarnation(msg.incarnation)
    kept = h.tracing.is_kept(msg.dom, incarnation)
    slots = None
    if kept or any((d.domid, d.incarnation) == (msg.dom, incarnation) for d in h.tracing.traced(h.domains.values())):
        slots = h.hardware.read_trace(msg.dom, incarnation, msg.first, kept=kept)
    if slots is None:
        raise Refused(errno.ENOENT, f"the trace of domain {msg.dom}, incarnation {msg.incarnation}, has gone")
    return slots
