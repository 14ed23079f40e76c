"""The sub-commands that show what goes on: top, evtchn, grants, ring, events, metrics."""

from __future__ import annotations

from typing import Annotated

import typer

from hvd.toolstack.cli.command import AsJson, MaybeNames, as_seconds, command, whole_number
from hvd.toolstack.cli.completion import domain_names

Watched = Annotated[
    float, typer.Option("--duration", "-d", metavar="SECONDS", parser=as_seconds, help="How long to look.")
]


@command("hvd top", "hvd top -b -i 3 -d 2", "hvd top -b -i 1 --json | jq .domains", "hvd top -b --csv > load.csv")
def top(
    *,
    batch: Annotated[bool, typer.Option("--batch", "-b", help="Print tables, one look after the other.")] = False,
    iterations: Annotated[
        int | None,
        typer.Option("--iterations", "-i", metavar="N", parser=whole_number(1), help="So many looks, then it ends."),
    ] = None,
    delay: Annotated[
        float, typer.Option("--delay", "-d", metavar="SECONDS", parser=as_seconds, help="Between two looks.")
    ] = 1.0,
    as_csv: Annotated[bool, typer.Option("--csv", help="Lines of time, kind, name, measure, value.")] = False,
    json: AsJson = False,
) -> None:
    """Show what domains, devices and channels do, as xentop does: q ends it, s sorts, c shows quiet channels too.

    Requests are counted by the rings themselves; how long they take, and notifications, are seen in a trace of a
    moment of each interval, unless somebody else traces.
    """
    if as_csv and json:
        raise typer.BadParameter("give --csv or --json: the looks are printed in one of them")
    from hvd.toolstack.cli import top as watching

    watching.top(batch=batch, iterations=iterations, delay_s=delay, as_csv=as_csv, as_json=json)


@command("hvd evtchn", "hvd evtchn ivi -d 1", "hvd evtchn -d 0 --json")
def evtchn(names: MaybeNames = None, duration: Watched = 0.2, json: AsJson = False) -> None:
    """List event channels: whose port leads where, and how often it is rung. With -d 0 nothing is traced for that."""
    from hvd.toolstack.cli import between

    between.evtchn(names or [], seconds=duration, as_json=json)


@command("hvd grants", "hvd grants ivi -d 2", "hvd grants -d 0")
def grants(names: MaybeNames = None, duration: Watched = 0.5, json: AsJson = False) -> None:
    """List granted pages: whose, to whom, who has mapped them, and how often they are mapped."""
    from hvd.toolstack.cli import between

    between.grants(names or [], seconds=duration, as_json=json)


@command("hvd ring", "hvd ring ivi -d 2")
def ring(names: MaybeNames = None, duration: Watched = 0.5, json: AsJson = False) -> None:
    """List devices' rings: requests a second, how many are in flight, how long they take."""
    from hvd.toolstack.cli import between

    between.ring(names or [], seconds=duration, as_json=json)


@command(
    "hvd events",
    "hvd events storage --kind died,ready --json",
    "hvd events --since 5m --no-follow | jq -r 'select(.event == \"died\") | .detail'",
)
def events(
    *,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME...", help="Only these domains.", autocompletion=domain_names)
    ] = None,
    kind: Annotated[str, typer.Option(metavar="KIND,...", help="Only these kinds, as died or broker-restarted.")] = "",
    since: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER|TIME",
            help="Begin behind the event of that number (0: with the oldest that is kept), or 30s, 5m, 2h ago.",
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Go on until the machine ends, or print what there is.")
    ] = True,
    json: Annotated[
        bool | None, typer.Option("--json/--no-json", help="JSON lines or text; else text on a terminal only.")
    ] = None,
) -> None:
    """Tell what happens: lives, deaths and faults, each event once and with its number, whatever brokers die.

    Ctrl-C ends it, and so does the machine's end, both with status 0.
    """
    from hvd.toolstack.cli.events import events as tell

    tell(names or [], [each for each in kind.split(",") if each], since, follow=follow, as_json=json)


@command("hvd metrics --port 9750", "curl -s http://127.0.0.1:9750/metrics | grep restarts_total")
def metrics(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Of 127.0.0.1, where Prometheus scrapes; 0: one that is free.")
    ] = 9750,
    json: AsJson = False,
) -> None:
    """Serve the cluster's metrics to Prometheus until Ctrl-C or the machine's end.

    Restarts, recovery times, denials, events of channels, requests of rings, quotas. Nobody but this host can ask.
    """
    from hvd.toolstack.cli.metrics import metrics as serve

    serve(port, as_json=json)
