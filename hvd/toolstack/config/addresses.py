"""Reads a vif's addresses: `ip`, which are its own, each with a prefix or without, and `gateway`."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface
from typing import NamedTuple

from hvd.toolstack.config.problems import shown
from hvd.toolstack.config.table import Table
from hvd.transport.protocols.net import GATEWAY_KEY, PREFIXES

ADDRESSES_MAX = 16


class Addresses(NamedTuple):
    """The keys of either end: whose packets the backend lets through, and what an interface of a program is given."""

    back: dict[str, str]
    front: dict[str, str]


def read_addresses(table: Table) -> Addresses:
    """Whatever is wrong is reported, and left out."""
    text = table.text("ip", "")
    found = _own(text)
    if found is None:
        expected = f"at most {ADDRESSES_MAX} IPv4 or IPv6 addresses with spaces between, as 10.0.0.2 or 10.0.0.2/16"
        table.report.wrong(table.at("ip"), expected, shown(text))
    gateways = _gateways(table, found or [])
    if not found:
        return Addresses({}, gateways)
    return Addresses({"ip": " ".join(str(each.ip) for each in found)}, {"ip": " ".join(text.split()), **gateways})


def _own(text: str) -> list[IPv4Interface | IPv6Interface] | None:
    """With the prefix that is theirs where none is said."""
    try:
        plain = [word if "/" in word else f"{word}/{PREFIXES[ip_address(word).version]}" for word in text.split()]
        return [ip_interface(word) for word in plain] if len(plain) <= ADDRESSES_MAX else None
    except ValueError:
        return None


def _gateways(table: Table, own: Sequence[IPv4Interface | IPv6Interface]) -> dict[str, str]:
    """One of each version at most, which one of its own addresses reaches."""
    text = table.text("gateway", "")
    try:
        found = [ip_address(word) for word in text.split()]
    except ValueError:
        found = []
    reached = all(any(each in one.network and each != one.ip for one in own) or each.is_link_local for each in found)
    if text and (not found or not reached or len({each.version for each in found}) < len(found)):
        expected = "an IPv4 address, an IPv6 address, or both, in the networks of the vif's ip"
        table.report.wrong(table.at("gateway"), expected, shown(text))
        return {}
    return {GATEWAY_KEY: " ".join(map(str, found))} if found else {}
