"""What must hold between the domains of a cluster file: names, backends, shared images, an order to start in."""

from collections.abc import Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from hvd.toolstack.config.disks import WRITE_LOG, Disk
from hvd.toolstack.config.domains import Draft
from hvd.toolstack.config.groups import GroupDraft, check_groups, starts_behind
from hvd.toolstack.config.names import DOM0_NAME, DOM0_NAMES
from hvd.toolstack.config.networks import Network
from hvd.toolstack.config.problems import Place, Report, nearest, shown
from hvd.toolstack.config.vifs import Vif
from hvd.transport.protocols.net import UPLINK
from hvd.transport.sandbox import WRITABLE, split_path

Running = Mapping[str, bool]
"""The domains of a running cluster beside dom0, by name: whether each is a driver domain."""


def check_relations(
    report: Report, drafts: list[Draft], running: Running, groups: Sequence[GroupDraft] = (),
    networks: Iterable[Network] = (),
) -> None:
    """Report every relation that does not hold, among these domains, groups, networks, and with what is running."""
    by_name = _named(report, drafts, running)
    check_groups(report, list(groups), {name: draft.place for name, draft in by_name.items()})
    for draft in drafts:
        _check_names(report, draft, by_name, running)
        _check_device_numbers(report, draft)
        _check_logs(report, draft, by_name)
    _check_writers(report, [disk for draft in drafts for disk in draft.disks])
    _check_addresses(report, [vif for draft in drafts for vif in draft.vifs])
    found = list(networks)
    for network in found:
        _check_network(report, network, by_name, running)
    _check_uplinks(report, found, by_name)
    if not _check_cycles(report, by_name):
        _check_group_order(report, by_name, list(groups))


def start_order(drafts: list[Draft], groups: Sequence[GroupDraft] = ()) -> tuple[str, ...]:
    """Every name but dom0's, each behind those it comes `after`, those that host its backends, and earlier members."""
    by_name = {draft.config.name: draft for draft in drafts}
    return tuple(TopologicalSorter(_in_group_order(_waits_for(by_name), list(groups))).static_order())


def _in_group_order(graph: dict[str, list[str]], groups: list[GroupDraft]) -> dict[str, list[str]]:
    for later, earlier in starts_behind(groups):
        if {later, earlier} <= graph.keys():
            graph[later].append(earlier)
    return graph


def _check_group_order(report: Report, by_name: dict[str, Draft], groups: list[GroupDraft]) -> None:
    """Members stand in an order in which they can start."""
    cycle = _cycle(_in_group_order(_waits_for(by_name), groups))
    if cycle:
        inside = [group for group in groups if set(cycle) & set(group.config.members)]
        place = (*(inside or groups)[0].place, "members")
        hint = "each is to start behind the next: through after, as the backend of a device, or as members of a group"
        report.wrong(place, "members in an order to start in", " → ".join(cycle), hint)


def _named(report: Report, drafts: list[Draft], running: Running) -> dict[str, Draft]:
    by_name: dict[str, Draft] = {}
    for draft in drafts:
        name = draft.config.name
        if name in running:
            report.wrong((*draft.place, "name"), "a name of its own", f"{shown(name)}, the name of a running domain")
        if name in by_name:
            found = f"{shown(name)}, the name of {report.spell(by_name[name].place)}"
            report.wrong((*draft.place, "name"), "a name of its own", found)
        elif name and name not in DOM0_NAMES:
            by_name[name] = draft
    return by_name


def _check_names(report: Report, draft: Draft, by_name: dict[str, Draft], running: Running) -> None:
    known = [DOM0_NAME, *by_name, *running]
    for place, name in draft.after:
        if name not in known:
            report.wrong(place, "the name of a domain", shown(name), nearest(name, known))
    for place, device in draft.devices:
        host = by_name.get(device.backend)
        if device.backend not in known:
            expected = "the name of a driver domain"
            report.wrong((*place, "backend"), expected, shown(device.backend), nearest(device.backend, known))
        elif host and not host.config.driver_domain:
            found = f"{shown(device.backend)}, which is none"
            hint = f"give {report.spell(host.place)} driver_domain = true"
            report.wrong((*place, "backend"), "a driver domain", found, hint)
        elif not host and not running.get(device.backend, True):
            report.wrong((*place, "backend"), "a driver domain", f"{shown(device.backend)}, which is none")


def _check_device_numbers(report: Report, draft: Draft) -> None:
    seen: dict[int, Disk] = {}
    for disk in draft.disks:
        first = seen.setdefault(disk.config.devid, disk)
        if first is not disk:
            found = f"{shown(disk.config.backend_keys['dev'])}, as in {report.spell(first.place)}"
            report.wrong((*disk.place, "vdev"), "a device of its own", found)


