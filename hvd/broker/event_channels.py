"""Event channels: which port of which domain leads where (public/event_channel.h; Xen's two-level ABI limits).

A *channel* is one shared page and a pipe each way; it has two sides, and each side is a port of some domain, or
nobody's yet. Ports are per domain, never 0. The tables say who may ring; ringing itself passes the broker by.
"""

from __future__ import annotations

import errno
from enum import IntEnum

from hvd.broker.errors import Refused
from hvd.broker.hardware import Hardware, NoHardware
from hvd.transport.ids import DOM0, DOMID_XEN, DomId, Port
from hvd.transport.limits import PORTS_MAX
from hvd.transport.records import dataclass, field

VIRQ_TIMER = 0
VIRQ_DEBUG = 1
VIRQ_CONSOLE = 2
VIRQ_DOM_EXC = 3
VIRQS = frozenset({VIRQ_TIMER, VIRQ_DEBUG, VIRQ_CONSOLE, VIRQ_DOM_EXC})
VIRQ_UPCALL = 0x80
"""hvd's own: something waits on the upcall socket. Every domain is born with it bound."""


class PortState(IntEnum):
    """What evtchn status reports (EVTCHNSTAT_*); a closed port has no entry."""

    CLOSED = 0
    """No such port."""
    UNBOUND = 1
    """Open for one remote domain to bind."""
    INTERDOMAIN = 2
    """Bound to a port of the remote domain."""
    VIRQ = 4
    """Raised by the hypervisor."""


@dataclass(slots=True)
class Binding:
    """One port of one domain: its side of a channel."""

    state: PortState
    channel: int
    side: int
    remote_dom: DomId
    remote_port: Port | None = None
    virq: int | None = None


