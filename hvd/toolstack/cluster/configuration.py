"""What a machine boots from: the cluster's domains, checked and in an order in which each finds those it needs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import msgpack

from hvd.toolstack.cluster.boot_plan import BootPlan
from hvd.toolstack.config import ClusterConfig, load
from hvd.toolstack.config.cluster_file import check_labels
from hvd.toolstack.config.cpus import read_cpus
from hvd.toolstack.config.domains import Draft
from hvd.toolstack.config.groups import GroupDraft
from hvd.toolstack.config.kernels import Kernels
from hvd.toolstack.config.names import DOM0_NAME, DOM0_NAMES, NAME_SYNTAX, full_name, is_name
from hvd.toolstack.config.networks import Backends, as_table, check_member, read_networks
from hvd.toolstack.config.problems import Place, Report, shown
from hvd.toolstack.config.relations import check_relations, start_order
from hvd.toolstack.config.sandboxes import check_layers
from hvd.toolstack.config.table import Table
from hvd.toolstack.config.vifs import Vif
from hvd.transport.codec import encode
from hvd.transport.messages import BootConfig, DeviceConfig, DomainConfig, GroupConfig, NetworkConfig, Policy
from hvd.transport.protocols.net import BRIDGE
from hvd.transport.xsm import OPEN_POLICY


def plan_of(config: ClusterConfig, require: Sequence[str] = ()) -> BootPlan:
    """What to boot for a checked configuration; `require`: layers without which none of its domains is run."""
    ordered = [
        replace(domain, sandbox_require=[*dict.fromkeys([*domain.sandbox_require, *require])])
        for domain in (config.dom0, *(config.domain(name) for name in config.start_order))
    ]
    boot = BootConfig(config.policy, config.enforcing, ordered, list(config.groups), list(config.networks))
    uplinks = [(network.uplink, network.mtu) for network in config.networks if network.uplink]
    return BootPlan(config.name, msgpack.packb(encode(boot)), uplinks, list(config.cpus), _held_back(config),
                    config.warnings)  # fmt: skip


def plan_from_file(
    path: str | os.PathLike[str], policy: Policy | None = None, require: Sequence[str] = ()
) -> BootPlan:
    """The cluster that a file describes, under this policy or its own; ConfigError names everything that is wrong."""
    return plan_of(load(path, policy=policy), require)


def plan_from_domains(
    domains: Iterable[DomainConfig],
    name: str,
    policy: Policy | None = None,
    require: Sequence[str] = (),
    groups: Iterable[GroupConfig] = (),
    *,
    networks: Iterable[NetworkConfig] = (),
    cpus: Iterable[int] = (),
) -> BootPlan:
    """A cluster of these domains, checked as a cluster file's are; ConfigError names everything that is wrong."""
    report = Report("Cluster.build", "")
    policy = policy or OPEN_POLICY
    kernels = Kernels(Path.cwd())
    read = read_networks(Table(report, (), {"network": [as_table(network) for network in networks]}))
    made = tuple(network.config for network in read.values())
    backends = {network.name: network.backend for network in made}
    drafts = [_draft(config, index, kernels, report, backends) for index, config in enumerate(domains)]
    given_dom0 = [draft.config for draft in drafts if draft.config.name in DOM0_NAMES]
    guests = [draft for draft in drafts if draft.config.name not in DOM0_NAMES]
    supervised = [GroupDraft(("group", index), group) for index, group in enumerate(groups)]
    for group in supervised:
        report.label(group.place, group.config.name)
    check_relations(report, guests, {}, supervised, read.values())
    check_labels(report, policy, [(draft.place, draft.config) for draft in drafts])
    own = read_cpus(Table(report, (), {"cpus": list(cpus)})) if cpus else []
    report.raise_if_wrong()
    dom0 = replace(given_dom0[0], name=DOM0_NAME, driver_domain=True) if given_dom0 else ClusterConfig().dom0
    configs = tuple(draft.config for draft in guests)
    order, kept = start_order(guests, supervised), tuple(group.config for group in supervised)
    config = ClusterConfig(name, None, dom0, configs, order, kept, made, policy, cpus=tuple(own))
    return plan_of(config, require)


def _draft(config: DomainConfig, index: int, kernels: Kernels, report: Report, networks: Backends) -> Draft:
    place: Place = ("domain", index)
    report.label(place, config.name)
    if not is_name(config.name):
        report.wrong((*place, "name"), NAME_SYNTAX, shown(config.name))
    config = replace(
        config,
        kernel=kernels.check(report, (*place, "kernel"), config.kernel),
        after=[full_name(other) for other in config.after],
        devices=[replace(device, backend=full_name(device.backend)) for device in config.devices],
    )
    for key in ("sandbox_off", "sandbox_require"):
        check_layers(report, (*place, key), getattr(config, key))
    after: list[tuple[Place, str]] = [((*place, "after", n), other) for n, other in enumerate(config.after)]
    devices: list[tuple[Place, DeviceConfig]] = [
        ((*place, "devices", n), device) for n, device in enumerate(config.devices)
    ]
    vifs = [Vif(where, device) for where, device in devices if device.kind == "vif"]
    for where, vif in vifs:
        check_member(report, (where, where), vif.backend_keys.get("bridge", BRIDGE), vif.backend, networks)
    addressed = [vif for vif in vifs if "mac" in vif.config.backend_keys]
    return Draft(place, config, after, [], addressed, devices)


def _held_back(config: ClusterConfig) -> frozenset[str]:
    held = {domain.name for domain in config.domains if domain.paused}
    for name in config.start_order:
        domain = config.domain(name)
        if held & {*domain.after, *(device.backend for device in domain.devices)}:
            held.add(name)
    return frozenset(held)
