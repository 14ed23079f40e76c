"""The commands of xl that look at domains one by one: vcpu-list, vm-list, uptime, domid, domname, block-list."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from hvd.toolstack.cli import xl_tables
from hvd.toolstack.cli.output import print_error, print_json, print_line
from hvd.toolstack.cluster import Cluster, DomainInfo, NoSuchDomain
from hvd.toolstack.cluster.domain import full_name
from hvd.toolstack.cluster.process_times import process_times
from hvd.transport import messages as m
from hvd.transport.hypercalls import HypercallError


def vcpu_list(names: list[str], *, as_json: bool) -> None:
    """Where the domains' processes run, and what CPUs they may run on."""
    rows = [(info, process_times(info.pid)) for info in _chosen(names)]
    if as_json:
        print_json([
            {"domid": info.domid, "name": info.name, "vcpus": info.vcpus, "cpu": times.cpu, "running": times.running,
             "seconds": times.seconds, "cpus": info.cpus} for info, times in rows
        ])  # fmt: skip
    else:
        _print(xl_tables.vcpu_lines(rows))


def vm_list(*, as_json: bool) -> None:
    """The guests, with their UUIDs."""
    infos = _chosen([])
    if as_json:
        print_json([{"uuid": info.uuid, "domid": info.domid, "name": info.name} for info in infos if info.domid])
    else:
        _print(xl_tables.vm_lines(infos))


def uptime(names: list[str], *, short: bool, as_json: bool) -> None:
    """How long the domains have run, in their own time."""
    infos = _chosen(names)
    if as_json:
        print_json([{"domid": info.domid, "name": info.name, "uptime_ns": info.uptime_ns} for info in infos])
    else:
        _print(xl_tables.uptime_lines(infos, short=short, now=time.localtime()))


def domid(name: str, *, as_json: bool) -> None:
    """The number of a domain."""
    _one(lambda info: info.name == full_name(name), "domid", f"domid of domain name '{name}'", as_json=as_json)


def domname(number: int, *, as_json: bool) -> None:
    """The name of a domain."""
    _one(lambda info: info.domid == number, "name", f"domain name of domain id '{number}'", as_json=as_json)


def block_list(names: list[str], *, as_json: bool) -> None:
    """The disks of domains, and how far each is connected. A name that nobody has is told, as in xl."""
    found = []
    with Cluster.attach() as cluster:
        for name in names:
            try:
                found.append(cluster.domain(name).info())
            except NoSuchDomain:
                print_error(f"{name} is an invalid domain identifier", as_json=as_json, kind=NoSuchDomain.__name__)
        others = cluster.infos().values()
        disks = [disk for info in found for disk in _disks(cluster, info, others)]
    if as_json:
        print_json([disk._asdict() for disk in disks])
    else:
        _print(xl_tables.block_lines(disks))


def network_list(names: Sequence[str], *, as_json: bool) -> None:
    """The vifs of these domains."""
    with Cluster.attach() as cluster:
        domids = [cluster.domain(name).domid for name in names]
        infos = cluster.infos()
        nics = [nic for domid in domids for nic in nics_of(cluster, infos[domid], infos.values())]
    if as_json:
        print_json([nic._asdict() for nic in nics])
    else:
        _print(xl_tables.network_lines(nics))


def nics_of(cluster: Cluster, info: DomainInfo, infos: Sequence[DomainInfo] | Any) -> list[xl_tables.Nic]:
    """A domain's vifs, as xl tells them."""
    numbers = {other.name: int(other.domid) for other in infos}
    return [
        _nic(cluster, int(info.domid), device["devid"], numbers.get(device["backend"], -1))
        for device in info.devices
        if device["kind"] == "vif"
    ]


def _nic(cluster: Cluster, domid: int, devid: int, backend: int) -> xl_tables.Nic:
    keys = _read_all(cluster, f"/local/domain/{domid}/device/vif/{devid}")
    port = _number(keys.get("event-channel") or keys.get("event-channel-rx"))
    state, tx, rx = (_number(keys.get(key)) for key in ("state", "tx-ring-ref", "rx-ring-ref"))
    path = keys.get("backend", f"/local/domain/{backend}/backend/vif/{domid}/{devid}")
    mac = keys.get("mac") or _read_all(cluster, path).get("mac", "")
    return xl_tables.Nic(devid, backend, mac, state, port, tx, rx, path)


def _disks(cluster: Cluster, info: DomainInfo, infos: Sequence[DomainInfo] | Any) -> list[xl_tables.Disk]:
    numbers = {other.name: int(other.domid) for other in infos}
    return [
        _disk(cluster, int(info.domid), device["devid"], numbers.get(device["backend"], -1))
        for device in info.devices
        if device["kind"] == "vbd"
    ]


def _disk(cluster: Cluster, domid: int, devid: int, backend: int) -> xl_tables.Disk:
    keys = _read_all(cluster, f"/local/domain/{domid}/device/vbd/{devid}")
    state, port, ref = (_number(keys.get(key) or keys.get(f"{key}0")) for key in ("state", "event-channel", "ring-ref"))
    path = keys.get("backend", f"/local/domain/{backend}/backend/vbd/{domid}/{devid}")
    return xl_tables.Disk(devid, backend, domid, state, port, ref, path)


def _read_all(cluster: Cluster, path: str) -> dict[str, str]:
    """What stands in a directory of XenStore; nothing if there is none, as before a first start."""
    try:
        values: dict[str, bytes] = cluster.call(m.StoreReadAll(path))
    except HypercallError:
        return {}
    return {name: value.decode("utf-8", "replace") for name, value in values.items()}


def _number(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdecimal() else -1


def _chosen(names: list[str]) -> list[DomainInfo]:
    with Cluster.attach() as cluster:
        infos = cluster.infos()
        return [infos[cluster.domain(name).domid] for name in names] or list(infos.values())


def _one(wanted: Callable[[DomainInfo], bool], field: str, what: str, *, as_json: bool) -> None:
    found = next((info for info in _chosen([]) if wanted(info)), None)
    if found is None:
        raise NoSuchDomain(f"Can't get {what}, maybe this domain does not exist.")
    if as_json:
        print_json({"domid": found.domid, "name": found.name})
    else:
        print_line(str(getattr(found, field)))


def _print(lines: Sequence[str]) -> None:
    for line in lines:
        print_line(line)
