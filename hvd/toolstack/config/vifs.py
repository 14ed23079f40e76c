"""Reads one vif of a domain, as xl's vif line or as a TOML table, into the device that the wire carries."""

import re
from typing import NamedTuple

from hvd.toolstack.config.addresses import read_addresses
from hvd.toolstack.config.names import DOM0_NAME, full_name
from hvd.toolstack.config.networks import Backends, check_member
from hvd.toolstack.config.problems import Place, Report, shown
from hvd.toolstack.config.table import Table, text_in
from hvd.transport.limits import TEXT_BYTES_MAX
from hvd.transport.messages import DeviceConfig
from hvd.transport.protocols.net import BRIDGE, MTU_MAX, MTU_MIN, QUEUES_MAX, XEN_PREFIX, parse_mac, spell_mac

VLAN_MAX = 4094
DEVID_MAX = 1023
INTERVAL_US = 50_000
RATE_BYTES_MAX = (1 << 32) - 1
WRITTEN_DOWN = ("type", "model", "script", "vifname", "gatewaydev")
"""xl's keys that stand in XenStore for whoever looks, and change nothing here."""
ALIASES = {"netdev": "gatewaydev"}
"""xl's older words."""
ADVICE = ("trusted", "untrusted")
"""What a frontend may heed of its backend; hvd's trusts none."""
_BRIDGE = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]{0,62})(?:\.(\d{1,4}))?((?::\d{1,4})*)", re.ASCII)
_RATE = re.compile(r"(\d{1,12})([GMK]?)([Bb])/s(?:@(\d{1,9})(us|ms|s))?", re.ASCII)
_UNITS = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3}
_INTERVALS = {"us": 1, "ms": 1000, "s": 1_000_000}


class Vif(NamedTuple):
    """A vif as read, with what is compared between vifs."""

    place: Place
    config: DeviceConfig

    @property
    def address(self) -> tuple[str, str, str]:
        """Where its MAC address may be but once."""
        keys = self.config.backend_keys
        return self.config.backend, keys.get("bridge", BRIDGE), keys["mac"]


class Owner(NamedTuple):
    """Whose vif it is to be: the domain's name, and the number that the vif has unless it says another."""

    name: str
    number: int
    program: bool = False
    """Whether it is a program, and the vif an interface that the host's kernel has."""


def read_vif(
    report: Report, place: Place, untrusted: object, owner: Owner, networks: Backends
) -> Vif | None:
    """One vif of a domain; None if it cannot be told what is meant. Without `networks` every bridge is one.

    What it does not say is its network's, of which the hypervisor knows more than the name (hvd/broker/networks.py).
    """
    if isinstance(untrusted, dict):
        table = Table(report, place, untrusted)
    elif isinstance(untrusted, str) and (not untrusted or text_in(report, place, untrusted, TEXT_BYTES_MAX)):
        table = Table(report, place, vif_line(report, place, untrusted))
    else:
        if not isinstance(untrusted, str):
            report.wrong(place, "a vif line as xl's, or a table", shown(untrusted))
        return None
    devid = table.whole("devid", owner.number, 0, DEVID_MAX)
    bridge, vlans = _bridge(table, networks)
    backend = full_name(table.text("backend", networks.get(bridge or "", DOM0_NAME)))
    if bridge is not None:
        check_member(report, (table.at("bridge"), table.at("backend")), bridge, backend, networks)
    mac, mtu, guard = _mac(table, owner.name, devid), _mtu(table), _guard(table)
    queues = table.whole("queues", 1, 1, 1 if owner.program else QUEUES_MAX)
    offload, addresses = table.flag("offload", default=owner.program), read_addresses(table)
    backend_keys = {
        "mac": mac, "bridge": bridge or BRIDGE, "handle": str(devid), **mtu, **vlans, **_rate(table),
        **addresses.back, **guard, **{key: text for key in WRITTEN_DOWN if (text := table.text(key, ""))},
    }  # fmt: skip
    table.finish()
    front = {
        "mac": mac, **mtu, **({"hvd-queues": str(queues)} if queues > 1 else {}),
        **({"hvd-offload": "1"} if offload else {}), **addresses.front,
    }  # fmt: skip
    return Vif(place, DeviceConfig("vif", devid, backend, backend_keys, front))


