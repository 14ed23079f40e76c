"""Which handler answers which hypercall, who may make it, and whether it changes anything worth a journal record."""

from __future__ import annotations

import errno
from collections.abc import Callable
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from hvd.broker import changes, hotplug, listing, live_dumps, memory, network_listing, sysctl, usage
from hvd.broker.answers import Answer
from hvd.broker.directories import plain_nodes
from hvd.broker.domain import subject
from hvd.broker.errors import Refused
from hvd.broker.event_channels import VIRQ_UPCALL
from hvd.broker.grant_tables import UnmapNotify
from hvd.broker.multicall import carry_out
from hvd.broker.store import StoreError
from hvd.broker.xsm_hooks import ask, ask_copy
from hvd.transport import messages as m
from hvd.transport.codec import BadMessage, encode, unpack_call
from hvd.transport.ids import DOM0, GRANT_REF_XENSTORE, DomId, Port
from hvd.transport.limits import WATCHDOGS_MAX
from hvd.transport.machine_link import uplink_key
from hvd.transport.records import dataclass

if TYPE_CHECKING:
    from hvd.broker.hypervisor import Hypervisor

NAMES_MAX = 4096
"""Children of a directory whose names one hypercall lists: a tenth of a millisecond. DIRECTORY_PART lists more."""
Handler = Callable[["Hypervisor", DomId, Any, int], Any]
"""Takes tables, caller, message and time; returns a value or an `Answer`; raises Refused."""


class Privilege(Enum):
    """Who may make a hypercall."""

    ANY = auto()
    """Every domain, about itself; or whoever the policy lets."""
    SELF = auto()
    """dom0 about any domain, a guest about itself: decided by the message's `dom`."""
    DOM0 = auto()
    """dom0 and the toolstack."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the table."""

    privilege: Privilege
    journaled: bool
    handler: Handler


def handle(hypervisor: Hypervisor, caller: DomId, message: Any, now_ns: int) -> Answer:
    """Check the caller's privilege, ask the policy, and do it; Refused says why not.

    What the store fires is queued by then.
    """
    entry = TABLE[type(message)]
    _check_privilege(hypervisor, entry.privilege, caller, message)
    ask(hypervisor, caller, message)
    try:
        value = entry.handler(hypervisor, caller, message, now_ns)
    except StoreError as error:
        raise Refused(error.errno, error.text) from None
    except OSError as error:
        raise Refused(error.errno or errno.EIO, f"the host refused: {error.strerror}") from None
    except BadMessage as error:
        raise Refused(errno.EBADMSG, str(error)) from None
    return value if isinstance(value, Answer) else Answer(value, ())


def is_journaled(message: Any) -> bool:
    """Reads inside a transaction count too: what was read decides whether it may commit."""
    if isinstance(message, m.Multicall):
        try:
            return any(is_journaled(unpack_call(call)) for call in message.calls)
        except BadMessage:
            return False  # it was refused as a whole
    return TABLE[type(message)].journaled or bool(getattr(message, "tx", 0))


def _check_privilege(hypervisor: Hypervisor, privilege: Privilege, caller: DomId, message: Any) -> None:
    if caller == DOM0 or privilege is Privilege.ANY:
        return
    if privilege is Privilege.SELF and subject(caller, message.dom) == caller:
        return
    needed = "domain 0, or its own domid" if privilege is Privilege.SELF else "domain 0"
    raise Refused(errno.EPERM, f"domain {caller} may not {type(message).__name__}: that takes {needed}")


# ---- event channels --------------------------------------------------------------------------------------------------


def _channel_end(hypervisor: Hypervisor, dom: DomId, port: Any) -> Answer:
    binding = hypervisor.channels.ports[dom][port]
    key, base = f"channel:{binding.channel}", 1 + 2 * binding.side
    if binding.virq is not None:
        return Answer({"port": port, "side": binding.side}, ((key, 0), (key, base)))
    return Answer({"port": port, "side": binding.side}, ((key, 0), (key, base), (key, base + 1)))


