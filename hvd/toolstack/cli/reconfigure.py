"""The commands that change what a domain is made of, and those that press its buttons."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hvd.toolstack.cli.inspect import nics_of
from hvd.toolstack.cli.output import on_one_line, print_json, print_line, print_warning
from hvd.toolstack.cli.progress import Progress
from hvd.toolstack.cli.xl_tables import Nic
from hvd.toolstack.cluster import Cluster, Domain
from hvd.toolstack.cluster.errors import ClusterError
from hvd.toolstack.cluster.interfaces import Plugged, plugged
from hvd.toolstack.config.disks import Disk, read_disk
from hvd.toolstack.config.networks import Backends
from hvd.toolstack.config.problems import ConfigError, Problem, Report, shown
from hvd.toolstack.config.vdev import SYNTAX, device_number
from hvd.toolstack.config.vifs import Owner, read_vif
from hvd.toolstack.config.xl_file import load_xl_cfg
from hvd.transport import messages as m
from hvd.transport.hypercalls import HypercallError
from hvd.transport.kernels import is_program
from hvd.transport.protocols.net import LINK_KEY

DEVID_MAX = 2**32 - 1


def rename(name: str, new_name: str, *, as_json: bool) -> None:
    """Another name for a domain."""
    with Cluster.attach() as cluster:
        domain = cluster.domain(name)
        domain.rename(new_name)
    _say("renamed", domain, as_json=as_json)


def trigger(name: str, button: str, *, as_json: bool) -> None:
    """Press a button of a domain's."""
    with Cluster.attach() as cluster:
        domain = cluster.domain(name)
        domain.trigger(button)
    _say(f"sent {button} to", domain, as_json=as_json)


def sysrq(name: str, letter: str, *, as_json: bool) -> None:
    """Send a domain's kernel a letter."""
    if len(letter) != 1:
        raise ConfigError([Problem("command line", "LETTER", "one letter, as h for help", shown(letter))])
    with Cluster.attach() as cluster:
        domain = cluster.domain(name)
        domain.sysrq(letter)
    _say(f"sent sysrq {letter} to", domain, as_json=as_json)


def config_update(name: str, file: Path, *, as_json: bool) -> None:
    """What a domain's next start is made of, from an xl.cfg."""
    with Cluster.attach() as cluster:
        domain = cluster.domain(name)
        running = {info.name: info.driver_domain for info in cluster.infos().values() if info.domid != domain.domid}
        loaded = load_xl_cfg(file, running, cluster.networks(), {"name": domain.name})
        for warning in loaded.warnings:
            print_warning(warning)
        domain.set_config(replace(loaded.config, uuid=loaded.config.uuid or domain.info().uuid))
    _say("configured", domain, as_json=as_json)


def block_attach(name: str, spec: Sequence[str], *, as_json: bool) -> None:
    """One more disk for a domain that runs."""
    with Cluster.attach() as cluster:
        domain = cluster.domain(name)
        disk = _disk(",".join(spec))
        domain.attach(disk.config)
    _say(f"attached {disk.config.backend_keys['dev']} to", domain, as_json=as_json, devid=disk.config.devid)


def _disk(line: str) -> Disk:
    report = Report("command line", "")
    disk = read_disk(report, ("DISK",), line, Path.cwd())
    report.raise_if_wrong()
    assert disk is not None  # else something was wrong
    return disk


def block_detach(name: str, vdev: str, *, force: bool, as_json: bool) -> None:
    """One disk less."""
    with Cluster.attach() as cluster:
        domain = cluster.domain(name)
        devid = int(vdev) if vdev.isascii() and vdev.isdecimal() else device_number(vdev)
        if devid is None or devid > DEVID_MAX:
            raise ConfigError([Problem("command line", "DEVID", f"a number, or {SYNTAX}", shown(vdev))])
        try:
            domain.detach("vbd", devid, force=force)
        except HypercallError as error:
            if error.errno != errno.ENOENT:
                raise
            raise ClusterError(f"Error: Device {vdev} not connected.") from None
    _say(f"detached {vdev} from", domain, as_json=as_json, devid=devid)


