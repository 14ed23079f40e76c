"""The sub-commands that try a machine out: fault, trace, attack, chaos, bench."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from hvd.toolstack.cli.command import AsJson, as_seconds, command
from hvd.toolstack.cli.completion import attack_names, bench_names, domain_names, fault_names, policy_names


@command(
    "hvd fault list",
    "hvd fault hang storage --for 2",
    "hvd fault drop-events ivi --for 5 --set rate=300 --seed 7",
    "hvd fault swizzle --dry-run",
    "hvd fault broker-kill --json",
)
def fault(
    *,
    name: Annotated[
        str, typer.Argument(metavar="FAULT", help="A fault's name, or list.", autocompletion=fault_names)
    ],
    victims: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME...", help="Domains' names or domids.", autocompletion=domain_names),
    ] = None,
    for_: Annotated[
        float | None,
        typer.Option("--for", metavar="SECONDS", parser=as_seconds, help="How long; it is undone then, whoever lives."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", min=0, max=2**63 - 1, help="Decides what is random; else one is drawn.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="PARAMETER=N", help="Of this fault; may be repeated.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would do, and do nothing.")] = False,
    json: AsJson = False,
) -> None:
    """Inject a fault into the running cluster, and say whether a witness saw it take effect.

    Ends with 1 when it did not. docs/faults.md describes each fault.
    """
    from hvd.toolstack.cli import fault as faults

    if name == "list":
        faults.list_faults(as_json=json)
        return
    sys.exit(
        faults.fault(
            name,
            victims or [],
            for_s=for_,
            seed=seed,
            settings=settings or [],
            dry_run=dry_run,
            as_json=json,
        )
    )


@command("hvd trace", "hvd trace -o boot.pftrace --duration 5", "hvd trace --domains storage,ivi --duration 2 --json")
def trace(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where to write; a file that is there is replaced.")
    ] = Path("hvd.pftrace"),
    duration: Annotated[
        float | None, typer.Option(metavar="SECONDS", parser=as_seconds, help="How long; without it until Ctrl-C.")
    ] = None,
    domains: Annotated[str, typer.Option(metavar="NAME,...", help="Only these domains and what they ask.")] = "",
    json: AsJson = False,
) -> None:
    """Record what domains do (notifications, requests, responses, hypercalls, lives and deaths) for ui.perfetto.dev.

    Ctrl-C ends it and writes what there is. What a domain did just before it was killed is there too.
    """
    from hvd.toolstack.cli.trace import trace as record

    record(output, duration, [name for name in domains.split(",") if name], as_json=json)


@command(
    "hvd attack",
    "hvd attack --only ptrace --only XSA-155",
    "hvd attack --policy silo --json",
    "hvd attack --list",
)
def attack(
    *,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Those whose names begin so, or have this XSA-N; may be repeated.",
            autocompletion=attack_names,
        ),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            "--policy",
            metavar="NAME|FILE",
            help="The security policy to attack under.",
            autocompletion=policy_names,
        ),
    ] = None,
    list_them: Annotated[bool, typer.Option("--list", help="Name the attacks, and do nothing.")] = False,
    json: AsJson = False,
) -> None:
    """Attack a cluster of its own with hostile domains, and say what was stopped.

    Each attack has a control: the same without what stops it, which has to work. Ends with 1 unless all is so.
    """
    from hvd.toolstack.cli import attack as attacking

    if list_them:
        attacking.list_attacks(as_json=json)
        return
    sys.exit(attacking.attack(only or [], policy=policy, as_json=json))


@command(
    "hvd chaos examples/chaos/plan.toml",
    "hvd chaos plan.toml --seeds 100-199 --out report",
    "hvd chaos plan.toml --seeds 107 --dry-run",
    "hvd chaos plan.toml --seeds 107 --again",
)
def chaos(
    *,
    file: Annotated[Path, typer.Argument(metavar="PLAN", help="A plan: cluster, load, faults, what is expected.")],
    seeds: Annotated[
        str | None, typer.Option(metavar="N[-M]", help="A run for each of these; else for the plan's own seed.")
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Where runs and reports go; seeds that have a run there are not run.")
    ] = Path("hvd-chaos"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and start nothing.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Run them although there are runs of them.")] = False,
    json: AsJson = False,
) -> None:
    """Run a seeded schedule of faults over clusters of its own under load, and judge what became of everything.

    Writes runs.jsonl, report.json and report.html. The same seed does the same again. Ends with 1 unless all is well.
    """
    from hvd.toolstack.cli import chaos as running

    sys.exit(running.chaos(file, seeds=seeds, out=out, dry_run=dry_run, again=again, as_json=json))


@command(
    "hvd bench ipc",
    "hvd bench ring --duration 5 --json",
    "hvd bench boot --check",
    "hvd bench net --kills 200",
    "hvd bench all --report docs",
)
def bench(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT", help="ipc, ring, block, net, boot, recovery, scale, fairness, hypercall, store, or all.",
            autocompletion=bench_names,
        ),
    ],
    *,
    seed: Annotated[int, typer.Option(metavar="N", help="Decides the order of turns and what is random.")] = 1,
    duration: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", parser=as_seconds, help="About how long each measures; more is more samples."),
    ] = None,
    cpus: Annotated[
        str | None, typer.Option(metavar="LIST", help="CPUs of the two ends, as 0,1; else the first and the last.")
    ] = None,
    kills: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="How often net and recovery kill a driver domain; else as time allows."),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="End with 1 when a goal is missed, and name it.")] = False,
    report: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write performance.md and its plots there.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Measure hvd on this machine, in clusters of its own, beside what else there is and the physical limit."""
    from hvd.toolstack.cli import bench as benching

    status = benching.bench(
        what, seed=seed, duration_s=duration, cpus=cpus, kills=kills, as_json=json, check=check, directory=report
    )
    sys.exit(status)