def _alloc_unbound(h: Hypervisor, caller: DomId, msg: m.EvtchnAllocUnbound, now: int) -> Answer:
    dom = subject(caller, msg.dom)
    h.domain(subject(caller, msg.remote_dom))
    answer = _channel_end(h, dom, h.channels.alloc_unbound(dom, subject(caller, msg.remote_dom)))
    return answer if dom == caller else Answer(answer.value, ())


def _bind_interdomain(h: Hypervisor, caller: DomId, msg: m.EvtchnBindInterdomain, now: int) -> Answer:
    port = h.channels.bind_interdomain(caller, subject(caller, msg.remote_dom), msg.remote_port)
    return _channel_end(h, caller, port)


def _bind_virq(h: Hypervisor, caller: DomId, msg: m.EvtchnBindVirq, now: int) -> Answer:
    if msg.virq == VIRQ_UPCALL:
        raise Refused(errno.EEXIST, "the upcall virq is bound from birth")
    return _channel_end(h, caller, h.channels.bind_virq(caller, msg.virq))


def _evtchn_close(h: Hypervisor, caller: DomId, msg: m.EvtchnClose, now: int) -> None:
    if h.channels.lookup(caller, msg.port).virq == VIRQ_UPCALL:
        raise Refused(errno.EINVAL, f"port {msg.port} is the upcall port, which stays open")
    h.channels.close(caller, msg.port)


def _evtchn_reset(h: Hypervisor, caller: DomId, msg: m.EvtchnReset, now: int) -> None:
    """All but what a domain is born with and could not get back: its upcall port, and its console's while it has it."""
    domain = h.domain(subject(caller, msg.dom))
    for port, binding in list(h.channels.ports.get(domain.domid, {}).items()):
        if binding.virq != VIRQ_UPCALL and binding.channel != domain.console_channel:
            h.channels.close(domain.domid, port)


# ---- grants ----------------------------------------------------------------------------------------------------------


def _gnttab_allocate(h: Hypervisor, caller: DomId, msg: m.GnttabAllocate, now: int) -> Answer:
    peer = subject(caller, msg.peer)
    h.domain(peer)
    extent = h.grants.allocate(caller, peer, msg.pages, readonly=msg.readonly)
    return Answer(extent.id, ((f"extent:{extent.id}", 0),))


def _gnttab_map(h: Hypervisor, caller: DomId, msg: m.GnttabMap, now: int) -> Answer:
    mapped = h.grants.map(caller, subject(caller, msg.dom), msg.ref, msg.count, writable=msg.writable)
    extent = mapped.extent
    value = {
        "handle": mapped.handle, "extent": extent.id, "ref": mapped.ref, "count": mapped.count,
        "first_page": mapped.first_page, "pages": extent.pages, "readonly": extent.readonly,
    }
    index = 1 if extent.readonly else 0
    return Answer(value, ((f"extent:{extent.id}", index),) if mapped.needs_descriptor else ())


def _notify(msg: m.GnttabUnmapNotify | m.GnttabShareNotify) -> UnmapNotify:
    return UnmapNotify(msg.clear_offset if msg.clear else None, Port(msg.port) if msg.port else None)


def _gnttab_copy(h: Hypervisor, caller: DomId, msg: m.GnttabCopy, now: int) -> list[int]:
    return [_copy_segment(h, caller, segment) for segment in msg.segments]


def _copy_segment(h: Hypervisor, caller: DomId, segment: m.CopySegment) -> int:
    source, target = segment.source, segment.destination
    from_dom, to_dom = subject(caller, source.dom), subject(caller, target.dom)
    if not segment.length or max(source.offset, target.offset) + segment.length > 4096:
        return GNTST_BAD_COPY_ARG
    try:
        ask_copy(h, caller, from_dom, to_dom)
        from_extent, from_page = h.grants.page_for_copy(caller, from_dom, source.ref, writable=False)
        to_extent, to_page = h.grants.page_for_copy(caller, to_dom, target.ref, writable=True)
    except Refused as refusal:
        return GNTST_OF.get(refusal.errno, GNTST_GENERAL_ERROR)
    from_offset, to_offset = from_page * 4096 + source.offset, to_page * 4096 + target.offset
    h.hardware.copy(from_extent, from_offset, to_extent, to_offset, segment.length)
    return GNTST_OKAY


