"""Reads one `[[domain]]` table, and `[dom0]`, into the wire's `DomainConfig`."""

import os
import re
from pathlib import Path
from typing import NamedTuple, TypedDict

from hvd.toolstack.config.cpus import read_cpus
from hvd.toolstack.config.disks import Disk, read_disk
from hvd.toolstack.config.kernels import Kernels
from hvd.toolstack.config.names import DOM0_NAME, DOM0_NAMES, NAME_BYTES_MAX, NAME_SYNTAX, full_name, is_name
from hvd.toolstack.config.networks import Backends
from hvd.toolstack.config.policy_file import LABEL_SYNTAX, is_label
from hvd.toolstack.config.problems import Place, shown
from hvd.toolstack.config.sandboxes import read_sandbox
from hvd.toolstack.config.table import Table
from hvd.toolstack.config.vifs import Owner, Vif, read_vif
from hvd.transport.kernels import is_program
from hvd.transport.limits import HEARTBEAT_MS_LEAST, INTERFACES_MAX, IO_BPS_LEAST
from hvd.transport.messages import DeviceConfig, DomainConfig, RestartPolicy
from hvd.transport.sandbox import Kind

MEMORY_MIB_MAX = 1 << 22
VCPUS_MAX = 128
IO_BPS_MAX = 1 << 40
RESTARTS_MAX = 1_000_000
POLICY_MS_MAX = 86_400_000
OPTION_BYTES_MAX = 2048
OPTIONS_MAX = 56
ACTIONS = ("destroy", "restart", "rename-restart", "preserve", "coredump-destroy", "coredump-restart")
DOM0_KERNEL = "hvd:dom0"

_KIND = re.compile(r"[a-z][a-z0-9_-]{0,31}", re.ASCII)
_UUID_DIGITS = re.compile(r"[0-9a-f]{32}", re.ASCII)
_OPTION = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_TOOLSTACK_KEYS = ("frontend", "frontend-id", "backend", "backend-id", "state", "online")


class Draft(NamedTuple):
    """A domain as read, with the places of what is compared between domains."""

    place: Place
    config: DomainConfig
    after: list[tuple[Place, str]]
    disks: list[Disk]
    vifs: list[Vif]
    devices: list[tuple[Place, DeviceConfig]]
    """Disks and vifs included."""


def read_dom0(table: Table, kernels: Kernels, directory: Path) -> DomainConfig:
    """`[dom0]`, which may set what dom0 runs and what it runs on; its backends serve whoever names none."""
    default = DomainConfig(DOM0_NAME, DOM0_KERNEL)
    config = DomainConfig(
        name=DOM0_NAME,
        kernel=_kernel(table, kernels, DOM0_KERNEL),
        args=table.texts("args", "arguments"),
        **_memory(table, default),
        vcpus=table.whole("vcpus", default.vcpus, 1, VCPUS_MAX),
        cpus=read_cpus(table),
        io_bps=_io_bps(table),
        driver_domain=True,
        heartbeat_ms=_heartbeat(table),
        seclabel=_seclabel(table),
        **read_sandbox(table, directory),
    )
    table.finish()
    return config


def read_domain(
    table: Table, kernels: Kernels, directory: Path, networks: Backends
) -> Draft:
    """One `[[domain]]`; whatever is wrong in it is reported and replaced by something that can be read on.

    Its vifs are in `networks`; without any, in one of whatever name.
    """
    name = table.name("name")
    table.report.label(table.place, name)
    if name in DOM0_NAMES:
        hint = "dom0 is always there; a table [dom0] says what it gets"
        table.report.wrong(table.at("name"), "a name of its own", shown(name), hint)
    after = [(table.at("after", index), full_name(other)) for index, other in enumerate(table.texts("after", "names"))]
    kernel = _kernel(table, kernels, None)
    disks = _disks(table, directory)
    vifs = _vifs(table, name, networks, program=is_program(kernel))
    own = [(disk.place, disk.config) for disk in disks] + [(vif.place, vif.config) for vif in vifs]
    devices = own + _devices(table)
    default = DomainConfig("", "")
    config = DomainConfig(
        name=name,
        kernel=kernel,
        args=table.texts("args", "arguments"),
        **_memory(table, default),
        vcpus=table.whole("vcpus", default.vcpus, 1, VCPUS_MAX),
        cpus=read_cpus(table),
        io_bps=_io_bps(table),
        driver_domain=table.flag("driver_domain", default=default.driver_domain),
        spare=table.flag("spare", default=default.spare),
        service=_service(table),
        on_poweroff=table.choice("on_poweroff", default.on_poweroff, ACTIONS),
        on_reboot=table.choice("on_reboot", default.on_reboot, ACTIONS),
        on_crash=table.choice("on_crash", default.on_crash, ACTIONS),
        on_watchdog=table.choice("on_watchdog", default.on_watchdog, ACTIONS),
        heartbeat_ms=_heartbeat(table),
        restart=_restart_policy(table),
        after=list(dict.fromkeys(other for _, other in after)),
        devices=[device for _, device in devices],
        seclabel=_seclabel(table),
        uuid=_uuid(table),
        **read_sandbox(table, directory),
    )
    _check_program(table, config)
    table.finish()
    return Draft(table.place, config, after, disks, vifs, devices)


