"""The broker's hand on a domain's event channels: rings its heartbeat, sees what it has not taken, hears if it asks."""

from __future__ import annotations

import fcntl
import struct
import termios
from collections.abc import Callable
from contextlib import closing

from hvd.broker.domain import ALIVE, Domain
from hvd.broker.held import ENDPOINTS_PER_CHANNEL, PAGE, UPCALL, HeldDescriptors, channel_key, domain_key
from hvd.broker.hypervisor import Hypervisor
from hvd.transport.call_words import CallWords
from hvd.transport.channels import Endpoint, is_pending
from hvd.transport.ids import DOM0, DomId, Port


class Bells:
    """Of every domain whose incarnation has its descriptors."""

    def __init__(self, held: HeldDescriptors, hypervisor: Callable[[], Hypervisor]) -> None:
        self._held = held
        self._hypervisor = hypervisor

    def ring(self, domain: Domain) -> None:
        """Raise its upcall event: whoever finds nothing new behind it has been rung for nothing, which is harmless."""
        self._upcall(domain).notify()

    def ring_all(self, domid: DomId) -> None:
        """Raise both ends of each of its channels: whoever uses its pages looks at them. Nothing if it has gone."""
        for binding in self._hypervisor().channels.ports.get(domid, {}).values():
            if binding.virq is None:
                for side in range(ENDPOINTS_PER_CHANNEL):
                    self._held.endpoint(binding.channel, side).kick()

    def ring_what_is_untaken(self, domain: Domain) -> None:
        """Those of its ports whose events it has not taken: a broker may have died before it woke who slept there."""
        for binding in self._hypervisor().channels.ports[domain.domid].values():
            if is_pending(self._held.by_key[channel_key(binding.channel)][PAGE], binding.side):
                self._held.endpoint(binding.channel, binding.side).kick()

    def serve(self, domain: Domain, broker: int) -> None:
        """Have it know that this broker does: what it asks next, it asks here. Nothing if it has no upcall port."""
        binding = self._hypervisor().channels.ports[domain.domid].get(self._upcall_port(domain))
        if binding is not None:
            serve(self._held, binding.channel, broker)

    def untrusted_calls(self, domain: Domain) -> tuple[bool, int, int]:
        """By its own words: whether it waits for an answer, the last event that it has taken up, and the last call
        whose descriptors it has.
        """
        binding = self._hypervisor().channels.ports[domain.domid].get(self._upcall_port(domain))
        if binding is None:
            return True, 0, 0
        with closing(CallWords(self._held.by_key[channel_key(binding.channel)][PAGE])) as words:
            return words.untrusted_asks, words.untrusted_seen, words.untrusted_received

    def has_taken(self, domain: Domain) -> bool:
        """Whether it has taken the event: by its own word, which can harm nobody else."""
        return not self._upcall(domain).untaken

    def is_waited_for(self, domain: Domain) -> bool:
        """Whether it has not taken an event of another port, or not read what the upcall socket holds for it."""
        upcall = self._upcall_port(domain)
        ports = self._hypervisor().channels.ports[domain.domid].items()
        others = (self._held.endpoint(binding.channel, binding.side) for port, binding in ports if port != upcall)
        return self._bytes_unread(domain) > 0 or any(endpoint.untaken for endpoint in others)

    def serves(self, domain: Domain) -> bool:
        """Whether somebody who is alive has a device of it; domain 0 has everybody's console."""
        hypervisor = self._hypervisor()
        clients = [client for client, _ in hypervisor.client_devices(domain)]
        if domain.domid == DOM0:
            clients = [other for other in hypervisor.domains.values() if other is not domain]
        return any(client.life in ALIVE for client in clients)

    def _upcall_port(self, domain: Domain) -> Port:
        return self._hypervisor().birth_ports(domain)[1]

    def _upcall(self, domain: Domain) -> Endpoint:
        binding = self._hypervisor().channels.ports[domain.domid][self._upcall_port(domain)]
        return self._held.endpoint(binding.channel, binding.side)

    def _bytes_unread(self, domain: Domain) -> int:
        socket = self._held.by_key[domain_key(domain.domid)][UPCALL]
        (unread,) = struct.unpack("i", fcntl.ioctl(socket, termios.TIOCOUTQ, bytes(4)))
        return int(unread)


def serve(held: HeldDescriptors, upcall_channel: int, broker: int) -> None:
    """Have whoever receives upcalls there know which broker serves."""
    with closing(CallWords(held.by_key[channel_key(upcall_channel)][PAGE])) as words:
        words.serve(broker)
