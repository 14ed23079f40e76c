"""What the toolstack has written of a vif for its backend: read from XenStore's keys into values.

    mac         its address           bridge     the network's name         rate   bytes,microseconds, as xl writes it
    mtu         of its network        ip         its own addresses, with spaces between
    hvd-vlan    of frames without a tag; 0: none                            hvd-trunk  VLANs of tagged frames, with
    colons hvd-guard   0: it may claim to be anybody (else its MAC address, and `ip` if there is one, are held to)
    hvd-default, hvd-rules0, hvd-rules1, ...: its network's rules (transport/packed_rules.py)
    hvd-uplink  the host's TAP device that is in its network too
    hvd-link    down: as if its cable were out
"""

from __future__ import annotations

import re
from ipaddress import ip_address

from hvd.domains.device import Keys
from hvd.domains.net.policy import Policy, policy_in
from hvd.transport.protocols.net import BRIDGE, LINK_KEY, MTU, MTU_MAX, MTU_MIN, UPLINK_KEY, chosen_mac, parse_mac
from hvd.transport.records import dataclass, field

VLAN_MAX = 4094
_RATE = re.compile(r"(\d{1,15}),(\d{1,10})", re.ASCII)


@dataclass(frozen=True, slots=True)
class VifSettings:
    """One vif's."""

    mac: bytes
    network: str = BRIDGE
    party: str = ""
    """The name of the frontend's domain, by which rules call it."""
    mtu: int = MTU
    vlan: int = 0
    trunk: list[int] = field(default_factory=list)
    rate_bytes: int = 0
    rate_interval_us: int = 0
    guarded: bool = True
    addresses: list[bytes] = field(default_factory=list)
    policy: Policy | None = None
    link_up: bool = True
    has_uplink: bool = False
    """Whether a device of the host is in its network too."""


def settings_in(keys: Keys, frontend: int) -> VifSettings:
    """ValueError naming the key that makes no sense."""
    devid = int(keys.get("frontend", "0").rpartition("/")[2])
    rate_bytes, interval_us = rate_in(keys.get("rate", ""))
    return VifSettings(
        mac=parse_mac(keys["mac"]) if "mac" in keys else chosen_mac(frontend, devid),
        network=keys.get("bridge", BRIDGE),
        party=keys.get("domain", ""),
        mtu=_number(keys, "mtu", MTU, MTU_MIN, MTU_MAX),
        vlan=_number(keys, "hvd-vlan", 0, 0, VLAN_MAX),
        trunk=[_whole("hvd-trunk", vlan, 1, VLAN_MAX) for vlan in keys.get("hvd-trunk", "").split(":") if vlan],
        rate_bytes=rate_bytes,
        rate_interval_us=interval_us,
        guarded=keys.get("hvd-guard", "1") != "0",
        addresses=[ip_address(text).packed for text in keys.get("ip", "").split()],
        policy=policy_in(keys),
        link_up=link_up(keys.get(LINK_KEY, "")),
        has_uplink=UPLINK_KEY in keys,
    )


def link_up(text: str) -> bool:
    """What `hvd-link` says; nothing, and nonsense, is up."""
    return text != "down"


def rate_in(text: str) -> tuple[int, int]:
    """Bytes in each interval, microseconds of it; 0: no limit. ValueError naming the key."""
    found = _RATE.fullmatch(text)
    if not text:
        return 0, 0
    if found is None or int(found[2]) == 0:
        raise ValueError(f"rate is {text[:40]!r}, not bytes,microseconds")
    return int(found[1]), int(found[2])


def _number(keys: Keys, name: str, default: int, least: int, most: int) -> int:
    return _whole(name, keys[name], least, most) if name in keys else default


def _whole(name: str, text: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 9 and least <= int(text) <= most):
        raise ValueError(f"{name} has {text[:40]!r}, which is no whole number from {least} to {most}")
    return int(text)