class Memory(TypedDict):
    """The keys of a domain's memory."""

    memory: int
    maxmem: int


def _memory(table: Table, default: DomainConfig) -> Memory:
    """MiB. As in xl, `maxmem` alone says what it boots with too."""
    maxmem = table.whole("maxmem", 0, 1, MEMORY_MIB_MAX)
    memory = table.whole("memory", maxmem or default.memory, 1, MEMORY_MIB_MAX)
    if maxmem and maxmem < memory:
        table.report.wrong(table.at("maxmem"), f"at least memory, which is {memory}", shown(maxmem))
    return Memory(memory=memory, maxmem=maxmem)


def _check_program(table: Table, config: DomainConfig) -> None:
    """What a program, which knows nothing of hvd, has no use for; nothing of one that cannot be run anyway."""
    if not is_program(config.kernel) or not os.access(config.kernel, os.X_OK):
        return
    disks, vifs = ([device for device in config.devices if device.kind == kind] for kind in ("vbd", "vif"))
    if len(vifs) > INTERFACES_MAX:
        expected = f"at most {INTERFACES_MAX} vifs, since its kernel is a program"
        table.report.wrong(table.at("vif"), expected, str(len(vifs)))
    if config.driver_domain:
        table.report.wrong(table.at("driver_domain"), "false, since its kernel is a program", "true")
    if config.sandbox not in ("", Kind.PROGRAM):
        expected = f'"{Kind.PROGRAM}", since its kernel is a program'
        table.report.wrong(table.at("sandbox"), expected, shown(config.sandbox))
    if disks:
        hint = "a program has files: give it some with paths"
        table.report.wrong(table.at("disk"), "no disk, since its kernel is a program", f"{len(disks)} of them", hint)


def _uuid(table: Table) -> str:
    """A UUID as libxl takes it: hexadecimal digits, dashes between them wherever they are."""
    text = table.text("uuid", "")
    digits = text.replace("-", "").lower()
    if text and not _UUID_DIGITS.fullmatch(digits):
        table.report.wrong(table.at("uuid"), "a UUID: 32 hexadecimal digits, with or without dashes", shown(text))
        return ""
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])) if text else ""


def _seclabel(table: Table) -> str:
    """A label, or xl's `user:role:label`, of which the label decides; empty: the one that its kind has."""
    text = table.text("seclabel", "")
    label = text.rpartition(":")[2]
    if text and not is_label(label):
        table.report.wrong(table.at("seclabel"), f"a label: {LABEL_SYNTAX}", shown(text))
        return ""
    return label


def _service(table: Table) -> str:
    """The name that it serves under, with others; empty: none."""
    name = table.text("service", "")
    if name and not is_name(name):
        table.report.wrong(table.at("service"), NAME_SYNTAX, shown(name))
        return ""
    return name


def _kernel(table: Table, kernels: Kernels, default: str | None) -> str:
    kernel = table.text("kernel", default)
    return kernels.check(table.report, table.at("kernel"), kernel) if kernel else ""


def _heartbeat(table: Table) -> int:
    """Milliseconds, or 0 for none."""
    return _none_or(table, "heartbeat_ms", DomainConfig("", "").heartbeat_ms, HEARTBEAT_MS_LEAST, POLICY_MS_MAX)


