"""The cluster's networks and the vifs that are in them, for whoever looks; nothing is changed."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from hvd.broker import devices
from hvd.broker.errors import Refused
from hvd.broker.networks import VIF
from hvd.broker.store import StoreError
from hvd.transport.ids import DOM0
from hvd.transport.messages import DeviceConfig
from hvd.transport.protocols.net import BRIDGE, CHANGING_KEYS, LINK_KEY, MTU, RATE_KEY
from hvd.transport.xenbus_state import XenbusState, parse_state

if TYPE_CHECKING:
    from hvd.broker.domain import Domain
    from hvd.broker.hypervisor import Hypervisor

Row = dict[str, Any]
NUMBER_DIGITS_MAX = 9
_RATE = re.compile(r"(\d{1,15}),(\d{1,10})", re.ASCII)


def network(h: Hypervisor, name: str) -> Row:
    """{name, backend, mtu, antispoof, default, rules, uplink}, as the cluster's file has it. ENOENT: there is none."""
    config = h.networks.config(name)
    if config is None:
        raise Refused(errno.ENOENT, f"the cluster has no network {name!r}")
    return {
        "name": config.name, "backend": config.backend, "mtu": config.mtu, "antispoof": config.antispoof,
        "default": "allow" if config.allow_by_default else "deny", "rules": list(config.rules),
        "uplink": config.uplink or None,
    }  # fmt: skip


def vifs_of(h: Hypervisor, domain: Domain) -> Iterator[Row]:
    """A row for each: {domid, name, devid, network, backend, mac, mtu, ip, rate, vlan, trunk, antispoof, link, state}.

    `rate` is [bytes, microseconds] or None, `vlan` that of frames without a tag or None, `trunk` those of tagged ones,
    `state` the frontend's, None of one that is not plugged in before its domain's next start.
    """
    for device in domain.config.devices:
        if device.kind == VIF:
            yield _row(h, domain, h.networks.joined(device))


def _row(h: Hypervisor, domain: Domain, device: DeviceConfig) -> Row:
    keys, state = device.backend_keys, parse_state(_read(h, devices.frontend_path(domain.domid, device), "state"))
    trunk, untrusted_changing = map(_number, keys.get("hvd-trunk", "").split(":")), _changing(h, domain, device)
    rate = _RATE.fullmatch(untrusted_changing.get(RATE_KEY) or "")
    return {
        "domid": domain.domid, "name": domain.name, "devid": device.devid, "network": keys.get("bridge", BRIDGE),
        "backend": device.backend, "mac": keys.get("mac"), "mtu": _number(keys.get("mtu", str(MTU))),
        "ip": keys.get("ip", "").split(), "rate": [int(rate[1]), int(rate[2])] if rate else None,
        "vlan": _number(keys.get("hvd-vlan", "")), "trunk": [vlan for vlan in trunk if vlan is not None],
        "antispoof": keys.get("hvd-guard", "1") != "0",
        "link": "down" if untrusted_changing.get(LINK_KEY) == "down" else "up",
        "state": None if state is XenbusState.UNKNOWN else state.name.lower(),
    }  # fmt: skip


def _changing(h: Hypervisor, domain: Domain, device: DeviceConfig) -> dict[str, str | None]:
    """What may change while it is plugged in, from where its driver domain reads it, and may write too."""
    backend = h.by_name(device.backend)
    path = "" if backend is None else devices.backend_path(backend.domid, domain.domid, device)
    if not path or not h.store.exists(path):
        return {name: device.backend_keys.get(name) for name in CHANGING_KEYS}
    return {name: _read(h, path, name) for name in CHANGING_KEYS}


def _number(text: str) -> int | None:
    """A toolstack may have written anything."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= NUMBER_DIGITS_MAX else None


def _read(h: Hypervisor, path: str, name: str) -> str | None:
    try:
        return h.store.read(DOM0, 0, f"{path}/{name}").decode("utf-8", "replace")
    except StoreError:
        return None
