"""The commands that change a running cluster: create, destroy, pause, unpause, reboot, shutdown, kill."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from hvd.toolstack.cli.interrupts import INTERRUPTED, Ended, HeldSignals
from hvd.toolstack.cli.output import print_error, print_json, print_line, print_warning
from hvd.toolstack.cli.progress import Progress
from hvd.toolstack.cluster import Cluster, Domain
from hvd.toolstack.cluster.domain import ALIVE, DomainState
from hvd.toolstack.cluster.errors import BadInput, NotRunning
from hvd.toolstack.cluster.events import EventStream
from hvd.toolstack.cluster.sandbox_trial import require_layers
from hvd.toolstack.config import ClusterConfig, load
from hvd.toolstack.config.options import domain_from_options
from hvd.toolstack.config.problems import ConfigError, Problem, shown
from hvd.toolstack.config.xl_file import SUFFIX, load_xl_cfg
from hvd.transport import messages as m
from hvd.transport.errors import HvdError
from hvd.transport.hypercalls import HypercallError
from hvd.transport.messages import DomainConfig
from hvd.transport.xsm import OPEN_POLICY


def create(
    file: Path | None,
    options: dict[str, object],
    settings: list[str],
    *,
    paused: bool,
    wait: bool,
    deadline_s: float,
    require: str | None,
    quiet: bool,
    as_json: bool,
    last: bool = True,
) -> list[Domain]:
    """Add the domains of a file, or the one that options describe, to the running cluster: all of them or none.

    Whoever interrupts has none of them, or is too late and is told of all. `last`: nothing is done behind it.
    """
    layers = require_layers(require) if require is not None else []
    with Cluster.attach() as cluster, HeldSignals() as signals:
        domains: list[Domain] = []
        try:
            with signals.heard():
                configs = configs_of(cluster, file, options, settings)
            for config in configs:
                signals.check()
                required = [*config.sandbox_require, *layers]
                domains.append(_created(cluster, replace(config, paused=paused, sandbox_require=required)))
            with signals.heard():
                if wait and not paused:
                    with Progress(quiet=as_json) as progress:
                        cluster.wait_ready(deadline_s, domains, tell=progress)
        except Ended:
            _take_back(domains)
            print_error("interrupted: nothing was created", as_json=as_json, kind="Ended")
            sys.exit(INTERRUPTED)
        except Exception:
            _take_back(domains)
            raise
        if not quiet:
            _say("created", domains, as_json=as_json)
        if last:
            signals.ignore()
        elif signals.came:  # what is to be done behind it is not
            sys.exit(INTERRUPTED)
        return domains


def _created(cluster: Cluster, config: DomainConfig) -> Domain:
    """BadInput: no domain can be made of this, as its label, which only the hypervisor knows."""
    try:
        return cluster.create(config)
    except HypercallError as error:
        if error.errno != errno.EINVAL:
            raise
        raise BadInput(f"{config.name}: {error.text}") from None


def configs_of(
    cluster: Cluster, file: Path | None, options: dict[str, object], settings: list[str]
) -> list[DomainConfig]:
    """What `create` makes of these words, each checked; what is left out is warned of. BadInput, ConfigError."""
    running = {info.name: info.driver_domain for info in cluster.infos().values() if info.domid}
    if file is None:
        domain = domain_from_options(options, Path.cwd(), running, cluster.networks())
        _warn(domain.warnings)
        return [domain.config]
    return _from_file(file, running, cluster.networks(), options, settings)


def _take_back(domains: list[Domain]) -> None:
    """Nothing of a create that has failed stays, as far as its cluster still answers; else we say what does."""
    for domain in reversed(domains):
        try:
            domain.destroy()
        except NotRunning:
            return
        except HvdError as error:
            if not isinstance(error, HypercallError) or error.errno != errno.ESRCH:
                print_warning(f"{domain.name} (domid {domain.domid}) may still be there: {error}")


def _from_file(
    file: Path, running: dict[str, bool], networks: dict[str, str], options: dict[str, object], settings: list[str]
) -> list[DomainConfig]:
    if file.suffix != SUFFIX:
        domain = load_xl_cfg(file, running, networks, options, settings)
        _warn(domain.warnings)
        return [domain.config]
    config = load(file, running, networks=networks)
    if config.dom0 != ClusterConfig().dom0:
        expected = "domains to add to a cluster that is running"
        raise ConfigError([Problem(str(file), "dom0", expected, "what dom0 is to be", "use `hvd up` to start it so")])
    if config.policy is not OPEN_POLICY or not config.enforcing:
        key = "policy" if config.policy is not OPEN_POLICY else "flask"
        hint = "use `hvd loadpolicy` and `hvd setenforce`"
        expected = "domains to add to a cluster that is running"
        raise ConfigError([Problem(str(file), key, expected, "what the security policy is to be", hint)])
    for key, found in (("group", config.groups), ("network", config.networks)):
        if found:
            expected = "domains to add to a cluster that is running"
            raise ConfigError([Problem(str(file), key, expected, f"a {key}", f"{key}s are made by `hvd up`")])
    _warn(config.warnings)
    return [config.domain(name) for name in config.start_order]


def _warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        print_warning(warning)


def destroy(names: list[str], *, as_json: bool) -> None:
    """Kill domains and forget them."""
    _each(names, Domain.destroy, "destroyed", as_json=as_json)


def pause(names: list[str], *, as_json: bool) -> None:
    """Stop domains' processes and their time. One that is paused stays so, as in xl; it has stopped too."""

    def act(domain: Domain) -> None:
        _unless(DomainState.PAUSED, Domain.pause)(domain)
        domain.wait_paused()

    _each(names, act, "paused", as_json=as_json)