def _io_bps(table: Table) -> int:
    """Bytes a second of each disk, or 0 for no bound."""
    return _none_or(table, "io_bps", DomainConfig("", "").io_bps, IO_BPS_LEAST, IO_BPS_MAX)


def _none_or(table: Table, key: str, default: int, least: int, most: int) -> int:
    value = table.take(key)
    if value is None or (type(value) is int and (value == 0 or least <= value <= most)):
        return default if value is None else value
    table.report.wrong(table.at(key), f"0, for none, or a whole number from {least} to {most}", shown(value))
    return default


def _restart_policy(table: Table) -> RestartPolicy:
    default = RestartPolicy()
    policy = RestartPolicy(
        limit=table.whole("restart_limit", default.limit, 0, RESTARTS_MAX),
        window_ms=table.whole("restart_window_ms", default.window_ms, 1, POLICY_MS_MAX),
        delay_ms=table.whole("restart_delay_ms", default.delay_ms, 0, POLICY_MS_MAX),
        delay_max_ms=table.whole("restart_delay_max_ms", default.delay_max_ms, 0, POLICY_MS_MAX),
    )
    if policy.delay_ms > policy.delay_max_ms:
        expected = f"at most restart_delay_max_ms, {policy.delay_max_ms}"
        table.report.wrong(table.at("restart_delay_ms"), expected, str(policy.delay_ms))
    return policy


def _disks(table: Table, directory: Path) -> list[Disk]:
    found = [
        read_disk(table.report, table.at("disk", index), item, directory)
        for index, item in enumerate(table.items("disk", "disks"))
    ]
    return [disk for disk in found if disk is not None]


def _vifs(table: Table, owner: str, networks: Backends, *, program: bool) -> list[Vif]:
    """A list of lines as xl's, or `[[domain.vif]]`."""
    found = [
        read_vif(table.report, table.at("vif", index), item, Owner(owner, index, program), networks)
        for index, item in enumerate(table.items("vif", "vifs"))
    ]
    return [vif for vif in found if vif is not None]


def _devices(table: Table) -> list[tuple[Place, DeviceConfig]]:
    counts: dict[str, int] = {}
    devices = []
    for item in table.tables("device", "domain.device"):
        kind = _kind(item)
        backend = full_name(item.text("backend", DOM0_NAME, bytes_max=NAME_BYTES_MAX))
        options = _options(item)
        devices.append((item.place, DeviceConfig(kind, counts.get(kind, 0), backend, options, dict(options))))
        counts[kind] = counts.get(kind, 0) + 1
    return devices


def _kind(table: Table) -> str:
    kind = table.text("type", None)
    if kind in ("vbd", "vif"):
        what, key = ("a disk", "disk") if kind == "vbd" else ("a vif", "vif")
        table.report.wrong(table.at("type"), f"a device other than {what}", shown(kind), f"write it as {key} = [...]")
    elif kind and not _KIND.fullmatch(kind):
        expected = "1 to 32 small letters, digits, _ -, the first a letter"
        table.report.wrong(table.at("type"), expected, shown(kind))
    return kind


def _options(table: Table) -> dict[str, str]:
    """The keys a driver finds in either end's directory in XenStore, as they are written in the file."""
    options: dict[str, str] = {}
    for key, value in table.rest().items():
        if key in _TOOLSTACK_KEYS or not _OPTION.fullmatch(key):
            expected = "an option of 1 to 64 letters, digits, _ -"
            hint = "hvd itself writes this key" if key in _TOOLSTACK_KEYS else ""
            table.report.wrong(table.at(key), expected, shown(key), hint)
        elif not isinstance(value, str) or len(value.encode()) > OPTION_BYTES_MAX or "\0" in value:
            hint = "" if isinstance(value, str | list | dict) else f'write "{shown(value)}"'
            expected = f"a text of at most {OPTION_BYTES_MAX} bytes without NUL"
            table.report.wrong(table.at(key), expected, shown(value), hint)
        else:
            options[key] = value
    if len(options) > OPTIONS_MAX:
        table.report.wrong(table.place, f"at most {OPTIONS_MAX} options", str(len(options)))
    return options
