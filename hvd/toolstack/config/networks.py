"""Reads `[[network]]`: what holds for every vif that names it as its bridge."""

from __future__ import annotations

from typing import NamedTuple

from hvd.toolstack.config.names import DOM0_NAME, full_name
from hvd.toolstack.config.problems import Place, shown
from hvd.toolstack.config.table import Table, text_in
from hvd.transport.net_rules import RULE_BYTES_MAX, RULES_MAX, BadRule, Rule, pack_rules, parse_rule
from hvd.transport.protocols.net import MTU, MTU_MAX, MTU_MIN


class Network(NamedTuple):
    """A network as read."""

    place: Place
    name: str
    backend: str
    """The domain whose switch it is in."""
    mtu: int
    antispoof: bool
    rules: list[tuple[Place, Rule]]
    keys: dict[str, str]
    """What its vifs' backends are told of its rules; nothing, if it has none and lets everything pass."""


def read_network(table: Table) -> Network:
    """One `[[network]]`. Whatever is wrong in it is reported and replaced by something that can be read on."""
    name = table.name("name")
    table.report.label(table.place, name)
    backend = full_name(table.text("backend", DOM0_NAME))
    mtu = table.whole("mtu", MTU, MTU_MIN, MTU_MAX)
    antispoof = table.flag("antispoof", default=True)
    allow = table.choice("default", "allow", ("allow", "deny")) == "allow"
    lines, rules = _rules(table)
    table.finish()
    keys = {} if allow and not lines else pack_rules(lines, allow_by_default=allow)
    return Network(table.place, name, backend, mtu, antispoof, rules, keys)


def read_networks(root: Table) -> dict[str, Network]:
    """Every network of a cluster file by its name."""
    networks: dict[str, Network] = {}
    for network in (read_network(table) for table in root.tables("network", "network")):
        if network.name in networks:
            found = f"{shown(network.name)}, the name of {root.report.spell(networks[network.name].place)}"
            root.report.wrong((*network.place, "name"), "a name of its own", found)
        networks[network.name] = network
    return networks


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
    return lines, rules