GNTST_OKAY = 0
GNTST_GENERAL_ERROR = -1
GNTST_BAD_COPY_ARG = -10
GNTST_OF = {errno.ESRCH: -2, errno.EINVAL: -3, errno.EACCES: -8}
"""grant_table.h: bad_domain, bad_gntref, permission_denied."""


# ---- media -----------------------------------------------------------------------------------------------------------


def _open_medium(h: Hypervisor, caller: DomId, msg: m.PhysdevOpenMedium, now: int) -> Answer:
    backend = h.domain(caller)
    number = h.media.open(backend, h.domain(msg.dom), msg.kind, msg.devid)
    if backend.config.io_bps:  # it may lie on a disk that there was not when the backend's domain was born
        h.hardware.bound_new_disks(backend)
    return Answer(None, ((f"medium:{number}", 0),))


def _open_uplink(h: Hypervisor, caller: DomId, msg: m.PhysdevOpenUplink, now: int) -> Answer:
    network = h.networks.uplink(h.domain(caller).name, msg.network)
    return Answer(network.mtu, ((uplink_key(network.uplink), 0),))


# ---- sched, timers, console ------------------------------------------------------------------------------------------


def _watchdog(h: Hypervisor, caller: DomId, msg: m.SchedWatchdog, now: int) -> int:
    domain = h.domain(caller)
    if msg.id == 0 and msg.timeout_s == 0:
        raise Refused(errno.EINVAL, "a new watchdog needs a timeout")
    number = msg.id
    if number == 0:
        free = [n for n in range(1, WATCHDOGS_MAX + 1) if domain.watchdogs.get(n) is None]
        if not free:
            raise Refused(errno.ENOSPC, f"domain {caller} runs {WATCHDOGS_MAX} watchdogs")
        number = free[0]
    elif number > WATCHDOGS_MAX or domain.watchdogs.get(number) is None:
        raise Refused(errno.EINVAL, f"domain {caller} runs no watchdog {number}")
    domain.watchdogs[number] = domain.clock.system_time_ns(now) + msg.timeout_s * 10**9 if msg.timeout_s else None
    h.deadlines.note(domain)
    return number


def _set_timer(h: Hypervisor, caller: DomId, msg: m.SetTimer, now: int) -> None:
    domain = h.domain(caller)
    domain.timer_ns = msg.deadline_ns or None
    h.deadlines.note(domain)


def _console_io(h: Hypervisor, caller: DomId, msg: m.ConsoleIo, now: int) -> None:
    domain = h.domain(caller)
    for line in msg.text.splitlines():
        h.console.append(f"(d{caller}) {line}")
    h.announce("console", domain, msg.text)


def _version(h: Hypervisor, caller: DomId, msg: m.XenVersion, now: int) -> dict[str, Any]:
    return {
        "version": "4.17",
        "extraversion": "-hvd",
        "page_size": 4096,
        "domid": caller,
        "incarnation": h.domain(caller).incarnation,
    }


# ---- XenStore --------------------------------------------------------------------------------------------------------


def _multicall(h: Hypervisor, caller: DomId, msg: m.Multicall, now: int) -> Answer:
    store = h.store
    return carry_out(
        msg.calls, lambda call: handle(h, caller, call, now), lambda: store.work, lambda: store.follows(caller)
    )


def _read_all(h: Hypervisor, caller: DomId, msg: m.StoreReadAll, now: int) -> dict[str, bytes]:
    return plain_nodes(h.store, caller, msg.path)


