"""The commands that start and end a machine: up, down, clean.

At the top stands what an order is made of, no more: the machine waits for that.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hvd.toolstack.cli.interrupts import INTERRUPTED, Ended, HeldSignals, ended_by_signals
from hvd.toolstack.cli.output import event_line, print_error, print_json, print_line, print_warning
from hvd.toolstack.cli.progress import Progress
from hvd.toolstack.cli.timings import Timings
from hvd.toolstack.cluster.boot_plan import BootPlan
from hvd.toolstack.cluster.configuration import plan_from_domains, plan_from_file
from hvd.toolstack.cluster.errors import ClusterError, NotRunning
from hvd.toolstack.cluster.machine_process import MachineProcess
from hvd.toolstack.cluster.run_dirs import check_run_dir, default_run_dir
from hvd.toolstack.cluster.sandbox_trial import require_layers
from hvd.toolstack.config.policy_file import load_policy

if TYPE_CHECKING:
    from hvd.toolstack.cluster import Cluster, LifecycleEvent


def up(
    file: Path | None,
    *,
    policy: str | None,
    detach: bool,
    timings: bool,
    deadline_s: float,
    require: str | None,
    as_json: bool,
    machine: MachineProcess | None,
) -> None:
    """Start a cluster; stay with it until it ends or somebody ends us, unless detached.

    Until it is told that it is up, the machine ends with us, whatever we end of.
    """
    clock = Timings()
    with HeldSignals() as signals:
        machine = machine or MachineProcess.spawn()
        try:
            with signals.heard():
                plan = partial(_plan, file, policy, require)  # made while the machine starts
                cluster = _switch_on(plan, clock, machine, deadline_s, as_json=as_json)
        except Ended:
            machine.discard()
            if detach:
                print_error("interrupted: nothing was started", as_json=as_json, kind="Ended")
                sys.exit(INTERRUPTED)
            return
        with contextlib.closing(cluster):
            if detach:
                _say_up(cluster, clock, as_json=as_json, detach=True)
                cluster.let_go()
                signals.ignore()
                _say_timings(clock, timings=timings, as_json=as_json)
            else:
                _stay(cluster, clock, signals, timings=timings, as_json=as_json)
                signals.ignore()


def _stay(cluster: Cluster, clock: Timings, signals: HeldSignals, *, timings: bool, as_json: bool) -> None:
    with ended_by_signals():
        try:
            signals.check()
            with cluster.events() as events:
                _say_up(cluster, clock, as_json=as_json, detach=False)
                _say_timings(clock, timings=timings, as_json=as_json)
                for event in events:
                    tell(event, as_json=as_json)
            if not as_json:
                print_line(f"the machine in {cluster.run_dir} has powered off")
        except Ended:
            _end(cluster, as_json=as_json)


def _switch_on(
    make_plan: Callable[[], BootPlan],
    clock: Timings,
    machine: MachineProcess,
    deadline_s: float,
    *,
    as_json: bool,
) -> Cluster:
    """The machine gets its order first; what talks to it is loaded while it boots. Nothing is left if it fails."""
    until = time.monotonic() + deadline_s
    with contextlib.ExitStack() as undo, Progress(quiet=as_json) as progress:
        progress("waiting for the broker")
        undo.callback(machine.discard)
        plan = make_plan()
        for warning in plan.warnings:
            print_warning(warning)
        run_dir = default_run_dir()
        check_run_dir(run_dir)
        machine.order(plan.order(run_dir, temporary=False))
        clock.mark("order given")
        from hvd.toolstack.cluster.cluster import Cluster

        cluster = Cluster(plan, run_dir)
        undo.pop_all()
        cluster.switch_on(deadline_s, machine=machine)
        clock.mark("broker ready")
        cluster.boot(max(0.0, until - time.monotonic()), tell=progress, hear=clock.hear)
        clock.mark("every domain ready")
        return cluster


def _plan(file: Path | None, policy: str | None, require: str | None) -> BootPlan:
    layers = require_layers(require) if require is not None else []
    loaded = None if policy is None else load_policy(policy, "--policy")
    return plan_from_domains([], "hvd", loaded, layers) if file is None else plan_from_file(file, loaded, layers)


def down(*, grace_s: float, as_json: bool) -> None:
    """End the machine of this directory and everything in it."""
    from hvd.toolstack.cluster import Cluster
    from hvd.toolstack.cluster.remains import remove_remains
    from hvd.transport.hypercalls import HypercallTimeout

    run_dir = default_run_dir()
    try:
        cluster = Cluster.attach(run_dir)
    except NotRunning:
        remains = remove_remains(run_dir)
        _say_removed("nothing runs in", run_dir, remains.processes, remains.files, as_json=as_json, was_running=False)
        return
    names: list[str] = []
    with contextlib.suppress(ClusterError, HypercallTimeout):  # a broker that hangs keeps nobody from powering off
        names = [info.name for info in cluster.infos().values()]
    with Progress(quiet=as_json) as progress:
        cluster.down(grace_s, tell=progress)
    if as_json:
        print_json({"run_dir": str(run_dir), "was_running": True, "domains": names})
    else:
        print_line(f"powered off {run_dir}" + (f": {len(names)} domains ({', '.join(names)})" if names else ""))


def clean(*, as_json: bool) -> None:
    """Remove everything that a machine has left, logs and cores too."""
    from hvd.toolstack.cluster.remains import remove_remains

    run_dir = default_run_dir()
    remains = remove_remains(run_dir, logs=True)
    _say_removed("cleaned", run_dir, remains.processes, remains.files, as_json=as_json, was_running=False)


def _say_removed(
    what: str, run_dir: Path, processes: tuple[int, ...], files: tuple[str, ...], *, as_json: bool, was_running: bool
) -> None:
    if as_json:
        print_json({"run_dir": str(run_dir), "was_running": was_running, "processes": processes, "files": files})
        return
    parts = [f"removed {', '.join(files)}"] if files else []
    parts += [f"ended {len(processes)} processes"] if processes else []
    print_line(f"{what} {run_dir}: {'; '.join(parts) or 'nothing was left'}")


def _say_up(cluster: Cluster, clock: Timings, *, as_json: bool, detach: bool) -> None:
    """At once: whoever reads the first line has read that it is up, and may read no more."""
    infos = cluster.infos().values()
    name = cluster.plan.name if cluster.plan else ""
    if as_json:
        print_json(
            {
                "name": name,
                "run_dir": str(cluster.run_dir),
                "machine_pid": cluster.connection.machine_pid,
                "domains": [info.as_dict() for info in infos],
                "timings_ms": clock.as_dict(),
            }
        )
        return
    where = f"{name} is up in {cluster.run_dir}: {', '.join(info.name for info in infos)}"
    print_line(where if detach else f"{where}; Ctrl-C powers off")


def _say_timings(clock: Timings, *, timings: bool, as_json: bool) -> None:
    """If they are asked for, and have not been told with the rest."""
    for line in clock.lines() if timings and not as_json else ():
        print_line(line)


def tell(event: LifecycleEvent, *, as_json: bool) -> None:
    """Print an event; those of no domain are for programs."""
    if as_json:
        print_json(event.as_dict())
    elif event.domid >= 0:
        print_line(event_line(event))


def _end(cluster: Cluster, *, as_json: bool) -> None:
    """Power off; whoever asks again does not want to wait for the guests."""
    try:
        with Progress(quiet=as_json) as progress:
            cluster.down(tell=progress)
    except Ended:
        cluster.down(grace_s=0)
    if not as_json:
        print_line(f"powered off {cluster.run_dir}")
