"""A network's rules as a driver domain finds them in a vif's keys, and as the table that its switch forwards by.

Every vif of a network has all of its rules (transport/net_rules.py). A packet passes when those of both its ends let
it: they are the same where the cluster has networks.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network

from hvd.domains.device import Keys
from hvd.transport._native import NetRules
from hvd.transport.net_rules import Rule, parse_rule
from hvd.transport.packed_rules import unpack_rules
from hvd.transport.records import dataclass

_RECORD = struct.Struct("<BBBBHHHHHHHBB6s6sBB16s16s")
"""struct Rule of native/packet_filter.hpp."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Rules in their order, and what becomes of a packet that none fits."""

    rules: tuple[Rule, ...]
    allow_by_default: bool


def policy_in(keys: Keys) -> Policy | None:
    """The policy in a vif's keys; None: it has none. ValueError saying what makes no sense."""
    found = unpack_rules(keys)
    return None if found is None else Policy(tuple(parse_rule(line) for line in found[0]), found[1])


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
