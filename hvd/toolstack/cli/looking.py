"""The sub-commands that show what there is: list, info, logs, dmesg."""

from __future__ import annotations

from typing import Annotated

import typer

from hvd.toolstack.cli.command import AsJson, command
from hvd.toolstack.cli.completion import domain_names, log_names


@command("hvd list", "hvd list -r ivi storage", "hvd list --json | jq -r '.[] | select(.ready) | .name'")
def list_(
    *,
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME...", autocompletion=domain_names)] = None,
    restarts: Annotated[
        bool, typer.Option("--restarts", "-r", help="In place of xl's table: readiness, restarts, why it died last.")
    ] = False,
    long: Annotated[bool, typer.Option("--long", "-l", help="xl's JSON: what each domain is made of.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="UUIDs, reasons of their ends, labels too.")] = False,
    context: Annotated[bool, typer.Option("--context", "-Z", help="Labels of the security policy too.")] = False,
    cpupool: Annotated[bool, typer.Option("--cpupool", "-c", help="The CPU pool too: here there is one.")] = False,
    numa: Annotated[bool, typer.Option("--numa", "-n", help="The NUMA nodes too: here there is one.")] = False,
    json: AsJson = False,
) -> None:
    """Show every domain, or those named, as `xl list` does."""
    from hvd.toolstack.cli import look
    from hvd.toolstack.cli.xl_tables import ListColumns

    columns = ListColumns(verbose=verbose, context=context, cpupool=cpupool, numa=numa)
    look.list_domains(names or [], columns, restarts=restarts, long=long, as_json=json)


@command(
    "hvd info", "hvd info total_memory", "hvd info --json", "hvd info --sandbox", "hvd info --quotas",
    "hvd info --heartbeat", "hvd info -n",
)  # fmt: skip
def info(
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Only this fact's value.")] = "",
    sandbox: Annotated[bool, typer.Option("--sandbox", help="Each domain's sandbox, layer by layer.")] = False,
    quotas: Annotated[bool, typer.Option("--quotas", help="What each domain has of what it may have.")] = False,
    heartbeat: Annotated[bool, typer.Option("--heartbeat", help="How each domain was found at its last beat.")] = False,
    numa: Annotated[bool, typer.Option("--numa", "-n", help="CPUs and nodes too, in tables.")] = False,
    json: AsJson = False,
) -> None:
    """Show the machine: processors, memory, uptime, what is in use, its processes."""
    from hvd.toolstack.cli import look

    if sandbox or quotas or heartbeat:
        (look.sandboxes if sandbox else look.quotas if quotas else look.heartbeats)(as_json=json)
    else:
        look.info(name, numa=numa, as_json=json)


@command("hvd logs ivi", "hvd logs -f storage")
def logs(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A domain's name.", autocompletion=log_names)],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the machine ends.")] = False,
    json: AsJson = False,
) -> None:
    """Show what a domain has written to its console. Its traceback, if it died, is there too."""
    from hvd.toolstack.cli import look

    look.logs(name, follow=follow, as_json=json)


@command("hvd dmesg", "hvd dmesg --clear")
def dmesg(
    clear: Annotated[bool, typer.Option("--clear", "-c", help="Then forget it.")] = False, json: AsJson = False
) -> None:
    """Show the hypervisor's console."""
    from hvd.toolstack.cli import look

    look.dmesg(clear=clear, as_json=json)
