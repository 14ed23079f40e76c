"""What is told to have a domain's process made, what it is told with its birth, and the descriptors that go with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hvd.broker import core_dumps, sandboxes
from hvd.broker.domain import Domain
from hvd.broker.held import INFO_READ_ONLY, PAGE, TRACE, HeldDescriptors, channel_key, extent_key
from hvd.transport.ids import ExtentId, Incarnation
from hvd.transport.machine_link import SPAWN

if TYPE_CHECKING:
    from hvd.broker.lives import Lives


def spawn_order(domain: Domain, incarnation: Incarnation) -> list[Any]:
    """What the machine is told when a process is to be made."""
    return [SPAWN, domain.domid, incarnation, domain.name, sandboxes.layers_off(domain), domain.config.cpus]


def birth_certificate(
    lives: Lives, domain: Domain, incarnation: Incarnation, *,
    run_dir: str, endpoint: str, server_key: bytes, spare: bool,
) -> dict[str, Any]:
    """Of one incarnation, the living one or the one that is to stand by."""
    console_port, upcall_port = lives.birth_ports(domain)
    config = domain.config
    return {
        "domid": domain.domid, "incarnation": incarnation, "name": domain.name, "spare": spare,
        "traceable": core_dumps.may_be_wanted(config), "reports_faults": core_dumps.reports_faults(config),
        "kernel": config.kernel, "args": config.args, "cpus": config.cpus, "service": config.service,
        "console_port": console_port, "upcall_port": upcall_port,
        "run_dir": run_dir, "endpoint": endpoint, "server_key": server_key,
        "sandbox": sandboxes.settings(domain),
        "devices": [[device.kind, device.devid] for device, _ in lives.own_devices(domain)],
    }  # fmt: skip


def birth_descriptors(
    held: HeldDescriptors, key: str, extent: ExtentId, console: int, upcall: int
) -> tuple[int, ...]:
    """Shared info, trace buffer, console page and channel, upcall channel; `key` holds the first two."""
    by_key = held.by_key
    channel, virq = by_key[channel_key(console)], by_key[channel_key(upcall)]
    return (
        by_key[key][INFO_READ_ONLY], by_key[key][TRACE], by_key[extent_key(extent)][0],
        channel[PAGE], channel[1], channel[2], virq[PAGE], virq[1],
    )  # fmt: skip
