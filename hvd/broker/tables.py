"""The hypervisor's tables, as one object: what there is, and what is found where.

No I/O, no clock, no random source: time and secrets come in as arguments, and the world outside is reached through
`Hardware` only.
"""

from __future__ import annotations

import errno
from _blake2 import blake2b  # hashlib's; loading that takes 2 ms of a boot, for OpenSSL
from collections import deque

from hvd.broker import hotplug, services
from hvd.broker.deadlines import Deadlines
from hvd.broker.domain import Domain
from hvd.broker.errors import Refused
from hvd.broker.event_channels import EventChannels
from hvd.broker.event_log import EventLog
from hvd.broker.faults import Faults
from hvd.broker.grant_tables import GrantTables
from hvd.broker.groups import Groups
from hvd.broker.hardware import Hardware, NoHardware
from hvd.broker.media import Media
from hvd.broker.networks import Networks
from hvd.broker.store import Store
from hvd.broker.tracing import Tracing
from hvd.broker.upcalls import UpcallQueue
from hvd.broker.xsm import Xsm
from hvd.transport.ids import GRANT_REF_CONSOLE, GRANT_REF_XENSTORE, DomId, ExtentId, Incarnation, Port
from hvd.transport.limits import HYPERVISOR_LOG_LINES_MAX
from hvd.transport.messages import DeviceConfig


class Tables:
    """All of them."""

    def __init__(
        self,
        secret: bytes,
        now_ns: int,
        hardware: Hardware | None = None,
        xsm: Xsm | None = None,
        *,
        wall_base_ns: int = 0,
        groups: Groups | None = None,
        networks: Networks | None = None,
    ) -> None:
        """`wall_base_ns`: the wall clock at the host's time 0, for events."""
        self.secret = secret
        self.booted_ns = now_ns
        self.domains: dict[DomId, Domain] = {}
        self.channels = EventChannels()
        self.grants = GrantTables(channels=self.channels)
        self.media = Media()
        self.xsm: Xsm = xsm or Xsm()
        self.store = Store(policy=self.xsm)
        self.upcalls: dict[DomId, UpcallQueue] = {}
        self.deadlines = Deadlines(self.domains)
        self.store_log = False
        """Whether requests to the store by socket or ring are logged: xenstore-control's `log on`."""
        self.groups = groups or Groups()
        self.networks = networks or Networks()
        self.tracing = Tracing()
        self.events = EventLog(now_ns, wall_base_ns)
        self.faults = Faults()
        self.console: deque[str] = deque(maxlen=HYPERVISOR_LOG_LINES_MAX)
        self.services: dict[str, services.Service] = {}
        self.leaving: hotplug.Leaving = {}
        self.denials: dict[DomId, int] = {}
        """How often the policy has denied something to each domain."""
        self.next_domid = 0
        self.stopping: bool | None = None
        """None: run on; False: power off; True: reboot."""
        self.attach(hardware or NoHardware())

    def attach(self, hardware: Hardware) -> None:
        """Let the tables act on the world."""
        self.hardware = self.channels.hardware = self.grants.hardware = self.media.hardware = hardware
        self.xsm.hardware = hardware

    def announce(self, event: str, domain: Domain | None, detail: str) -> None:
        """Tell the world, in the order in which things happen; None: it is about the machine."""
        whose = (-1, "", 0) if domain is None else (domain.domid, domain.name, domain.incarnation)
        self.hardware.publish(self.events.add(event, *whose, detail))

    def domain(self, domid: DomId) -> Domain:
        """The record of a domid; ESRCH if there is none."""
        domain = self.domains.get(domid)
        if domain is None:
            raise Refused(errno.ESRCH, f"no domain with domid {domid}")
        return domain

    def by_name(self, name: str) -> Domain | None:
        return next((d for d in self.domains.values() if d.name == name), None)

    def secret_key(self, domid: DomId, incarnation: Incarnation) -> bytes:
        """The 32 secret bytes of an incarnation's endpoint (a CURVE secret key)."""
        return blake2b(f"{domid}/{incarnation}".encode(), key=self.secret, digest_size=32).digest()

    def uuid(self, domain: Domain) -> str:
        """The UUID it was given, else one of the machine's own making that its domid keeps."""
        if domain.config.uuid:
            return domain.config.uuid
        made = blake2b(f"uuid {domain.domid}".encode(), key=self.secret, digest_size=16).hexdigest()
        return f"{made[:8]}-{made[8:12]}-4{made[13:16]}-8{made[17:20]}-{made[20:]}"

    def console_descriptors(self, domain: Domain) -> tuple[ExtentId, int, int]:
        """(console extent, console channel, upcall channel) that a domain is born with."""
        console_port, upcall_port = self.birth_ports(domain)
        ports = self.channels.ports[domain.domid]
        extent = self.grants.tables[domain.domid].refs[GRANT_REF_CONSOLE]
        return extent.id, ports[console_port].channel, ports[upcall_port].channel

    def store_ring_of(self, domain: Domain) -> tuple[ExtentId, int] | None:
        """(extent, channel) of its XenStore ring; None before it has asked for one, or when it has given either up."""
        ports, table = self.channels.ports.get(domain.domid, {}), self.grants.tables.get(domain.domid)
        binding = ports.get(domain.store_port) if domain.store_port is not None else None
        extent = table.refs.get(GRANT_REF_XENSTORE) if table is not None else None
        if binding is None or extent is None or binding.channel != domain.store_channel:
            return None
        return extent.id, binding.channel

    def birth_ports(self, domain: Domain) -> tuple[Port, Port]:
        """(console port, upcall port): the first two that every domain has."""
        return Port(2), Port(1)

    def client_devices(self, backend: Domain) -> list[tuple[Domain, DeviceConfig]]:
        """The devices of other domains whose backend this domain hosts."""
        return [(d, dev) for d in self.domains.values() for dev in d.config.devices if dev.backend == backend.name]

    def own_devices(self, domain: Domain) -> list[tuple[DeviceConfig, DomId]]:
        """Its devices, each with the domid of its backend; those whose backend is gone are left out."""
        backends = ((device, self.by_name(device.backend)) for device in domain.config.devices)
        return [(device, backend.domid) for device, backend in backends if backend is not None]
