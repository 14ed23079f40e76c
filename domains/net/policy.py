"""A network's rules as a driver domain finds them in a vif's keys, and as the table that its switch forwards by.

Keys: `hvd-default` (allow, or deny), `hvd-rule0`, `hvd-rule1`, ...: lines as in transport/net_rules.py. Every vif of
a network has all of them. A packet passes when the rules of both its ends let it: those are the same, unless a vif
was plugged in under others.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from hvd.domains.device import Keys
from hvd.transport._native import NetRules
from hvd.transport.net_rules import RULES_MAX, Rule, parse_rule

_RECORD = struct.Struct("<BBBBHHHHHHHBB6s6sBB16s16s")
"""struct Rule of native/packet_filter.hpp."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Rules in their order, and what becomes of a packet that none fits."""

    rules: tuple[Rule, ...]
    allow_by_default: bool


def policy_in(keys: Keys) -> Policy | None:
    """The policy in a vif's keys; None: it has none. ValueError naming the key that makes no sense."""
    lines: list[str] = []
    while (line := keys.get(f"hvd-rule{len(lines)}")) is not None and len(lines) < RULES_MAX:
        lines.append(line)
    default = keys.get("hvd-default")
    if default is None and not lines:
        return None
    if default not in (None, "allow", "deny"):
        raise ValueError(f"hvd-default is {default[:40]!r}, neither allow nor deny")
    return Policy(tuple(parse_rule(line) for line in lines), default != "deny")


def compile_policy(policy: Policy, party: Callable[[str], int]) -> NetRules:
    """The table; `party(name)` is the number that a domain's vifs have in the switch."""
    return NetRules(b"".join(_record(rule, party) for rule in policy.rules), policy.allow_by_default)


def _record(rule: Rule, party: Callable[[str], int]) -> bytes:
    versions = [network.version for network in (rule.ip, rule.to_ip) if network is not None]
    return _RECORD.pack(
        rule.allow,
        versions[0] if versions else 0,
        rule.protocol is not None,
        rule.protocol or 0,
        rule.ether or 0,
        party(rule.from_party) if rule.from_party is not None else 0,
        party(rule.to_party) if rule.to_party is not None else 0,
        *(rule.port or (0, 0)),
        *(rule.to_port or (0, 0)),
        rule.mac is not None,
        rule.to_mac is not None,
        rule.mac or bytes(6),
        rule.to_mac or bytes(6),
        *(network.prefixlen if network is not None else 0 for network in (rule.ip, rule.to_ip)),
        *(_prefix(network) for network in (rule.ip, rule.to_ip)),
    )


def _prefix(network: IPv4Network | IPv6Network | None) -> bytes:
    return b"" if network is None else network.network_address.packed