def _watch(h: Hypervisor, caller: DomId, msg: m.StoreWatch) -> None:
    h.store.watch(caller, msg.path, msg.token)
    queue = h.upcalls.get(caller)
    if msg.keys and queue is not None:
        queue.follow(msg.token, msg.path.rpartition("/")[0])


def _unwatch(h: Hypervisor, caller: DomId, msg: m.StoreUnwatch) -> None:
    h.store.unwatch(caller, msg.path, msg.token)
    queue = h.upcalls.get(caller)
    if queue is not None:
        queue.unfollow(msg.token)


def _firing(operation: Callable[[Hypervisor, DomId, Any], Any]) -> Handler:
    def handler(h: Hypervisor, caller: DomId, msg: Any, now: int) -> Any:
        try:
            return operation(h, caller, msg)
        finally:
            h.collect_store_events()

    return handler


def _store_ring(h: Hypervisor, caller: DomId, msg: m.StoreRing, now: int) -> Answer:
    port = h.open_store_ring(caller)
    extent = h.grants.tables[caller].refs[GRANT_REF_XENSTORE]
    channel = _channel_end(h, caller, port)
    return Answer({**channel.value, "ref": GRANT_REF_XENSTORE}, ((f"extent:{extent.id}", 0), *channel.descriptors))


ANY, SELF, DOM0_ONLY = Privilege.ANY, Privilege.SELF, Privilege.DOM0

