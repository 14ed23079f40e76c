"""The `hvd` command: its sub-commands with their options, help and examples. What they do is beside this module.

Those are imported by the command that runs: typer alone takes longer to load than `hvd list` takes to answer.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hvd.toolstack.cli import looking, trying, watching, xl  # noqa: F401 - they declare more of them
from hvd.toolstack.cli.command import (
    All,
    AsJson,
    Deadline,
    DefConfig,
    Fallback,
    Grace,
    MaybeCommand,
    MaybeNames,
    Name,
    Names,
    Policy,
    Require,
    Settings,
    Wait,
    app,
    described_by,
    program,
)
from hvd.toolstack.cli.command import command as _command
from hvd.toolstack.cli.completion import actions, domain_names, modes, policy_names
from hvd.toolstack.cli.output import BAD_INPUT, FAILED, print_error

if TYPE_CHECKING:
    from hvd.toolstack.cluster.machine_process import MachineProcess

__all__ = ["app", "run"]

_machine: MachineProcess | None = None
"""A machine that was started ahead of the command line's reading, and waits for its order."""


def run(machine: MachineProcess | None = None) -> None:
    """Read the command line, carry it out, and end with a status: 0, 1 failed, 2 bad input and nothing done."""
    global _machine
    _machine = machine
    try:
        program(*sys.argv[1:])(prog_name="hvd")
    except Exception as error:  # noqa: BLE001 - the top of the process: what hvd raises on purpose is told, the rest is a bug
        sys.exit(_tell(error))
    finally:
        if _machine is not None:
            _machine.discard()


def _tell(error: Exception) -> int:
    from hvd.toolstack.cluster.errors import BadInput
    from hvd.toolstack.config import ConfigError
    from hvd.transport.errors import HvdError

    if not isinstance(error, HvdError | OSError):
        raise error
    print_error(str(error), as_json="--json" in sys.argv, kind=type(error).__name__)
    return BAD_INPUT if isinstance(error, ConfigError | BadInput) else FAILED


@_command("hvd up examples/cockpit/cockpit.toml", "hvd up -d cockpit.toml", "HVD_RUN_DIR=/tmp/two hvd up -d --json")
def up(
    *,
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="A cluster file; without one dom0 is alone.")
    ] = None,
    policy: Policy = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when every domain is ready.")] = False,
    timings: Annotated[bool, typer.Option("--timings", help="Print how long each step took.")] = False,
    deadline: Deadline = 30.0,
    require_sandbox: Require = None,
    json: AsJson = False,
) -> None:
    """Start a cluster, wait until its domains are ready, and tell what happens in it until Ctrl-C powers it off."""
    from hvd.toolstack.cli import power

    global _machine
    machine, _machine = _machine, None
    power.up(
        file,
        policy=policy,
        detach=detach,
        timings=timings,
        deadline_s=deadline,
        require=require_sandbox,
        as_json=json,
        machine=machine,
    )


@_command("hvd down", "hvd down --grace 0", "HVD_RUN_DIR=/tmp/two hvd down --json")
def down(grace: Grace = 5.0, json: AsJson = False) -> None:
    """Power the cluster off: guests are asked to stop, then everything is ended. Nothing to do is no failure."""
    from hvd.toolstack.cli import power

    power.down(grace_s=grace, as_json=json)


@_command("hvd clean", "HVD_RUN_DIR=/tmp/two hvd clean")
def clean(json: AsJson = False) -> None:
    """Remove what a machine has left in its directory, logs and cores too, however it ended. Refused while it runs."""
    from hvd.toolstack.cli import power

    power.clean(as_json=json)


