"""Where the security policy is asked: for each hypercall that is about another domain, who does what to whom.

A hook is called behind the privilege check and before the handler, so that what is denied has changed nothing. The
store asks for itself, node by node (store/mandatory.py); a grant copy segment by segment, as each is answered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hvd.broker.domain import subject
from hvd.transport import messages as m
from hvd.transport.ids import DomId
from hvd.transport.xsm import security_vector, vector

if TYPE_CHECKING:
    from hvd.broker.hypervisor import Hypervisor

Hook = Callable[["Hypervisor", DomId, Any], None]
"""Takes tables, caller and message; Refused with EACCES when the policy denies it."""

EVENT_CREATE, EVENT_BIND, EVENT_SEND = vector("event", "create"), vector("event", "bind"), vector("event", "send")
EVENT_STATUS, EVENT_RESET = vector("event", "status"), vector("event", "reset")
GRANT_SETUP, GRANT_UNMAP, GRANT_COPY = vector("grant", "setup"), vector("grant", "unmap"), vector("grant", "copy")
GRANT_MAP_READ, GRANT_MAP_BOTH = vector("grant", "map_read"), vector("grant", "map_read", "map_write")
DOMAIN_CREATE, DOMAIN_FAULT = vector("domain", "create"), vector("domain", "fault")
LOAD_POLICY, SETENFORCE = security_vector("load_policy"), security_vector("setenforce")


def ask(h: Hypervisor, caller: DomId, message: Any) -> None:
    """Have the policy decide on a hypercall; nothing for one that is about its caller alone."""
    hook = HOOKS.get(type(message))
    if hook is not None:
        hook(h, caller, message)


def ask_copy(h: Hypervisor, caller: DomId, source: DomId, destination: DomId) -> None:
    """One segment: the caller with either end, and what comes from the one domain into the other. ESRCH: no such."""
    h.domain(source)
    h.domain(destination)
    for one, other in ((caller, source), (caller, destination), (source, destination)):
        if one != other:
            h.xsm.check(one, other, GRANT_COPY)


def _alloc_unbound(h: Hypervisor, caller: DomId, msg: m.EvtchnAllocUnbound) -> None:
    dom = h.domain(subject(caller, msg.dom)).domid
    h.xsm.check(caller, dom, EVENT_CREATE)
    h.xsm.check(dom, subject(caller, msg.remote_dom), EVENT_CREATE)


def _send(h: Hypervisor, caller: DomId, msg: m.EvtchnSend) -> None:
    h.xsm.check(caller, h.channels.lookup(caller, msg.port).remote_dom, EVENT_SEND)


def _share(h: Hypervisor, caller: DomId, msg: m.GnttabShare) -> None:
    table = h.grants.tables.get(caller)
    extent = None if table is None else table.extents.get(msg.extent)
    if extent is not None:
        h.xsm.check(caller, extent.peer, GRANT_SETUP)


def _map(h: Hypervisor, caller: DomId, msg: m.GnttabMap) -> None:
    h.xsm.check(caller, subject(caller, msg.dom), GRANT_MAP_BOTH if msg.writable else GRANT_MAP_READ)


def _unmap(h: Hypervisor, caller: DomId, msg: m.GnttabUnmap) -> None:
    table = h.grants.tables.get(caller)
    mapping = None if table is None else table.mappings.get(msg.handle)
    if mapping is not None:
        h.xsm.check(caller, mapping.extent.owner, GRANT_UNMAP)


def _about(wanted: int) -> Hook:
    """Of a message that names its target as `dom`."""
    return lambda h, caller, msg: h.xsm.check(caller, subject(caller, msg.dom), wanted)


HOOKS: dict[type, Hook] = {
    m.EvtchnAllocUnbound: _alloc_unbound,
    m.EvtchnBindInterdomain: lambda h, c, x: h.xsm.check(c, subject(c, x.remote_dom), EVENT_BIND),
    m.EvtchnSend: _send,
    m.EvtchnStatus: _about(EVENT_STATUS),
    m.EvtchnReset: _about(EVENT_RESET),
    m.GnttabAllocate: lambda h, c, x: h.xsm.check(c, subject(c, x.peer), GRANT_SETUP),
    m.GnttabShare: _share,
    m.GnttabMap: _map,
    m.GnttabUnmap: _unmap,
    m.DomctlCreate: lambda h, c, x: h.xsm.check_creation(c, x.config, DOMAIN_CREATE),
    m.DomctlSetConfig: _about(DOMAIN_CREATE),
    m.DomctlRename: _about(DOMAIN_CREATE),
    m.DomctlTrigger: _about(vector("domain", "kill")),
    m.DomctlDumpCore: _about(DOMAIN_CREATE),
    m.DomctlMemSet: _about(DOMAIN_CREATE),
    m.DomctlMemMax: _about(DOMAIN_CREATE),
    m.DomctlSysrq: _about(vector("domain", "kill")),
    m.DomctlAttach: _about(DOMAIN_CREATE),
    m.DomctlDetach: _about(DOMAIN_CREATE),
    m.DomctlKeep: _about(DOMAIN_CREATE),
    m.DomctlDestroy: _about(vector("domain", "destroy")),
    m.DomctlPause: _about(vector("domain", "pause")),
    m.DomctlUnpause: _about(vector("domain", "unpause")),
    m.DomctlShutdown: _about(vector("domain", "shutdown")),
    m.DomctlKill: _about(vector("domain", "kill")),
    m.FaultBegin: _about(DOMAIN_FAULT),
    m.FaultEnd: _about(DOMAIN_FAULT),
    m.XsmLoad: lambda h, c, x: h.xsm.check_security(c, LOAD_POLICY),
    m.XsmSetenforce: lambda h, c, x: h.xsm.check_security(c, SETENFORCE),
}