def _check_logs(report: Report, draft: Draft, by_name: dict[str, Draft]) -> None:
    """A backend can only write the files that its domain is given."""
    for disk in draft.disks:
        log, host = disk.config.backend_keys.get(WRITE_LOG), by_name.get(disk.config.backend)
        if log is None or host is None:
            continue
        given = [Path(path) for path, writable in map(split_path, host.config.paths) if writable]
        if not any(path in (Path(log), *Path(log).parents) for path in given):
            hint = f'give {report.spell(host.place)} paths = ["{log}{WRITABLE}"]'
            report.wrong((*disk.place, "write_log"), "a file that its backend may write", shown(log), hint)


def _check_addresses(report: Report, vifs: list[Vif]) -> None:
    """A switch knows a station by its address."""
    first: dict[tuple[str, str, str], Vif] = {}
    for vif in vifs:
        other = first.setdefault(vif.address, vif)
        if other is not vif:
            _, bridge, mac = vif.address
            found = f"{shown(mac)}, as in {report.spell(other.place)}, in the same network {bridge}"
            report.wrong((*vif.place, "mac"), "an address of its own", found, "give one of them mac=")


def _check_network(report: Report, network: Network, by_name: dict[str, Draft], running: Running) -> None:
    """Its switch is in a driver domain, and its rules name domains that there are."""
    known, backend = [DOM0_NAME, *by_name, *running], network.config.backend
    parties = [*known, UPLINK] if network.config.uplink else known
    named = [(place, party, parties) for place, party in _named_in(network)]
    for place, name, there_are in [((*network.place, "backend"), backend, known), *named]:
        if name not in there_are:
            report.wrong(place, "the name of a domain", shown(name), nearest(name, there_are))
    host = by_name.get(backend)
    if host and not host.config.driver_domain:
        hint = f"give {report.spell(host.place)} driver_domain = true"
        report.wrong((*network.place, "backend"), "a driver domain", f"{shown(backend)}, which is none", hint)


def _check_uplinks(report: Report, networks: Sequence[Network], by_name: dict[str, Draft]) -> None:
    """A TAP device is in one network, and rules that name an uplink name no domain."""
    first: dict[str, Network] = {}
    for network in networks:
        tap = network.config.uplink
        other = first.setdefault(tap, network) if tap else network
        if other is not network:
            found = f"{shown(tap)}, the uplink of {report.spell(other.place)}"
            report.wrong((*network.place, "uplink"), "a TAP device of its own", found)
    if first and UPLINK in by_name:
        expected = "another name: rules call the uplink of a network so"
        report.wrong((*by_name[UPLINK].place, "name"), expected, shown(UPLINK))


def _named_in(network: Network) -> list[tuple[Place, str]]:
    parties = [(place, party) for place, rule in network.rules for party in (rule.from_party, rule.to_party)]
    return [(place, party) for place, party in parties if party is not None]


def _check_writers(report: Report, disks: list[Disk]) -> None:
    writers: dict[tuple[int, int], Disk] = {}
    for disk in disks:
        if disk.image is None or not disk.writable:
            continue
        first = writers.setdefault(disk.image, disk)
        if first is not disk:
            found = f"{shown(disk.config.backend_keys['params'])}, which {report.spell(first.place)} writes too"
            hint = "access=ro reads it beside a writer"
            report.wrong((*disk.place, "target"), "an image with one writer", found, hint)


def _waits_for(by_name: dict[str, Draft]) -> dict[str, list[str]]:
    return {
        name: [
            other
            for other in dict.fromkeys([*draft.config.after, *(device.backend for device in draft.config.devices)])
            if other in by_name
        ]
        for name, draft in by_name.items()
    }


def _check_cycles(report: Report, by_name: dict[str, Draft]) -> bool:
    """Each cycle found is reported and taken out, until none is left; whether there was one."""
    graph = _waits_for(by_name)
    found = False
    while cycle := _cycle(graph):
        place = by_name[cycle[0]].place
        hint = "each waits for the next, through after or as the backend of a device"
        report.wrong((*place, "after"), "an order to start in", " → ".join(cycle), hint)
        for name in set(cycle):
            del graph[name]
        graph = {name: [other for other in others if other in graph] for name, others in graph.items()}
        found = True
    return found


def _cycle(graph: dict[str, list[str]]) -> list[str]:
    """Names from one back to itself, each waiting for the next; empty if there is no cycle."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found[::-1]  # graphlib lists who is waited for first
    return []
