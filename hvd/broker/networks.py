"""The cluster's networks: what each vif that names one gets from it, whoever plugs the vif in, and when.

A vif's own are its address, VLANs and rate. Its network's are the rules, and whatever the vif leaves unsaid: they are
laid down whenever the vif's directories are written, so that none is ever served without them.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from itertools import chain

from hvd.broker.domain import Domain, Life
from hvd.broker.errors import Refused
from hvd.transport.messages import DeviceConfig, NetworkConfig
from hvd.transport.packed_rules import DEFAULT_KEY, RULES_KEY, pack_rules
from hvd.transport.protocols.net import BRIDGE, UPLINK, UPLINK_KEY
from hvd.transport.records import replace

VIF = "vif"
NETWORKS_OWN = (DEFAULT_KEY, RULES_KEY, UPLINK_KEY)
"""Begin the keys that are never a vif's own."""


class Networks:
    """By name; without any, a bridge of whatever name is one, and a vif's keys are what the toolstack wrote."""

    def __init__(self, configs: Iterable[NetworkConfig] = ()) -> None:
        self._by_name = {config.name: config for config in configs}

    def config(self, name: str) -> NetworkConfig | None:
        """The network of this name; None: there is none."""
        return self._by_name.get(name)

    def backends(self) -> dict[str, str]:
        """Whose switch each is in, by name."""
        return {name: config.backend for name, config in self._by_name.items()}

    def uplinks(self) -> list[str]:
        """The TAP devices of the host that are uplinks."""
        return [config.uplink for config in self._by_name.values() if config.uplink]

    def uplink(self, caller: str, name: str) -> NetworkConfig:
        """A network with an uplink, in the caller's switch. EPERM if it is not there, ENOENT if it has none."""
        network = self._by_name.get(name)
        if network is None or network.backend != caller:
            raise Refused(errno.EPERM, f"network {name!r} is not in the switch of domain {caller!r}")
        if not network.uplink:
            raise Refused(errno.ENOENT, f"network {name!r} has no uplink")
        return network

    def check_name(self, name: str) -> None:
        """EEXIST: a domain of this name would be what rules call an uplink."""
        if name == UPLINK and self.uplinks():
            raise Refused(errno.EEXIST, f"{UPLINK!r} is what rules call a network's uplink")

    def check(
        self, owner: str, device: DeviceConfig, own: Iterable[DeviceConfig], domains: Iterable[Domain]
    ) -> None:
        """EINVAL for a vif of no network, or of one that is in another switch; EEXIST if another vif has its address.

        The others are the owner's `own`, and those of all other `domains` but one that is kept as it died: its
        successor has its vifs.
        """
        if device.kind != VIF:
            return
        bridge, vif = _bridge(device), f"vif {device.devid} of domain {owner!r}"
        network = self._by_name.get(bridge)
        if self._by_name and network is None:
            there_are = ", ".join(self._by_name)
            raise Refused(errno.EINVAL, f"{vif} names the network {bridge!r}, which is none; there are: {there_are}")
        if network is not None and device.backend != network.backend:
            text = f"{vif} names {device.backend!r} as its backend; network {bridge!r} is in {network.backend!r}"
            raise Refused(errno.EINVAL, text)
        live = (domain for domain in domains if domain.name != owner and domain.life is not Life.PRESERVED)
        others = chain(own, (each for domain in live for each in domain.config.devices))
        mac = device.backend_keys.get("mac")
        if mac is not None and any(_address(other) == _address(device) for other in others):
            raise Refused(errno.EEXIST, f"another vif of network {bridge} has the address {mac}: give this one mac=")

    def joined(self, device: DeviceConfig) -> DeviceConfig:
        """The device as its directories are to say; a vif of a network with all that it has of that."""
        network = self._by_name.get(_bridge(device)) if device.kind == VIF else None
        if network is None:
            return device
        unsaid = {"mtu": str(network.mtu), "hvd-guard": str(int(network.antispoof))}
        uplink = {UPLINK_KEY: network.uplink} if network.uplink else {}
        own = {key: value for key, value in device.backend_keys.items() if not key.startswith(NETWORKS_OWN)}
        rules = pack_rules(network.rules, allow_by_default=network.allow_by_default)
        front = {"mtu": unsaid["mtu"]} | device.frontend_keys
        return replace(device, backend_keys=unsaid | own | rules | uplink, frontend_keys=front)

    def naming(self, domain: str) -> str | None:
        """The first network with a rule that names this domain; None: there is none."""
        words = {f"from={domain}", f"to={domain}"}
        return next((name for name, config in self._by_name.items()
                     if any(words.intersection(rule.split()) for rule in config.rules)), None)  # fmt: skip

    def rename_backend(self, old: str, new: str) -> None:
        """A driver domain has another name, and the same switch."""
        for name, config in self._by_name.items():
            if config.backend == old:
                self._by_name[name] = replace(config, backend=new)


def _bridge(device: DeviceConfig) -> str:
    return device.backend_keys.get("bridge", BRIDGE)


def _address(device: DeviceConfig) -> tuple[str, str, str | None] | None:
    """Where its MAC address may be but once: a switch knows a station by it."""
    return (device.backend, _bridge(device), device.backend_keys.get("mac")) if device.kind == VIF else None
