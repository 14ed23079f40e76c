"""What a machine boots from: the cluster's domains, checked and in an order in which each finds those it needs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import msgpack

from hvd.toolstack.config import ClusterConfig
from hvd.toolstack.config.domains import Draft
from hvd.toolstack.config.kernels import Kernels
from hvd.toolstack.config.names import DOM0_NAME, DOM0_NAMES, NAME_SYNTAX, full_name, is_name
from hvd.toolstack.config.problems import Place, Report, shown
from hvd.toolstack.config.relations import check_relations, start_order
from hvd.transport.codec import encode
from hvd.transport.messages import DeviceConfig, DomainConfig


def configuration_bytes(config: ClusterConfig) -> bytes:
    """dom0's config first, then the others' in start order."""
    ordered = [config.dom0, *(config.domain(name) for name in config.start_order)]
    packed: bytes = msgpack.packb([encode(domain) for domain in ordered])
    return packed


def from_domains(domains: Iterable[DomainConfig], name: str) -> ClusterConfig:
    """A cluster of these domains, checked as a cluster file's are; ConfigError names everything that is wrong."""
    report = Report("Cluster.build", "")
    kernels = Kernels(Path.cwd())
    drafts = [_draft(config, index, kernels, report) for index, config in enumerate(domains)]
    given_dom0 = [draft.config for draft in drafts if draft.config.name in DOM0_NAMES]
    guests = [draft for draft in drafts if draft.config.name not in DOM0_NAMES]
    check_relations(report, guests)
    report.raise_if_wrong()
    dom0 = replace(given_dom0[0], name=DOM0_NAME) if given_dom0 else ClusterConfig().dom0
    return ClusterConfig(name, None, dom0, tuple(draft.config for draft in guests), start_order(guests))


def _draft(config: DomainConfig, index: int, kernels: Kernels, report: Report) -> Draft:
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
    after: list[tuple[Place, str]] = [((*place, "after", n), other) for n, other in enumerate(config.after)]
    devices: list[tuple[Place, DeviceConfig]] = [
        ((*place, "devices", n), device) for n, device in enumerate(config.devices)
    ]
    return Draft(place, config, after, [], devices)


def held_back(config: ClusterConfig) -> set[str]:
    """The names of the domains that do not start by themselves: created paused, or behind one that is."""
    held = {domain.name for domain in config.domains if domain.paused}
    for name in config.start_order:
        domain = config.domain(name)
        if held & {*domain.after, *(device.backend for device in domain.devices)}:
            held.add(name)
    return held
