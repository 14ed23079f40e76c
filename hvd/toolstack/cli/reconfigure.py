"""The commands that change what a domain is made of, and those that press its buttons."""

from __future__ import annotations

import contextlib
import errno
import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from hvd.toolstack.cli.inspect import nics_of
from hvd.toolstack.cli.interrupts import INTERRUPTED, Ended, HeldSignals
from hvd.toolstack.cli.output import on_one_line, print_error, print_json, print_line, print_warning, printable
from hvd.toolstack.cli.progress import Progress
from hvd.toolstack.cli.xl_tables import Nic
from hvd.toolstack.cluster import Cluster, Domain
from hvd.toolstack.cluster.errors import ClusterError, DeviceRefused
from hvd.toolstack.cluster.interfaces import Plugged, plugged
from hvd.toolstack.cluster.plugging import taken_away_unless_done
from hvd.toolstack.config.disks import Disk, read_disk
from hvd.toolstack.config.names import NAME_SYNTAX, is_name
from hvd.toolstack.config.networks import Backends
from hvd.toolstack.config.problems import ConfigError, Problem, Report, nearest, shown
from hvd.toolstack.config.vdev import SYNTAX, device_number
from hvd.toolstack.config.vifs import Owner, read_vif
from hvd.toolstack.config.xl_file import load_xl_cfg
from hvd.transport import messages as m
from hvd.transport.hypercalls import HypercallError
from hvd.transport.ids import DOM0
from hvd.transport.kernels import is_program
from hvd.transport.protocols.net import LINK_KEY

BUTTONS = ("power", "reset", "nmi")
"""Of xl's triggers those that mean something to a process."""
_ASKED_NO_MORE = "the domain keeps the device, unless it had begun to let go"


def rename(name: str, new_name: str, *, as_json: bool) -> None:
    """Another name for a domain."""
    if not is_name(new_name):
        raise ConfigError([Problem("command line", "NEW-NAME", NAME_SYNTAX, shown(new_name))])
    with Cluster.attach() as cluster:
        domain = cluster.domain(name)
        domain.rename(new_name)
    _say("renamed", domain, as_json=as_json)


def trigger(name: str, button: str, vcpu: int, *, as_json: bool) -> None:
    """Press a button of a domain's, of which each of its VCPUs is a part."""
    if button not in BUTTONS:
        hint = nearest(button, BUTTONS)
        raise ConfigError([Problem("command line", "TRIGGER", f"one of {', '.join(BUTTONS)}", shown(button), hint)])
    with Cluster.attach() as cluster:
        domain = cluster.domain(name)
        last = domain.info().vcpus - 1
        if vcpu > last:
            expected = f"a VCPU of {domain.name}: " + (f"0 to {last}" if last else "0, its only one")
            raise ConfigError([Problem("command line", "VCPU", expected, str(vcpu))])
        domain.trigger(button)
    _say(f"sent {button} to", domain, as_json=as_json)


def sysrq(name: str, letter: str, *, as_json: bool) -> None:
    """Send a domain's kernel a letter."""
    if len(letter) != 1 or not letter.isascii() or not letter.isalnum():
        expected = "one letter or digit, as h for help"
        raise ConfigError([Problem("command line", "LETTER", expected, shown(letter))])
    with Cluster.attach() as cluster:
        domain = cluster.domain(name)
        domain.sysrq(letter)
    _say(f"sent sysrq {letter} to", domain, as_json=as_json)


def config_update(name: str, file: Path, settings: Sequence[str] = (), *, as_json: bool) -> None:
    """What a domain's next start is made of, from an xl.cfg and lines in the place of its own."""
    with Cluster.attach() as cluster:
        domain = cluster.domain(name)
        running = {info.name: info.driver_domain for info in cluster.infos().values() if info.domid != domain.domid}
        loaded = load_xl_cfg(file, running, cluster.networks(), {"name": domain.name}, settings)
        for warning in loaded.warnings:
            print_warning(warning)
        domain.set_config(replace(loaded.config, uuid=loaded.config.uuid or domain.info().uuid))
    _say("configured", domain, as_json=as_json)


def block_attach(name: str, spec: Sequence[str], *, as_json: bool) -> None:
    """One more disk for a domain, which has connected if it runs."""
    with Cluster.attach() as cluster, Progress(quiet=as_json) as progress:
        domain = cluster.domain(name)
        config = _disk(",".join(spec)).config
        _check_backend(cluster, domain, "DISK", config)
        dev = config.backend_keys["dev"]
        progress(f"waiting for {dev} to connect")
        with _taken_back("nothing was attached", as_json=as_json):
            waits = _attach(domain, config, dev)
    _say_attached(f"attached {dev} to", domain, waits, as_json=as_json, devid=config.devid)