def unpause(names: list[str], *, as_json: bool) -> None:
    """Let paused domains go on. One that runs goes on running, as in xl."""
    _each(names, _unless(DomainState.RUNNING, Domain.unpause), "unpaused", as_json=as_json)


def _unless(state: DomainState, action: Callable[[Domain], None]) -> Callable[[Domain], None]:
    """It may be refused to a domain that is in that state already."""

    def act(domain: Domain) -> None:
        try:
            action(domain)
        except HypercallError as error:
            if error.errno != errno.EINVAL or domain.info().state is not state:
                raise

    return act


def shutdown(names: list[str] | None, *, wait: bool, grace_s: float, as_json: bool) -> None:
    """Ask domains to power off."""
    if not wait:
        _each(names, lambda domain: domain.shutdown(grace_s), "asked to power off", as_json=as_json)
        return
    with Cluster.attach() as cluster, Progress(quiet=as_json) as progress, cluster.events() as events:
        domains = _named(cluster, names)
        ends = [(domain, domain.incarnation) for domain in domains]
        for domain in domains:
            domain.shutdown(grace_s)
        for domain, incarnation in ends:
            progress(f"waiting for {domain.name} to stop")
            domain.wait_stopped(incarnation, grace_s + SLACK_S)
        killed = _killed(events)
    _say_ended("powered off", domains, killed, grace_s, as_json=as_json)


def reboot(names: list[str] | None, *, wait: bool, grace_s: float, deadline_s: float, as_json: bool) -> None:
    """Ask domains to boot again."""
    with Cluster.attach() as cluster, Progress(quiet=as_json) as progress, cluster.events() as events:
        domains = _named(cluster, names)
        for domain in domains:
            domain.reboot(grace_s, deadline_s)
        if wait:
            cluster.wait_ready(deadline_s, domains, tell=progress)
        killed = _killed(events) if wait else set()
    _say_ended("rebooted" if wait else "asked to reboot", domains, killed, grace_s, as_json=as_json)


def _killed(events: EventStream) -> set[int]:
    """The domains that have not stopped by themselves."""
    try:
        news = events.up_to_now()
    except HvdError:  # the machine has gone with its dom0
        return set()
    return {event.domid for event in news if event.event == "died" and event.detail.endswith(m.GRACE_OVER)}


def _say_ended(done: str, domains: list[Domain], killed: set[int], grace_s: float, *, as_json: bool) -> None:
    if as_json:
        print_json([
            {"done": done, "domid": domain.domid, "name": domain.name, "killed": domain.domid in killed}
            for domain in domains
        ])  # fmt: skip
        return
    for domain in domains:
        how = f", killed after its grace of {grace_s:g} s" if domain.domid in killed else ""
        print_line(f"{done} {domain.name} (domid {domain.domid}){how}")


def kill(names: list[str], number: signal.Signals, *, as_json: bool) -> None:
    """Send domains' processes a signal, as a fault."""
    _each(names, lambda domain: domain.kill(number), f"sent {number.name} to", as_json=as_json)


def signal_from(text: str) -> signal.Signals:
    """KILL, SIGKILL or 9; ConfigError for anything else."""
    try:
        if text.isdecimal():
            return signal.Signals(int(text))
        return signal.Signals[text.upper() if text.upper().startswith("SIG") else f"SIG{text.upper()}"]
    except (ValueError, KeyError):
        found = Problem("command line", "--signal", "a signal's name or number", shown(text), "`kill -l` lists them")
        raise ConfigError([found]) from None


SLACK_S = 5.0


def dump_core(name: str, file: Path, *, as_json: bool) -> None:
    """Write a core of a domain, which then goes on."""
    with Cluster.attach() as cluster, Progress(quiet=as_json) as progress:
        domain = cluster.domain(name)
        domain.dump_core(file, tell=progress)
    if as_json:
        print_json({"done": "core dumped", "domid": domain.domid, "name": domain.name, "file": os.path.realpath(file)})


def _each(names: Iterable[str] | None, action: Callable[[Domain], None], done: str, *, as_json: bool) -> None:
    """All names are looked up before anything is done to any of them."""
    with Cluster.attach() as cluster, Progress(quiet=as_json) as progress:
        domains = _named(cluster, names)
        for domain in domains:
            progress(f"waiting for {domain.name}")
            action(domain)
    _say(done, domains, as_json=as_json)


def _named(cluster: Cluster, names: Iterable[str] | None) -> list[Domain]:
    """Each once, in order, however often and by whichever of its names it was given; None: all guests that run."""
    if names is None:
        return [cluster.domain(info.name) for info in cluster.infos().values() if info.domid and info.state in ALIVE]
    return list({domain.domid: domain for domain in map(cluster.domain, names)}.values())


def _say(done: str, domains: list[Domain], *, as_json: bool) -> None:
    if as_json:
        print_json([{"done": done, "domid": domain.domid, "name": domain.name} for domain in domains])
    else:
        for domain in domains:
            print_line(f"{done} {domain.name} (domid {domain.domid})")
