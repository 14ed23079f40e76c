"""The hypervisor's part in sandboxes: it passes on what the toolstack chose, and judges what domains report."""

from __future__ import annotations

import errno
from typing import Any

from hvd.broker.domain import Domain
from hvd.broker.errors import Refused
from hvd.transport.ids import DOM0
from hvd.transport.kernels import is_program
from hvd.transport.limits import IO_BPS_LEAST
from hvd.transport.messages import DomainConfig
from hvd.transport.sandbox import ACTIONS, LAYERS, Kind, in_force, split_path

REASON_MAX = 500
"""Characters of a reason that are kept."""


def check(config: DomainConfig) -> None:
    """EINVAL naming what is no kind, layer, action, path or bound."""
    if config.sandbox and config.sandbox not in set(Kind):
        raise Refused(errno.EINVAL, f"sandbox = {config.sandbox!r}; expected one of {', '.join(Kind)}")
    if config.seccomp not in ACTIONS:
        raise Refused(errno.EINVAL, f"seccomp = {config.seccomp!r}; expected one of {', '.join(ACTIONS)}")
    for key in ("sandbox_off", "sandbox_require"):
        for name in getattr(config, key):
            if name not in LAYERS:
                raise Refused(errno.EINVAL, f"{key} names {name!r}; the layers are {', '.join(LAYERS)}")
    if is_program(config.kernel) and (config.driver_domain or config.sandbox not in ("", Kind.PROGRAM)):
        what = "serves no devices" if config.driver_domain else f"is in a sandbox of kind {Kind.PROGRAM}"
        raise Refused(errno.EINVAL, f"kernel = {config.kernel!r} is a program, which {what}")
    for given in config.paths:
        if not split_path(given)[0].startswith("/"):
            raise Refused(errno.EINVAL, f"paths names {given!r}, which is not absolute")
    if 0 < config.io_bps < IO_BPS_LEAST:
        raise Refused(errno.EINVAL, f"io_bps = {config.io_bps}; expected 0, for no bound, or at least {IO_BPS_LEAST}")


def kind_of(domain: Domain) -> Kind:
    """What its system calls are chosen by. Domain 0 serves the consoles, whatever else it is."""
    if is_program(domain.config.kernel):
        return Kind.PROGRAM
    serves = domain.config.driver_domain or domain.domid == DOM0
    return Kind(domain.config.sandbox or (Kind.DRIVER if serves else Kind.GUEST))


def layers_off(domain: Domain) -> list[str]:
    """What its process is to do without; the network is what a driver domain with network is for."""
    network = ["network"] if kind_of(domain) is Kind.NETWORK else []
    return list(dict.fromkeys([*domain.config.sandbox_off, *network]))


def settings(domain: Domain) -> dict[str, Any]:
    """What a domain's process is told with its birth."""
    config = domain.config
    return {
        "kind": str(kind_of(domain)), "off": layers_off(domain), "seccomp": config.seccomp, "paths": config.paths,
        "memory_kib": domain.next_target_kib(), "maxmem_kib": domain.built_with_kib(),
        "io_bps": config.io_bps, "require": config.sandbox_require,
    }  # fmt: skip


def take_report(domain: Domain, untrusted_lacking: dict[str, str]) -> str:
    """Note what an incarnation lacks, once: it says so before its kernel can say anything. A line for the log."""
    if domain.sandbox_lacking is not None:
        raise Refused(errno.EEXIST, f"domain {domain.domid} has reported its sandbox already")
    domain.sandbox_lacking = lacking = known(untrusted_lacking)
    domain.refused = missing(domain, lacking)
    lacks = "; ".join(f"{name} ({reason})" for name, reason in lacking.items()) or "nothing"
    who = f"(XEN) domain {domain.domid} {domain.name}"
    return f"{who}: sandbox {kind_of(domain)}: {', '.join(in_force(lacking))}; lacking: {lacks}"


def _on_one_line(untrusted: str) -> str:
    """Whatever a domain says in the hypervisor's name begins no line of its own and moves no cursor."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in untrusted[:REASON_MAX])[:REASON_MAX]


def known(untrusted_lacking: dict[str, str]) -> dict[str, str]:
    """What a report says of layers that there are, bounded."""
    return {name: _on_one_line(untrusted_lacking[name]) for name in LAYERS if name in untrusted_lacking}


def missing(domain: Domain, lacking: dict[str, str]) -> str:
    """Why it may not run with these layers lacking; "": it may."""
    whys = "; ".join(f"{name}: {lacking[name]}" for name in domain.config.sandbox_require if name in lacking)
    return f"its sandbox lacks what is required of it: {whys}" if whys else ""


def describe(domain: Domain) -> dict[str, Any]:
    """Kind, layers in force and those lacking with the reasons; nothing in force before the process has said so."""
    lacking = domain.sandbox_lacking
    return {
        "domid": domain.domid,
        "name": domain.name,
        "kind": str(kind_of(domain)),
        "in_force": [] if lacking is None else in_force(lacking),
        "lacking": lacking or {},
    }
