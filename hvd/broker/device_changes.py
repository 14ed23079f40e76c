"""What becomes of a domain's devices when its configuration is replaced: never that their two ends are told different.

A backend's directory outlives its frontends, so a start does not write it again. Of a vif that is plugged in a new
rate holds at once, and all else it says is what it is: who wants another unplugs it. A domain that does not run has
nothing plugged in: directories that no longer say what they should go, and its next start makes them anew.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from hvd.broker import devices, hotplug
from hvd.broker.domain import ALIVE, Domain
from hvd.broker.errors import Refused
from hvd.broker.networks import VIF
from hvd.transport.ids import DOM0
from hvd.transport.messages import DeviceConfig, DomainConfig
from hvd.transport.protocols.net import GATEWAY_KEY, RATE_KEY

if TYPE_CHECKING:
    from hvd.broker.lives import Lives

SPELLED = {
    "hvd-guard": "antispoof", "hvd-vlan": "bridge", "hvd-trunk": "bridge", GATEWAY_KEY: "gateway",
    "hvd-offload": "offload", "hvd-queues": "queues",
}  # fmt: skip
"""Keys of XenStore's as a vif's line has them."""


def replaced(h: Lives, domain: Domain, config: DomainConfig) -> str:
    """Have its devices be as the configuration that takes the place of `domain.config` says; what holds at once.

    EBUSY, and nothing has changed: a vif that is plugged in would be another.
    """
    if domain.life not in ALIVE:
        _drop_stale(h, domain, config)
        return ""
    plugged = [device for device in domain.config.devices if device.kind == VIF and _is_plugged(h, domain, device)]
    pairs = [(device, _same_vif(h, domain, device, config)) for device in plugged]
    changed = [(old, new) for old, new in pairs if old.backend_keys.get(RATE_KEY) != new.backend_keys.get(RATE_KEY)]
    for old, new in changed:
        _write_rate(h, domain, old, new.backend_keys.get(RATE_KEY))
    numbers = ", ".join(str(old.devid) for old, _ in changed)
    return f"; at once the rate of vif {numbers}" if changed else ""


def _is_plugged(h: Lives, domain: Domain, device: DeviceConfig) -> bool:
    backend = h.by_name(device.backend)
    return backend is not None and h.store.exists(devices.backend_path(backend.domid, domain.domid, device))


def _same_vif(h: Lives, domain: Domain, old: DeviceConfig, config: DomainConfig) -> DeviceConfig:
    """The vif of that number in the configuration, which differs in its rate at most."""
    label = f"vif {old.devid} of domain {domain.name} is plugged in"
    unplug = f"`hvd network-detach {domain.name} {old.devid}`"
    new = hotplug.find(config, VIF, old.devid)
    if new is None:
        raise Refused(errno.EBUSY, f"{label}, and the configuration has none of that number: {unplug} first")
    one, other = h.networks.joined(old), h.networks.joined(new)
    keys = [(one.backend_keys, other.backend_keys), (one.frontend_keys, other.frontend_keys)]
    differ = {SPELLED.get(key, key) for mine, its in keys for key in mine.keys() | its.keys()
              if key != RATE_KEY and mine.get(key) != its.get(key)}  # fmt: skip
    if old.backend != new.backend:
        differ.add("backend")
    if differ:
        what = f"the configuration has another {', '.join(sorted(differ))} for it"
        plug = f"{unplug}, and `hvd network-attach` with what it is to be, or configure it while it does not run"
        raise Refused(errno.EBUSY, f"{label}, and {what}: {plug}")
    return new


def _write_rate(h: Lives, domain: Domain, device: DeviceConfig, rate: str | None) -> None:
    backend = h.by_name(device.backend)
    assert backend is not None  # it is plugged in there
    path = f"{devices.backend_path(backend.domid, domain.domid, device)}/{RATE_KEY}"
    if rate is None:
        h.store.rm(DOM0, 0, path)
    else:
        h.store.write(DOM0, 0, path, rate.encode())


def _drop_stale(h: Lives, domain: Domain, config: DomainConfig) -> None:
    for device in domain.config.devices:
        new, backend = hotplug.find(config, device.kind, device.devid), h.by_name(device.backend)
        if backend is not None and (new is None or h.networks.joined(new) != h.networks.joined(device)):
            hotplug.remove_directories(h.store, domain, device, backend.domid)
            h.media.device_removed(domain.domid, device.kind, device.devid)