def vif_line(report: Report, place: Place, line: str) -> dict[str, object]:
    """The keys of xl's vif line (xl-network-configuration(5)): key=value, with commas between."""
    values: dict[str, object] = {}
    for word in filter(None, (part.strip() for part in line.split(","))):
        key, equals, value = (part.strip() for part in word.partition("="))
        key = ALIASES.get(key, key)
        if word in ADVICE:
            report.warn(place, f"does without {word}: it is advice to Xen's drivers")
        elif not equals or not key:
            report.wrong(place, "key=value", shown(word))
        elif key in values:
            report.wrong(place, f"{key} once", f"{key} again, {shown(value)}")
        else:
            values[key] = _as_meant(key, value)
    return values


def _as_meant(key: str, value: str) -> object:
    if key in ("devid", "mtu", "queues") and value.isascii() and value.isdecimal() and len(value) < 10:
        return int(value)
    return value in ("1", "true") if key in ("antispoof", "offload") and value in ("0", "1", "true", "false") else value


def _bridge(table: Table, networks: Backends) -> tuple[str | None, dict[str, str]]:
    """The network's name, and the VLANs behind it: NAME[.VLAN][:VLAN...], those with colons tagged. None: nonsense."""
    text = table.text("bridge", next(iter(networks)) if len(networks) == 1 else BRIDGE)
    found = _BRIDGE.fullmatch(text)
    vlans = [int(each) for each in found[3].split(":")[1:]] if found else []
    if not found or not all(1 <= vlan <= VLAN_MAX for vlan in (*vlans, int(found[2] or 1))):
        expected = f"a network, .VLAN for frames without a tag, :VLAN for each that is tagged (1 to {VLAN_MAX})"
        table.report.wrong(table.at("bridge"), expected, shown(text))
        return None, {}
    keys = {"hvd-vlan": found[2]} if found[2] else {}
    return found[1], keys | ({"hvd-trunk": ":".join(map(str, vlans))} if vlans else {})


def _mac(table: Table, owner: str, devid: int) -> str:
    """The address that is given, or one of Xen's own that the domain's name and the device's number come to."""
    text = table.text("mac", "")
    if not text:
        import hashlib  # brings OpenSSL

        digest = hashlib.sha256(f"{owner}\0{devid}".encode()).digest()
        return spell_mac(XEN_PREFIX + bytes((digest[0] & 0x7F, *digest[1:3])))
    try:
        return spell_mac(parse_mac(text))
    except ValueError:
        table.report.wrong(table.at("mac"), "the MAC address of a station, as 00:16:3e:01:02:03", shown(text))
        return text


def _mtu(table: Table) -> dict[str, str]:
    mtu = table.whole("mtu", 0, MTU_MIN, MTU_MAX)
    return {"mtu": str(mtu)} if mtu else {}


def _guard(table: Table) -> dict[str, str]:
    said = table.take("antispoof") is not None
    return {"hvd-guard": str(int(table.flag("antispoof", default=True)))} if said else {}


def _rate(table: Table) -> dict[str, str]:
    """xl's rate as libxl writes it: bytes in each interval, microseconds of it."""
    text = table.text("rate", "")
    if not text:
        return {}
    found = _RATE.fullmatch(text)
    if found:
        per_second = int(found[1]) * _UNITS[found[2]] // (8 if found[3] == "b" else 1)
        interval_us = int(found[4]) * _INTERVALS[found[5]] if found[4] else INTERVAL_US
        per_interval = per_second * interval_us // 1_000_000
        if 0 < per_interval <= RATE_BYTES_MAX and 0 < interval_us <= RATE_BYTES_MAX:
            return {"rate": f"{per_interval},{interval_us}"}
    expected = f"a rate as 10Mb/s or 250KB/s@20ms, of 1 to {RATE_BYTES_MAX} bytes in each interval (if unsaid, 50ms)"
    table.report.wrong(table.at("rate"), expected, shown(text))
    return {}