TABLE: dict[type, Entry] = {
    m.SchedShutdown: Entry(ANY, True, lambda h, c, x, now: h.domain_shutdown(c, x.reason, x.text)),
    m.SchedWatchdog: Entry(ANY, True, _watchdog),
    m.SetTimer: Entry(ANY, True, _set_timer),
    m.ConsoleIo: Entry(ANY, True, _console_io),
    m.XenVersion: Entry(ANY, False, _version),
    m.DomainReady: Entry(ANY, True, lambda h, c, x, now: h.domain_ready(c, now)),
    m.SandboxReport: Entry(ANY, True, lambda h, c, x, now: h.take_sandbox_report(c, x.lacking)),
    m.EvtchnAllocUnbound: Entry(SELF, True, _alloc_unbound),
    m.EvtchnBindInterdomain: Entry(ANY, True, _bind_interdomain),
    m.EvtchnBindVirq: Entry(ANY, True, _bind_virq),
    m.EvtchnClose: Entry(ANY, True, _evtchn_close),
    m.EvtchnSend: Entry(ANY, False, lambda h, c, x, now: h.channels.send(c, x.port)),
    m.EvtchnStatus: Entry(SELF, False, lambda h, c, x, now: h.channels.status(subject(c, x.dom), x.port)),
    m.EvtchnReset: Entry(SELF, True, _evtchn_reset),
    m.GnttabAllocate: Entry(ANY, True, _gnttab_allocate),
    m.GnttabShare: Entry(ANY, True, lambda h, c, x, now: h.grants.share(c, x.extent, x.first_page, x.count)),
    m.GnttabEndAccess: Entry(ANY, True, lambda h, c, x, now: h.grants.end_access(c, x.ref, x.count)),
    m.GnttabFree: Entry(ANY, True, lambda h, c, x, now: h.grants.free(c, x.extent)),
    m.GnttabMap: Entry(ANY, True, _gnttab_map),
    m.GnttabUnmap: Entry(ANY, True, lambda h, c, x, now: h.grants.unmap(c, x.handle)),
    m.GnttabUnmapNotify: Entry(ANY, True, lambda h, c, x, now: h.grants.set_unmap_notify(c, x.handle, _notify(x))),
    m.GnttabShareNotify: Entry(ANY, True, lambda h, c, x, now: h.grants.set_share_notify(c, x.extent, _notify(x))),
    m.GnttabCopy: Entry(ANY, True, _gnttab_copy),
    m.PhysdevOpenMedium: Entry(ANY, True, _open_medium),
    m.PhysdevOpenUplink: Entry(ANY, True, _open_uplink),
    m.Multicall: Entry(ANY, True, _multicall),
    m.StoreDirectory: Entry(ANY, False, lambda h, c, x, now: h.store.directory(c, x.tx, x.path, NAMES_MAX)),
    m.StoreReadAll: Entry(ANY, False, _read_all),
    m.StoreRead: Entry(ANY, False, lambda h, c, x, now: h.store.read(c, x.tx, x.path)),
    m.StoreGetPerms: Entry(ANY, False, lambda h, c, x, now: h.store.get_perms(c, x.tx, x.path)),
    m.StoreWatch: Entry(ANY, True, _firing(_watch)),
    m.StoreUnwatch: Entry(ANY, True, _firing(_unwatch)),
    m.StoreTransactionStart: Entry(ANY, True, lambda h, c, x, now: h.store.transaction_start(c)),
    m.StoreTransactionEnd: Entry(ANY, True, _firing(lambda h, c, x: h.store.transaction_end(c, x.tx, x.commit))),
    m.StoreWrite: Entry(ANY, True, _firing(lambda h, c, x: h.store.write(c, x.tx, x.path, x.value))),
    m.StoreMkdir: Entry(ANY, True, _firing(lambda h, c, x: h.store.mkdir(c, x.tx, x.path))),
    m.StoreRm: Entry(ANY, True, _firing(lambda h, c, x: h.store.rm(c, x.tx, x.path))),
    m.StoreSetPerms: Entry(ANY, True, _firing(lambda h, c, x: h.store.set_perms(c, x.tx, x.path, x.perms))),
    m.StoreRing: Entry(ANY, True, _store_ring),
    m.DomctlCreate: Entry(DOM0_ONLY, True, lambda h, c, x, now: h.create(x.config, now).domid),
    m.DomctlDestroy: Entry(DOM0_ONLY, True, lambda h, c, x, now: h.destroy(x.dom, now)),
    m.DomctlPause: Entry(DOM0_ONLY, True, lambda h, c, x, now: h.pause(x.dom, now)),
    m.DomctlUnpause: Entry(DOM0_ONLY, True, lambda h, c, x, now: h.unpause(x.dom, now)),
    m.DomctlShutdown: Entry(SELF, True, lambda h, c, x, now: h.request_shutdown(
        subject(c, x.dom), reboot=x.reboot, grace_ms=x.grace_ms, now_ns=now)),
    m.DomctlList: Entry(ANY, False, sysctl.list_domains),
    m.DomctlGetConfig: Entry(DOM0_ONLY, False, lambda h, c, x, now: encode(h.domain(x.dom).config)),
    m.DomctlSetConfig: Entry(DOM0_ONLY, True, lambda h, c, x, now: changes.set_config(h, x.dom, x.config)),
    m.DomctlRename: Entry(DOM0_ONLY, True, lambda h, c, x, now: changes.rename(h, x.dom, x.name)),
    m.DomctlTrigger: Entry(DOM0_ONLY, True, lambda h, c, x, now: changes.trigger(h, x.dom, x.trigger, now)),
    m.DomctlMemSet: Entry(DOM0_ONLY, True, lambda h, c, x, now: memory.set_target(h, x.dom, x.kib)),
    m.DomctlMemMax: Entry(DOM0_ONLY, True, lambda h, c, x, now: memory.set_maximum(h, x.dom, x.kib)),
    m.MemoryReservation: Entry(ANY, False, lambda h, c, x, now: memory.reservation(h, c)),
    m.MemorySetReservation: Entry(ANY, True, lambda h, c, x, now: memory.set_reservation(h, c, x.kib)),
    m.DomctlDumpCore: Entry(DOM0_ONLY, True, lambda h, c, x, now: live_dumps.begin(h, x.dom, x.path, now)),
    m.DomctlSysrq: Entry(DOM0_ONLY, True, lambda h, c, x, now: changes.sysrq(h, x.dom, x.letter)),
    m.DomctlAttach: Entry(DOM0_ONLY, True, lambda h, c, x, now: hotplug.attach(h, x.dom, x.device)),
    m.DomctlDetach: Entry(DOM0_ONLY, True, lambda h, c, x, now: hotplug.detach(
        h, x.dom, x.kind, x.devid, force=x.force)),
    m.DomctlKeep: Entry(DOM0_ONLY, True, lambda h, c, x, now: hotplug.keep(h, x.dom, x.kind, x.devid)),
    m.DomctlKill: Entry(DOM0_ONLY, True, lambda h, c, x, now: h.kill(x.dom, x.signal)),
    m.FaultBegin: Entry(DOM0_ONLY, True, lambda h, c, x, now: h.begin_fault(x, now)),
    m.FaultEnd: Entry(DOM0_ONLY, True, lambda h, c, x, now: h.end_fault(x.dom, x.fault)),
    m.FaultList: Entry(DOM0_ONLY, False, lambda h, c, x, now: [f.describe(now) for f in h.faults.active.values()]),
    m.FaultCounts: Entry(DOM0_ONLY, False, lambda h, c, x, now: h.hardware.fault_counts(x.fault)),
    m.MachineStrike: Entry(DOM0_ONLY, True, lambda h, c, x, now: h.strike(x.role, x.signal, x.for_ms)),
    m.MachineStop: Entry(DOM0_ONLY, True, lambda h, c, x, now: h.stop_machine(reboot=x.reboot)),
    m.TraceStart: Entry(DOM0_ONLY, True, lambda h, c, x, now: h.start_trace(
        x.domains, only_if_free=x.only_if_free)),
    m.TraceStop: Entry(DOM0_ONLY, True, lambda h, c, x, now: h.stop_trace(x.session, keep=x.keep)),
    m.TraceBuffers: Entry(DOM0_ONLY, False, sysctl.trace_buffers),
    m.TraceRead: Entry(DOM0_ONLY, False, sysctl.trace_read),
    m.XsmLoad: Entry(ANY, True, lambda h, c, x, now: h.xsm.load(c, x.policy)),
    m.XsmGetenforce: Entry(ANY, False, lambda h, c, x, now: sysctl.policy(h)),
    m.XsmSetenforce: Entry(ANY, True, lambda h, c, x, now: h.xsm.set_enforcing(c, enforcing=x.enforcing)),
    m.SysctlReadConsole: Entry(DOM0_ONLY, False, lambda h, c, x, now: list(h.console)),
    m.SysctlClearConsole: Entry(DOM0_ONLY, True, lambda h, c, x, now: h.console.clear()),
    m.SysctlEvtchns: Entry(DOM0_ONLY, False, lambda h, c, x, now: listing.event_channels(h, x.first)),
    m.SysctlGrants: Entry(DOM0_ONLY, False, lambda h, c, x, now: listing.grants(h, x.first)),
    m.SysctlRings: Entry(DOM0_ONLY, False, lambda h, c, x, now: listing.rings(h, x.first)),
    m.SysctlNetworks: Entry(DOM0_ONLY, False, lambda h, c, x, now: h.networks.backends()),
    m.SysctlNetwork: Entry(DOM0_ONLY, False, lambda h, c, x, now: network_listing.network(h, x.name)),
    m.SysctlVifs: Entry(DOM0_ONLY, False, lambda h, c, x, now: listing.vifs(h, x.first)),
    m.SysctlPhysinfo: Entry(DOM0_ONLY, False, sysctl.physinfo),
    m.SysctlSandboxes: Entry(DOM0_ONLY, False, sysctl.list_sandboxes),
    m.SysctlQuotas: Entry(DOM0_ONLY, False, lambda h, c, x, now: usage.describe(h)),
    m.SysctlEvents: Entry(DOM0_ONLY, False, sysctl.events),
}