def network_attach(name: str, spec: Sequence[str], *, as_json: bool) -> None:
    """One more vif for a domain that runs; what it does not say is as its network has it."""
    with Cluster.attach() as cluster, Progress(quiet=as_json) as progress:
        domain = cluster.domain(name)
        info = domain.info()
        program = is_program(info.kernel)
        taken = {device["devid"] for device in info.devices if device["kind"] == "vif"}
        free = next(devid for devid in itertools.count() if devid not in taken)
        config = _vif(",".join(spec), Owner(domain.name, free, program), cluster.networks())
        domain.attach(config)
        progress(f"waiting for {domain.name} to have an interface of it")
        found = _interface(cluster, domain, config) if program else Plugged()
    told = {"interface": found.interface or None, "waits": found.waits} if program else {}
    as_what = f" as {on_one_line(found.interface)}" if found.interface else ""
    done = f"attached vif {config.devid}{as_what} to"
    _say(done, domain, as_json=as_json, devid=config.devid, mac=config.backend_keys["mac"], **told)
    if found.waits and not as_json:
        print_warning(f"{domain.name} has no interface of it yet: {found.waits}")


def _interface(cluster: Cluster, domain: Domain, config: m.DeviceConfig) -> Plugged:
    """What a program has of a vif. ClusterError: nothing, and the vif was taken away again."""
    found = plugged(cluster, domain, config)
    if found.refused:
        domain.detach(config.kind, config.devid, force=True)
        who = f"{domain.name} (domid {domain.domid})"
        why = on_one_line(found.refused)
        raise ClusterError(f"{who} can have no interface of vif {config.devid}, which was taken away again: {why}")
    return found


def _vif(line: str, owner: Owner, networks: Backends) -> m.DeviceConfig:
    report = Report("command line", "")
    vif = read_vif(report, ("VIF",), line, owner, networks)
    report.raise_if_wrong()
    assert vif is not None  # else something was wrong
    return vif.config


def network_detach(name: str, which: str, *, force: bool, as_json: bool) -> None:
    """One vif less, by its number or its MAC address."""
    with Cluster.attach() as cluster:
        domain = cluster.domain(name)
        nic = _nic(cluster, domain, which)
        domain.detach("vif", nic.devid, force=force)
    _say(f"detached vif {nic.devid} from", domain, as_json=as_json, devid=nic.devid)


def network_link(name: str, which: str, state: str, *, as_json: bool) -> None:
    """A vif's link up or down."""
    if state not in ("up", "down"):
        raise ConfigError([Problem("command line", "up|down", "up or down", shown(state))])
    with Cluster.attach() as cluster:
        domain = cluster.domain(name)
        nic = _nic(cluster, domain, which)
        cluster.call(m.StoreWrite(0, f"{nic.path}/{LINK_KEY}", state.encode()))
    _say(f"link {state} of vif {nic.devid} of", domain, as_json=as_json, devid=nic.devid, link=state)


def _nic(cluster: Cluster, domain: Domain, which: str) -> Nic:
    """A domain's vif by its number or MAC address; ConfigError naming those it has."""
    nics = nics_of(cluster, domain.info(), cluster.infos().values())
    found = [nic for nic in nics if which.lower() in (str(nic.devid), nic.mac)]
    if not found:
        have = ", ".join(f"{nic.devid} ({nic.mac})" for nic in nics) or "none"
        expected = f"the number or MAC address of a vif of {domain.name}, which has {have}"
        raise ConfigError([Problem("command line", "DEVID", expected, shown(which))])
    return found[0]


def _say(done: str, domain: Domain, *, as_json: bool, **more: object) -> None:
    if as_json:
        print_json({"done": done, "domid": domain.domid, "name": domain.name, **more})
    else:
        print_line(f"{done} {domain.name} (domid {domain.domid})")
