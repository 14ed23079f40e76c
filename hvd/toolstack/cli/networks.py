"""The command that shows the cluster's networks: what each is, and which vifs are in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from hvd.toolstack.cli.output import print_json, print_line, print_table
from hvd.toolstack.cluster import Cluster
from hvd.toolstack.config.problems import ConfigError, Problem, nearest, shown

Row = dict[str, Any]
HEADS = ("Name", "Switch", "MTU", "Default", "Rules", "VLANs", "Uplink", "Vifs")
VIF_HEADS = ("Domain", "Vif", "MAC", "MTU", "VLAN", "Tagged", "Rate", "Addresses", "Guard", "Link", "State")
NOBODY: Row = {"mtu": None, "antispoof": None, "default": "allow", "rules": [], "uplink": None}
"""What is known of a bridge in a cluster that has no networks: its vifs alone."""
UNITS = ((10**9, "Gb/s"), (10**6, "Mb/s"), (10**3, "Kb/s"))


def networks(names: Sequence[str], *, as_json: bool) -> None:
    """All networks in a table, or these with their rules and vifs."""
    with Cluster.attach() as cluster:
        found = networks_of(cluster)
    chosen = [_named(found, name) for name in names] or found
    if as_json:
        print_json(chosen)
    elif names:
        for network in chosen:
            _print_whole(network)
    else:
        print_table(HEADS, [_line(network) for network in found])


def networks_of(cluster: Cluster) -> list[Row]:
    """Each as `Cluster.network` has it, with {vlans, vifs}; in a cluster without any, each bridge that a vif names."""
    vifs = cluster.vifs()
    rows = [cluster.network(name) for name in cluster.networks()]
    if not rows:
        bridges = dict.fromkeys((vif["network"], vif["backend"]) for vif in vifs)
        rows = [{"name": bridge, "backend": backend, **NOBODY} for bridge, backend in bridges]
    return [row | _members(row, vifs) for row in rows]


def _members(network: Row, vifs: Iterable[Row]) -> Row:
    key = network["name"], network["backend"]
    its = [vif for vif in vifs if (vif["network"], vif["backend"]) == key]
    vlans = {vlan for vif in its for vlan in (vif["vlan"], *vif["trunk"]) if vlan}
    return {"vlans": sorted(vlans), "vifs": its}


def _named(found: Sequence[Row], name: str) -> Row:
    for network in found:
        if network["name"] == name:
            return network
    names = [network["name"] for network in found]
    expected = f"a network of the cluster ({', '.join(names) or 'there is none'})"
    raise ConfigError([Problem("command line", "NETWORK", expected, shown(name), nearest(name, sorted(names)))])


def _line(network: Row) -> tuple[str, ...]:
    return (
        network["name"], network["backend"], _or_dash(network["mtu"]).rjust(4), network["default"],
        str(len(network["rules"])).rjust(5), _or_dash(network["vlans"]), _or_dash(network["uplink"]),
        _or_dash([f"{vif['name']}/{vif['devid']}" for vif in network["vifs"]]),
    )  # fmt: skip


def _print_whole(network: Row) -> None:
    guard = {True: "on", False: "off", None: "as each vif says"}[network["antispoof"]]
    mtu, uplink, vlans = (_or_dash(network[key]) for key in ("mtu", "uplink", "vlans"))
    print_line(f"{network['name']}: in the switch of {network['backend']}, MTU {mtu}, antispoof {guard}, "
               f"uplink {uplink}, VLANs {vlans}")  # fmt: skip
    for rule in network["rules"]:
        print_line(f"    {rule}")
    print_line(f"    {network['default']} what no rule fits")
    print_table(VIF_HEADS, [_vif_line(vif) for vif in network["vifs"]])


def _vif_line(vif: Row) -> tuple[str, ...]:
    return (
        vif["name"], str(vif["devid"]).rjust(3), _or_dash(vif["mac"]), _or_dash(vif["mtu"]), _or_dash(vif["vlan"]),
        _or_dash(vif["trunk"]), rate(vif["rate"]), _or_dash(vif["ip"]), "on" if vif["antispoof"] else "off",
        vif["link"], _or_dash(vif["state"]),
    )  # fmt: skip


def rate(given: Sequence[int] | None) -> str:
    """As people write it: bits a second, from bytes in so many microseconds."""
    if not given or not given[1]:
        return "-"
    bits = given[0] * 8_000_000 / given[1]
    return next((f"{bits / unit:.4g}{name}" for unit, name in UNITS if bits >= unit), f"{bits:.4g}b/s")


def _or_dash(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return "-" if value is None else str(value)
