"""Reads a whole cluster file: TOML text in, a `ClusterConfig` or every mistake out."""

import os
from collections.abc import Iterable
from pathlib import Path

from hvd.toolstack.config.cpus import read_cpus
from hvd.toolstack.config.document import document_of, text_of
from hvd.toolstack.config.domains import DOM0_KERNEL, Draft, read_dom0, read_domain
from hvd.toolstack.config.groups import read_group
from hvd.toolstack.config.kernels import Kernels
from hvd.toolstack.config.names import DOM0_NAME, name_from
from hvd.toolstack.config.networks import Backends, read_networks
from hvd.toolstack.config.policy_file import expected_policy, path_of, read_policy, shipped
from hvd.toolstack.config.problems import Place, Report, nearest, shown
from hvd.toolstack.config.relations import Running, check_relations, start_order
from hvd.toolstack.config.table import Table, table_in
from hvd.transport.limits import DOMAINS_MAX, MESSAGE_BYTES_MAX
from hvd.transport.messages import DomainConfig, GroupConfig, NetworkConfig, Policy
from hvd.transport.records import dataclass, field, fields, is_record
from hvd.transport.xsm import OPEN_POLICY

MODES = ("enforcing", "permissive")
"""Xen's boot parameter `flask`, as far as there is a use for its values."""
_ENVELOPE_BYTES = 256


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """A cluster that can be started, as far as its file and this machine's files tell."""

    name: str = "hvd"
    file: Path | None = None
    """None: there is no file, dom0 is alone."""
    dom0: DomainConfig = field(default_factory=lambda: DomainConfig(DOM0_NAME, DOM0_KERNEL, driver_domain=True))
    domains: tuple[DomainConfig, ...] = ()
    """Every other domain, as they stand in the file."""
    start_order: tuple[str, ...] = ()
    """Their names, each behind the domains it comes `after`, those that host its backends, and earlier members."""
    groups: tuple[GroupConfig, ...] = ()
    networks: tuple[NetworkConfig, ...] = ()
    policy: Policy = OPEN_POLICY
    enforcing: bool = True
    cpus: tuple[int, ...] = ()
    """Where the hypervisor's own processes run; none: wherever there is room. Domains run where their own say."""
    warnings: tuple[str, ...] = ()
    """What of the file is done without."""

    def domain(self, name: str) -> DomainConfig:
        """The domain of this name, dom0 by its full name; KeyError if there is none."""
        for config in (self.dom0, *self.domains):
            if config.name == name:
                return config
        raise KeyError(name)


def load(
    path: str | os.PathLike[str],
    running: Running | None = None,
    policy: Policy | None = None,
    networks: Backends | None = None,
) -> ClusterConfig:
    """The cluster described by the file at `path`; ConfigError names everything that is wrong with it.

    Kernels and images are found from the file's own directory, and looked at but not run or changed. With `running` the
    domains are to join those, and may name them, as their vifs may `networks`. `policy` stands in the place of the one
    that the file names.
    """
    text = text_of(path)
    report = Report(os.fspath(path), text)
    file = Path(path).absolute()
    config = _read(Table(report, (), document_of(path, text)), file, running, policy, networks or {})
    report.raise_if_wrong()
    return config


def _read(
    root: Table, file: Path, running: Running | None, override: Policy | None, joined: Backends
) -> ClusterConfig:
    kernels = Kernels(file.parent)
    cluster = _subtable(root, "cluster")
    name = cluster.name("name") if cluster and "name" in cluster.rest() else name_from(file)
    cpus = read_cpus(cluster) if cluster else []
    if cluster:
        cluster.finish()
    dom0_place: Place = ("dom0",)
    dom0 = _subtable(root, "dom0")
    dom0_config = read_dom0(dom0 or Table(root.report, dom0_place, {}), kernels, file.parent)
    networks = read_networks(root)
    backends = {**joined, **{name: network.config.backend for name, network in networks.items()}}
    drafts = [read_domain(table, kernels, file.parent, backends) for table in root.tables("domain", "domain")]
    groups = [read_group(table) for table in root.tables("group", "group")]
    policy = _policy(root, file.parent, override)
    mode = root.choice("flask", "enforcing", MODES)
    root.finish()
    _check_sizes(root.report, drafts)
    check_relations(root.report, drafts, running or {}, groups, networks.values())
    if running is None:  # else the machine that runs has a policy already, and says itself what it lacks
        check_labels(root.report, policy, [(dom0_place, dom0_config), *((each.place, each.config) for each in drafts)])
    root.report.raise_if_wrong()
    domains = tuple(draft.config for draft in drafts)
    order, supervised = start_order(drafts, groups), tuple(group.config for group in groups)
    made = tuple(network.config for network in networks.values())
    return ClusterConfig(
        name, file, dom0_config, domains, order, supervised, made, policy, mode == "enforcing", tuple(cpus),
        root.report.warnings(),
    )  # fmt: skip


def _subtable(root: Table, key: str) -> Table | None:
    value = root.take(key)
    return None if value is None else table_in(root.report, root.at(key), value)


def _policy(root: Table, directory: Path, override: Policy | None) -> Policy:
    """The policy that the file names, unless there is another. A mistake in the policy's own file is raised at once."""
    named = root.text("policy", "")
    if override is not None or not named:
        return override or OPEN_POLICY
    path = path_of(named, directory)
    if path is None:
        root.report.wrong(root.at("policy"), expected_policy(), shown(named), nearest(named, shipped()))
        return OPEN_POLICY
    return read_policy(path)


def check_labels(report: Report, policy: Policy, placed: Iterable[tuple[Place, DomainConfig]]) -> None:
    """Report every label that the policy does not have."""
    for place, config in placed:
        if config.seclabel and config.seclabel not in policy.labels:
            expected = f"a label of the policy {policy.name}: {', '.join(policy.labels)}"
            hint = nearest(config.seclabel, policy.labels)
            report.wrong((*place, "seclabel"), expected, shown(config.seclabel), hint)


def _check_sizes(report: Report, drafts: list[Draft]) -> None:
    if len(drafts) >= DOMAINS_MAX:
        report.wrong(("domain",), f"at most {DOMAINS_MAX - 1} domains beside dom0", str(len(drafts)))
    for draft in drafts:
        size = _wire_bytes(draft.config)
        if size > MESSAGE_BYTES_MAX - _ENVELOPE_BYTES:
            expected = f"a domain that fits a hypercall of {MESSAGE_BYTES_MAX} bytes"
            report.wrong(draft.place, expected, f"{size} bytes", "its arguments, options and paths are too long")


def _wire_bytes(value: object) -> int:
    """The most that msgpack may need for a value of a message."""
    if isinstance(value, str):
        return len(value.encode()) + 5
    if isinstance(value, list):
        return 5 + sum(_wire_bytes(item) for item in value)
    if isinstance(value, dict):
        return 5 + sum(_wire_bytes(key) + _wire_bytes(item) for key, item in value.items())
    if is_record(value):
        return 5 + sum(_wire_bytes(getattr(value, each.name)) for each in fields(value))
    return 9