@_command(
    "hvd create more.toml",
    "hvd create guest.cfg",
    "hvd create guest.cfg 'memory=128; cpus=\"0\"'",
    "hvd create guest.cfg --kernel guest.py --memory 128",
    "hvd create -n guest.cfg memory=128",
    "hvd create --kernel guest.py --name scratch",
    "hvd create --kernel ivi.py --name ivi --memory 128 --disk format=raw,vdev=xvda,backend=storage,target=ivi.img",
)
def create(
    context: typer.Context,
    *,
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="A cluster file (.toml), or an xl.cfg.")] = None,
    settings: Settings = None,
    defconfig: DefConfig = None,
    kernel: Annotated[
        str | None, typer.Option(metavar="FILE|ENTRY", help="A Python file with main(guest), or a name.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The new domain's name.")] = None,
    memory: Annotated[int | None, typer.Option(metavar="MIB")] = None,
    vcpus: Annotated[int | None, typer.Option()] = None,
    disk: Annotated[list[str] | None, typer.Option(metavar="SPEC", help="xl's disk syntax; may be repeated.")] = None,
    arg: Annotated[list[str] | None, typer.Option(help="An argument for the kernel; may be repeated.")] = None,
    after: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Start when this one is ready.", autocompletion=domain_names),
    ] = None,
    driver_domain: Annotated[bool, typer.Option("--driver-domain", help="It may host backends for others.")] = False,
    seclabel: Annotated[str | None, typer.Option(metavar="LABEL", help="Its label in the security policy.")] = None,
    on_crash: Annotated[
        str | None, typer.Option(metavar="ACTION", help="destroy, restart, preserve, ...", autocompletion=actions)
    ] = None,
    paused: Annotated[bool, typer.Option("--paused", "-p", help="Do not let it run before `hvd unpause`.")] = False,
    console: Annotated[bool, typer.Option("-c", help="Then attach to its console.")] = False,
    dryrun: Annotated[bool, typer.Option("--dryrun", "-n", help="Print what would be; create nothing.")] = False,
    stay: Annotated[bool, typer.Option("-F", help="Then stay until it has ended for good.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing when it is done.")] = False,
    wait: Wait = True,
    deadline: Deadline = 30.0,
    path: Annotated[
        list[str] | None, typer.Option(metavar="PATH[:w]", help="What it may read, or write; may be repeated.")
    ] = None,
    sandbox: Annotated[str | None, typer.Option(metavar="KIND", help="guest, driver, network or program.")] = None,
    require_sandbox: Require = None,
    json: AsJson = False,
) -> None:
    """Add domains to the running cluster: those of a cluster file, one of an xl.cfg, or one that options describe.

    Options stand in the place of what an xl.cfg says. When one is refused, or not ready in time, none of them stays.
    """
    from hvd.toolstack.cli import change, foreground

    options = {
        "kernel": kernel, "name": name, "memory": memory, "vcpus": vcpus, "disk": disk, "args": arg, "after": after,
        "driver_domain": driver_domain or None, "on_crash": on_crash, "seclabel": seclabel,
        "paths": path, "sandbox": sandbox,
    }  # fmt: skip
    given: dict[str, object] = {key: value for key, value in options.items() if value is not None and value != []}
    file, settings = described_by(context, file, defconfig, settings)
    if file is None and kernel is None:
        raise typer.BadParameter("give a FILE or --kernel with its options")
    if file is not None and file.suffix == ".toml" and (given or settings):
        raise typer.BadParameter("a cluster file says everything itself: give either it or options")
    if dryrun:
        foreground.dry_run(file, given, settings)
        return
    with foreground.interruptible(stays=stay):
        created = change.create(
            file, given, settings, paused=paused, wait=wait, deadline_s=deadline, require=require_sandbox,
            quiet=quiet, as_json=json, last=not console and not stay,
        )  # fmt: skip
        if console:
            from hvd.toolstack.cli.console import console as attach

            attach(created[-1].name)
        if stay:
            foreground.stay(created, quiet=quiet or json)


def _named(names: list[str] | None, *, all_: bool) -> list[str] | None:
    """The names, None for all guests."""
    if all_ == bool(names):
        raise typer.BadParameter("give the NAMEs of domains, or -a for all of them, and not both")
    return names or None


@_command("hvd destroy ivi", "hvd destroy ivi telematics")
def destroy(
    names: Names,
    force: Annotated[bool, typer.Option("-f", help="As in xl; Domain-0 cannot be destroyed all the same.")] = False,
    json: AsJson = False,
) -> None:
    """Kill domains at once and forget them."""
    from hvd.toolstack.cli import change

    change.destroy(names, as_json=json)


@_command("hvd pause ivi")
def pause(names: Names, json: AsJson = False) -> None:
    """Stop domains; their time stands still."""
    from hvd.toolstack.cli import change

    change.pause(names, as_json=json)


@_command("hvd unpause ivi")
def unpause(names: Names, json: AsJson = False) -> None:
    """Let paused domains go on."""
    from hvd.toolstack.cli import change

    change.unpause(names, as_json=json)


