"""Reads `[[network]]`: what holds for every vif that names it as its bridge."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from hvd.toolstack.config.names import DOM0_NAME, full_name
from hvd.toolstack.config.problems import Place, Report, nearest, shown
from hvd.toolstack.config.table import Table, text_in
from hvd.transport.limits import NETWORKS_MAX
from hvd.transport.messages import NetworkConfig
from hvd.transport.net_rules import RULE_BYTES_MAX, RULES_MAX, BadRule, Rule, parse_rule
from hvd.transport.packed_rules import RULES_BYTES_MAX
from hvd.transport.protocols.net import MTU, MTU_MAX, MTU_MIN

_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}", re.ASCII)
Backends = Mapping[str, str]
"""The networks that vifs may be of, by name: the domain whose switch each is in."""


class Network(NamedTuple):
    """A network as read."""

    place: Place
    config: NetworkConfig
    rules: list[tuple[Place, Rule]]


def read_network(table: Table) -> Network:
    """One `[[network]]`. Whatever is wrong in it is reported and replaced by something that can be read on."""
    name = table.name("name")
    table.report.label(table.place, name)
    backend = full_name(table.text("backend", DOM0_NAME))
    mtu = table.whole("mtu", MTU, MTU_MIN, MTU_MAX)
    antispoof = table.flag("antispoof", default=True)
    allow = table.choice("default", "allow", ("allow", "deny")) == "allow"
    lines, rules = _rules(table)
    config = NetworkConfig(name, backend, mtu, antispoof, allow, lines, _uplink(table))
    table.finish()
    return Network(table.place, config, rules)


def as_table(config: NetworkConfig) -> dict[str, object]:
    """What a cluster file says of it: a network that a program describes is read, and so checked, as a file's is."""
    said: dict[str, object] = {
        "name": config.name, "backend": config.backend, "mtu": config.mtu, "antispoof": config.antispoof,
        "default": "allow" if config.allow_by_default else "deny", "rules": list(config.rules),
    }  # fmt: skip
    return said | ({"uplink": config.uplink} if config.uplink else {})


def check_member(report: Report, places: tuple[Place, Place], bridge: str, backend: str, networks: Backends) -> None:
    """Report a vif, whose bridge and backend are at these places, of no network, or of one that is in another switch.

    Without networks every bridge is one.
    """
    if networks and bridge not in networks:
        expected = f"a network of the cluster ({', '.join(networks)})"
        report.wrong(places[0], expected, shown(bridge), nearest(bridge, sorted(networks)))
    switch = networks.get(bridge, backend)
    if backend != switch:
        report.wrong(places[1], f"{switch}, which has the network {bridge}", shown(backend))


def read_networks(root: Table) -> dict[str, Network]:
    """Every network of a cluster file by its name."""
    networks: dict[str, Network] = {}
    tables = root.tables("network", "network")
    if len(tables) > NETWORKS_MAX:
        root.report.wrong(root.at("network"), f"at most {NETWORKS_MAX} networks", str(len(tables)))
    for network in map(read_network, tables):
        name = network.config.name
        if name in networks:
            found = f"{shown(name)}, the name of {root.report.spell(networks[name].place)}"
            root.report.wrong((*network.place, "name"), "a name of its own", found)
        networks[name] = network
    return networks


def _uplink(table: Table) -> str:
    """The name of a network interface, as the kernel takes them."""
    tap = table.text("uplink", "")
    if tap and not _INTERFACE.fullmatch(tap):
        expected = "the name of a TAP device: 1 to 15 letters, digits, _ - ., the first a letter or digit"
        table.report.wrong(table.at("uplink"), expected, shown(tap))
        return ""
    return tap


def _rules(table: Table) -> tuple[list[str], list[tuple[Place, Rule]]]:
    lines: list[str] = []
    rules: list[tuple[Place, Rule]] = []
    for index, item in enumerate(table.items("rules", "rules")):
        place = table.at("rules", index)
        line = text_in(table.report, place, item, RULE_BYTES_MAX)
        if line is None:
            continue
        try:
            rules.append((place, parse_rule(line)))
            lines.append(" ".join(line.split()))
        except BadRule as error:
            table.report.wrong(place, "a rule of a network", str(error))
    if len(rules) > RULES_MAX:
        table.report.wrong(table.at("rules"), f"at most {RULES_MAX} rules", str(len(rules)))
    size = sum(len(line.encode()) for line in lines)
    if size > RULES_BYTES_MAX:
        table.report.wrong(table.at("rules"), f"rules of at most {RULES_BYTES_MAX} bytes in all", str(size))
    return lines, rules
