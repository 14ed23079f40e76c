"""The rules of a network: one line each, read by the toolstack for whoever wrote it, and by a driver domain.

    allow|deny [key=value ...]

    from, to        the name of a domain: whose vif the packet comes from, or is for
    mac, to-mac     its source and destination address
    ether           its type: arp, ipv4, ipv6, or a number (0x88cc)
    ip, to-ip       its source and destination: an address or a prefix of IPv4 or IPv6
    proto           what IP carries: tcp, udp, icmp, icmpv6, or a number
    port, to-port   its source and destination port, or a range (8000-8080): of a protocol that has ports

What a rule does not name fits everything. The first rule that fits a packet decides; if none does, the network's
default. Rules know no connections: an answer is a packet like any other, and so is ARP. A packet that contradicts
itself, or whose first fragment hides its ports, passes no rules at all; a later fragment has no ports, and fits no
rule that names any.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_network

from hvd.transport.protocols.net import MAC_BYTES
from hvd.transport.records import dataclass, fields

RULES_MAX = 256
RULE_BYTES_MAX = 512
VLAN_TYPES = frozenset({0x8100, 0x88A8})
ETHER_TYPES = {"arp": 0x0806, "ipv4": 0x0800, "ipv6": 0x86DD}
PROTOCOLS = {"tcp": 6, "udp": 17, "icmp": 1, "icmpv6": 58}
_WITH_PORTS = frozenset({6, 17, 33, 132, 136})
_PORTS = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?", re.ASCII)
_NUMBER = re.compile(r"0|[1-9]\d{0,4}|0x[0-9a-fA-F]{1,4}", re.ASCII)

Ports = tuple[int, int]


class BadRule(ValueError):
    """A line that is no rule; the text says what was expected and what was found."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; None fits everything."""

    allow: bool
    from_party: str | None = None
    to_party: str | None = None
    mac: bytes | None = None
    to_mac: bytes | None = None
    ether: int | None = None
    ip: IPv4Network | IPv6Network | None = None
    to_ip: IPv4Network | IPv6Network | None = None
    protocol: int | None = None
    port: Ports | None = None
    to_port: Ports | None = None


KEYS = {"from": "from_party", "to": "to_party", "mac": "mac", "to-mac": "to_mac", "ether": "ether", "ip": "ip",
        "to-ip": "to_ip", "proto": "protocol", "port": "port", "to-port": "to_port"}  # fmt: skip
assert set(KEYS.values()) == {each.name for each in fields(Rule)} - {"allow"}


def parse_rule(line: str) -> Rule:
    """The rule that a line says; BadRule when it says none."""
    words = line.split()
    if ";" in line:
        raise BadRule("a rule has no semicolon")
    if len(line.encode()) > RULE_BYTES_MAX:
        raise BadRule(f"a rule has at most {RULE_BYTES_MAX} bytes, not {len(line.encode())}")
    if not words or words[0] not in ("allow", "deny"):
        raise BadRule(f"a rule begins with allow or deny, not with {words[0] if words else 'nothing'!r}")
    found: dict[str, object] = {}
    for word in words[1:]:
        key, equals, value = word.partition("=")
        if not equals or key not in KEYS:
            raise BadRule(f"expected key=value with one of {', '.join(KEYS)}; found {word!r}")
        if KEYS[key] in found:
            raise BadRule(f"{key} stands there twice")
        found[KEYS[key]] = _value(key, value)
    return _consistent(Rule(words[0] == "allow", **found))  # type: ignore[arg-type]


def _value(key: str, value: str) -> object:
    if key in ("from", "to"):
        if not value:
            raise BadRule(f"{key} names no domain")
        return value
    if key in ("mac", "to-mac"):
        return _mac(key, value)
    if key in ("ip", "to-ip"):
        try:
            return ip_network(value)
        except ValueError:
            raise BadRule(f"{key} is an address or a prefix whose other bits are 0, not {value!r}") from None
    if key in ("port", "to-port"):
        return _ports(key, value)
    names, most = (ETHER_TYPES, 0xFFFF) if key == "ether" else (PROTOCOLS, 0xFF)
    return names[value] if value in names else _number(key, value, names, most)


def _mac(key: str, value: str) -> bytes:
    """Of a station or a group."""
    if re.fullmatch(r"[0-9a-fA-F]{1,2}(:[0-9a-fA-F]{1,2}){5}", value, re.ASCII):
        return bytes(int(part, 16) for part in value.split(":"))
    raise BadRule(f"{key} is {MAC_BYTES} pairs of hexadecimal digits with colons between, not {value!r}")


def _ports(key: str, value: str) -> Ports:
    found = _PORTS.fullmatch(value)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= first <= last <= 0xFFFF:
        raise BadRule(f"{key} is a port from 1 to 65535, or a range like 8000-8080, not {value!r}")
    return first, last


def _number(key: str, value: str, names: dict[str, int], most: int) -> int:
    number = int(value, 0) if _NUMBER.fullmatch(value) else -1
    if not 0 <= number <= most or (key == "ether" and number == 0):
        raise BadRule(f"{key} is one of {', '.join(names)}, or a number up to {most:#x}, not {value!r}")
    return number


def _consistent(rule: Rule) -> Rule:
    """Whether one packet could fit it at all."""
    versions = {network.version for network in (rule.ip, rule.to_ip) if network is not None}
    if rule.ether in VLAN_TYPES:
        raise BadRule("ether is the type behind the VLAN tag; VLANs are told apart by each vif's bridge=NAME.VLAN")
    if len(versions) > 1:
        raise BadRule("ip and to-ip are of different versions")
    if (rule.port or rule.to_port) and rule.protocol not in _WITH_PORTS:
        raise BadRule("port and to-port need proto=tcp or proto=udp beside them")
    ip_types = {ETHER_TYPES["ipv4"] if version == 4 else ETHER_TYPES["ipv6"] for version in versions}
    if rule.ether is not None and ((ip_types and rule.ether not in ip_types) or (
        rule.protocol is not None and rule.ether not in (ETHER_TYPES["ipv4"], ETHER_TYPES["ipv6"])
    )):  # fmt: skip
        raise BadRule("ether says another type than ip, to-ip or proto")
    return rule