@_command("hvd reboot ivi", "hvd reboot --no-wait ivi", "hvd reboot -a")
def reboot(
    *, names: MaybeNames = None, all_: All = False, fallback: Fallback = False, wait: Wait = True, grace: Grace = 5.0,
    deadline: Deadline = 30.0, json: AsJson = False,
) -> None:  # fmt: skip
    """Boot domains again: they keep their domids. One that has failed starts afresh."""
    from hvd.toolstack.cli import change

    change.reboot(_named(names, all_=all_), wait=wait, grace_s=grace, deadline_s=deadline, as_json=json)


@_command("hvd shutdown ivi", "hvd shutdown --grace 30 ivi", "hvd shutdown -a")
def shutdown(
    *, names: MaybeNames = None, all_: All = False, fallback: Fallback = False, wait: Wait = True, grace: Grace = 5.0,
    json: AsJson = False,
) -> None:  # fmt: skip
    """Ask domains to power off; whoever has not after the grace is killed. What follows is its on_poweroff."""
    from hvd.toolstack.cli import change

    change.shutdown(_named(names, all_=all_), wait=wait, grace_s=grace, as_json=json)


@_command("hvd kill storage", "hvd kill --signal STOP ivi")
def kill(
    names: Names,
    signal: Annotated[
        str, typer.Option("--signal", "-s", metavar="SIGNAL", help="A signal's name or number.")
    ] = "KILL",
    json: AsJson = False,
) -> None:
    """Send domains' processes a signal, as a fault from outside: their on_crash action follows."""
    from hvd.toolstack.cli import change

    change.kill(names, change.signal_from(signal), as_json=json)


@_command("hvd console ivi", "hvd console -t pv -n 0 ivi")
def console(
    name: Name,
    kind: Annotated[str, typer.Option("-t", metavar="TYPE", help="As in xl; a domain's console is pv.")] = "pv",
    number: Annotated[int, typer.Option("-n", metavar="NUM", min=0, max=0, help="As in xl; a domain has one.")] = 0,
) -> None:
    """Attach this terminal to a domain's console; Ctrl-] detaches."""
    if kind != "pv":
        raise typer.BadParameter(f"a domain's console is pv, and {kind!r} is none of its", param_hint="-t")
    from hvd.toolstack.cli.console import console as attach

    attach(name)


@_command("hvd getenforce", "hvd getenforce --json")
def getenforce(json: AsJson = False) -> None:
    """Show whether what the security policy denies is refused (Enforcing) or only logged (Permissive)."""
    from hvd.toolstack.cli import security

    security.getenforce(as_json=json)


@_command("hvd setenforce 0", "hvd setenforce enforcing")
def setenforce(
    mode: Annotated[
        str, typer.Argument(metavar="MODE", help="1, enforcing, 0 or permissive.", autocompletion=modes)
    ],
    json: AsJson = False,
) -> None:
    """Refuse what the security policy denies, or let it pass and log it."""
    from hvd.toolstack.cli import security

    security.setenforce(mode, as_json=json)


@_command("hvd loadpolicy silo", "hvd loadpolicy my-policy.toml")
def loadpolicy(
    policy: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FILE", help="A policy that ships, or a policy file (.toml).", autocompletion=policy_names
        ),
    ],
    json: AsJson = False,
) -> None:
    """Load a security policy in the place of the one there is. Nothing that is bound or mapped is taken back."""
    from hvd.toolstack.cli import security

    security.loadpolicy(policy, as_json=json)


@_command("hvd man | man -l -", "hvd man list | man -l -", "hvd man --all /usr/local/share/man/man1")
def man(
    name: MaybeCommand = "",
    all_: Annotated[
        Path | None, typer.Option("--all", metavar="DIR", help="Write the pages of all commands there.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Print a manual page, for `man -l -`, or write all of them."""
    from hvd.toolstack.cli import man as manual

    manual.man(name, all_, as_json=json)


@_command("hvd help", "hvd help create")
def help_(
    name: MaybeCommand = "",
    json: AsJson = False,
) -> None:
    """Show the commands, or how one is used, as `hvd COMMAND --help` does."""
    from hvd.toolstack.cli import man as manual

    manual.explain(name, as_json=json)


@_command("hvd doctor", "hvd doctor --json | jq '.[] | select(.status != \"ok\")'")
def doctor(json: AsJson = False) -> None:
    """Say what this machine or container offers, what each lack costs, and how to get it."""
    from hvd.toolstack.cli import look

    look.doctor(as_json=json)