@contextlib.contextmanager
def _taken_back(what: str, *, as_json: bool) -> Iterator[None]:
    """Whoever is asked to end in its block takes back what he has asked for, undisturbed, and says `what`."""
    with HeldSignals() as signals:
        try:
            with signals.heard():
                yield
        except Ended:
            print_error(f"interrupted: {what}", as_json=as_json, kind="Ended")
            sys.exit(INTERRUPTED)


def _check_backend(cluster: Cluster, domain: Domain, argument: str, config: m.DeviceConfig) -> None:
    """ConfigError: nobody serves devices under the name that the argument gives."""
    infos = [info for info in cluster.infos().values() if info.domid != domain.domid]
    hosts = [info.name for info in infos if info.driver_domain or info.domid == DOM0]
    if config.backend in hosts:
        return
    there = config.backend == domain.name or any(info.name == config.backend for info in infos)
    found = shown(config.backend) + (", which is none" if there else "")
    hint = "" if there else nearest(config.backend, hosts)
    expected = "the name of a driver domain"
    raise ConfigError([Problem("command line", f"{argument}.backend", expected, found, hint)])


def _attach(domain: Domain, config: m.DeviceConfig, label: str) -> str:
    try:
        return on_one_line(domain.attach(config))
    except DeviceRefused as error:
        who = f"{domain.name} (domid {domain.domid})"
        raise DeviceRefused(f"{label} was not attached to {who}: {printable(str(error))}") from None


def _disk(line: str) -> Disk:
    report = Report("command line", "")
    disk = read_disk(report, ("DISK",), line, Path.cwd())
    report.raise_if_wrong()
    if disk is None:
        raise ConfigError([Problem("command line", "DISK", "a disk with an image", "a CD-ROM drive without a medium")])
    for warning in report.warnings():
        print_warning(warning)
    return disk


def block_detach(name: str, vdev: str, *, force: bool, as_json: bool) -> None:
    """One disk less."""
    with Cluster.attach() as cluster:
        domain = cluster.domain(name)
        devid = device_number(vdev)
        if devid is None:
            raise ConfigError([Problem("command line", "DEVID", SYNTAX, shown(vdev))])
        try:
            with _taken_back(_ASKED_NO_MORE, as_json=as_json):
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
        _check_backend(cluster, domain, "VIF", config)
        progress(f"waiting for vif {config.devid} to connect")
        with _taken_back("nothing was attached", as_json=as_json):
            waits = _attach(domain, config, f"vif {config.devid}")
            progress(f"waiting for {domain.name} to have an interface of it")
            found = _interface(cluster, domain, config) if program and not waits else Plugged(waits=waits)
    told = {"interface": found.interface or None} if program else {}
    as_what = f" as {on_one_line(found.interface)}" if found.interface else ""
    done, mac = f"attached vif {config.devid}{as_what} to", config.backend_keys["mac"]
    _say_attached(done, domain, found.waits, as_json=as_json, devid=config.devid, mac=mac, **told)


def _interface(cluster: Cluster, domain: Domain, config: m.DeviceConfig) -> Plugged:
    """What a program has of a vif. ClusterError: nothing, and the vif was taken away again."""
    with taken_away_unless_done(domain, config):
        found = plugged(cluster, domain, config)
        if found.refused:
            who, why = f"{domain.name} (domid {domain.domid})", on_one_line(found.refused)
            raise ClusterError(f"{who} can have no interface of vif {config.devid}, which was taken away again: {why}")
    return found


def _vif(line: str, owner: Owner, networks: Backends) -> m.DeviceConfig:
    report = Report("command line", "")
    vif = read_vif(report, ("VIF",), line, owner, networks)
    report.raise_if_wrong()
    assert vif is not None  # else something was wrong
    for warning in report.warnings():
        print_warning(warning)
    return vif.config


def network_detach(name: str, which: str, *, force: bool, as_json: bool) -> None:
    """One vif less, by its number or its MAC address."""
    with Cluster.attach() as cluster:
        domain = cluster.domain(name)
        nic = _nic(cluster, domain, which)
        with _taken_back(_ASKED_NO_MORE, as_json=as_json):
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


def _say_attached(done: str, domain: Domain, waits: str, *, as_json: bool, **more: object) -> None:
    if as_json:
        _say(done, domain, as_json=True, **more, waits=waits or None)
    else:
        print_line(f"{done} {domain.name} (domid {domain.domid})" + (f"; it waits for {waits}" if waits else ""))


def _say(done: str, domain: Domain, *, as_json: bool, **more: object) -> None:
    if as_json:
        print_json({"done": done, "domid": domain.domid, "name": domain.name, **more})
    else:
        print_line(f"{done} {domain.name} (domid {domain.domid})")
