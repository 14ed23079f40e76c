"""What there is in a machine, as the hypervisor lists it: plain rows of what the tables hold."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from hvd.transport import messages as m
from hvd.transport.ids import DOM0, DomId


class Listings(ABC):
    """A part of `Cluster`."""

    @abstractmethod
    def call(self, message: Any) -> Any:
        """Make a hypercall as dom0."""

    def info(self) -> dict[str, Any]:
        """The machine: cpus, memory, uptime, counts of what is in use, pids of broker and machine."""
        return dict(self.call(m.SysctlPhysinfo()))

    def networks(self) -> dict[str, str]:
        """The cluster's networks, by name: the domain whose switch each is in. Empty: a vif may name any."""
        return dict(self.call(m.SysctlNetworks()))

    def network(self, name: str) -> dict[str, Any]:
        """One of them: {name, backend, mtu, antispoof, default, rules, uplink}. HypercallError: there is none."""
        return dict(self.call(m.SysctlNetwork(name)))

    def vifs(self) -> list[dict[str, Any]]:
        """Every vif: {domid, name, devid, network, backend, mac, mtu, ip, rate, vlan, trunk, antispoof, link, state}.

        `rate` is [bytes, in so many microseconds]; what is not said is None.
        """
        return self._listing(m.SysctlVifs)

    def quotas(self) -> list[dict[str, Any]]:
        """What each domain has of what it may have: {domid, name, quotas}, the last {name: [in use, at most]}."""
        return list(self.call(m.SysctlQuotas()))

    def sandboxes(self) -> list[dict[str, Any]]:
        """Each domain's sandbox: {domid, name, kind, in_force, lacking}, the last with the reasons."""
        return list(self.call(m.SysctlSandboxes()))

    def event_channels(self) -> list[dict[str, Any]]:
        """Every port of every domain: {domid, port, status, remote_domid, remote_port, virq}."""
        return self._listing(m.SysctlEvtchns)

    def grants(self) -> list[dict[str, Any]]:
        """Every extent: {domid, peer, extent, pages, readonly, refs, mapped}, runs of refs and who has mapped them."""
        return self._listing(m.SysctlGrants)

    def rings(self) -> list[dict[str, Any]]:
        """Every device with its ring's counters: {domid, kind, devid, name, backend, state, port, ring_ref, ...}."""
        return self._listing(m.SysctlRings)

    def _listing(self, message: Callable[[DomId], Any]) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        first: DomId | None = DOM0
        while first is not None:
            part = self.call(message(first))
            rows += part["rows"]
            first = part["next"]
        return rows

    def dmesg(self) -> list[str]:
        """The lines of the hypervisor's console."""
        return list(self.call(m.SysctlReadConsole()))

    def clear_dmesg(self) -> None:
        """Forget them."""
        self.call(m.SysctlClearConsole())