@dataclass(slots=True)
class EventChannels:
    """Every domain's ports."""

    ports: dict[DomId, dict[Port, Binding]] = field(default_factory=dict)
    next_channel: int = 1
    hardware: Hardware = field(default_factory=NoHardware)

    def add_domain(self, dom: DomId) -> None:
        self.ports[dom] = {}

    def remove_domain(self, dom: DomId) -> None:
        self.close_all(dom)
        del self.ports[dom]

    def lookup(self, dom: DomId, port: Port) -> Binding:
        """The binding of a port; EINVAL if it is closed or never was."""
        binding = self.ports.get(dom, {}).get(port)
        if binding is None:
            raise Refused(errno.EINVAL, f"domain {dom} has no open port {port}")
        return binding

    def reserve(self, owner: DomId) -> int:
        """A channel that is no port's yet: whoever reserves it keeps its number, and binds or releases it."""
        return self._new_channel(owner)

    def alloc_unbound(self, dom: DomId, remote_dom: DomId, reserved: int | None = None) -> Port:
        """A new port of `dom` for `remote_dom` to bind; ENOSPC when its ports are used up."""
        port = self._free_port(dom)
        channel = self._new_channel(dom) if reserved is None else reserved
        self._bind(dom, port, Binding(PortState.UNBOUND, channel, 0, remote_dom))
        return port

    def bind_virq(self, dom: DomId, virq: int, reserved: int | None = None) -> Port:
        """A new port raised for `virq`; EEXIST if it is bound, EINVAL if there is no such virq."""
        if virq not in VIRQS and virq != VIRQ_UPCALL:
            raise Refused(errno.EINVAL, f"no virq {virq}; there are {sorted(VIRQS)}")
        if self.virq_port(dom, virq) is not None:
            raise Refused(errno.EEXIST, f"virq {virq} of domain {dom} is bound already")
        port = self._free_port(dom)
        channel = self._new_channel(dom) if reserved is None else reserved
        self._bind(dom, port, Binding(PortState.VIRQ, channel, 0, DOMID_XEN, virq=virq))
        return port

    def bind_store(self, dom: DomId) -> Port:
        """A new port that leads to dom0's XenStore, which is the broker: no port of dom0's is at the other end."""
        port = self._free_port(dom)
        self._bind(dom, port, Binding(PortState.INTERDOMAIN, self._new_channel(dom), 0, DOM0))
        return port

    def bind_interdomain(self, dom: DomId, remote_dom: DomId, remote_port: Port) -> Port:
        """Bind to a port that `remote_dom` holds open for `dom`; EINVAL if it is not, ESRCH if there is no such domain.

        The new local port is raised at once, since notifications may have been lost before it was bound.
        """
        if remote_dom not in self.ports:
            raise Refused(errno.ESRCH, f"no domain {remote_dom}")
        remote = self.ports[remote_dom].get(remote_port)
        if remote is None or remote.state is not PortState.UNBOUND or remote.remote_dom != dom:
            raise Refused(errno.EINVAL, f"port {remote_port} of domain {remote_dom} is not open for domain {dom}")
        port = self._free_port(dom)
        side = 1 - remote.side
        self._bind(dom, port, Binding(PortState.INTERDOMAIN, remote.channel, side, remote_dom, remote_port))
        remote.state = PortState.INTERDOMAIN
        remote.remote_port = port
        self.hardware.mark_open(remote.channel, remote.side)
        self.hardware.raise_end(remote.channel, side)
        return port

    def _bind(self, dom: DomId, port: Port, binding: Binding) -> None:
        self.ports[dom][port] = binding
        self.hardware.port_bound(dom, port, binding.channel, binding.side)

    def close(self, dom: DomId, port: Port) -> None:
        """Close a port. The other end of an interdomain channel becomes unbound again, and is woken."""
        binding = self.lookup(dom, port)
        del self.ports[dom][port]
        remote = self._other_end(binding)
        if remote is None:
            self.hardware.release_channel(binding.channel)
            return
        remote.state = PortState.UNBOUND
        remote.remote_port = None
        self.hardware.mark_closed(binding.channel, remote.side)

    def close_all(self, dom: DomId) -> None:
        """Close every port: evtchn reset, and what death does."""
        for port in list(self.ports[dom]):
            self.close(dom, port)

    def send(self, dom: DomId, port: Port) -> None:
        """Raise the other end; an unbound port is silently nothing, as in Xen. EINVAL on a virq or closed port."""
        if self.lookup(dom, port).state is PortState.VIRQ:
            raise Refused(errno.EINVAL, f"port {port} of domain {dom} is a virq: only the hypervisor raises it")
        self.raise_other_end(dom, port)

    def raise_other_end(self, dom: DomId, port: Port) -> None:
        """Raise the other end of whatever the port is; never refuses, since deaths use it on ports a guest named."""
        binding = self.ports.get(dom, {}).get(port)
        if binding is not None and binding.state is PortState.INTERDOMAIN:
            self.hardware.raise_end(binding.channel, 1 - binding.side)

    def status(self, dom: DomId, port: Port) -> dict[str, int]:
        """The fields of evtchn_status; a closed port is an answer, one out of range EINVAL. ESRCH: no such domain."""
        if dom not in self.ports:
            raise Refused(errno.ESRCH, f"no domain {dom}")
        if port > PORTS_MAX:
            raise Refused(errno.EINVAL, f"port {port} is out of range: a domain has ports 1 to {PORTS_MAX}")
        binding = self.ports[dom].get(port)
        if binding is None:
            return {"status": PortState.CLOSED, "remote_dom": 0, "remote_port": 0, "virq": 0}
        return {
            "status": binding.state,
            "remote_dom": binding.remote_dom,
            "remote_port": binding.remote_port or 0,
            "virq": binding.virq or 0,
        }

    def virq_port(self, dom: DomId, virq: int) -> Port | None:
        """The port a virq is bound to, if it is."""
        return next((port for port, b in self.ports.get(dom, {}).items() if b.virq == virq), None)

    def raise_virq(self, dom: DomId, virq: int) -> None:
        """Raise a virq where it is bound; otherwise nothing."""
        port = self.virq_port(dom, virq)
        if port is not None:
            binding = self.ports[dom][port]
            self.hardware.raise_end(binding.channel, binding.side)

    def _other_end(self, binding: Binding) -> Binding | None:
        if binding.state is not PortState.INTERDOMAIN or binding.remote_port is None:
            return None
        return self.ports.get(binding.remote_dom, {}).get(binding.remote_port)

    def _free_port(self, dom: DomId) -> Port:
        used = self.ports.get(dom)
        if used is None:
            raise Refused(errno.ESRCH, f"no domain {dom}")
        if len(used) >= PORTS_MAX:
            raise Refused(errno.ENOSPC, f"domain {dom} has {PORTS_MAX} ports open; close some")
        return next(Port(n) for n in range(1, PORTS_MAX + 1) if Port(n) not in used)

    def _new_channel(self, owner: DomId) -> int:
        channel = self.next_channel
        self.hardware.create_channel(channel, owner)
        self.next_channel += 1
        return channel
