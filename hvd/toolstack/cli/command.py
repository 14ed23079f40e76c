"""What every sub-command is declared with: the application, the options that many share, and how one is registered."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer

from hvd.toolstack.cli.completion import domain_names
from hvd.toolstack.cli.durations import seconds_from

F = TypeVar("F", bound=Callable[..., Any])

app = typer.Typer(
    name="hvd",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    help="Xen's paravirtual architecture carried out by Linux processes.\n\n"
    "HVD_RUN_DIR names the directory of a cluster (else $XDG_RUNTIME_DIR/hvd, or /run/hvd for root, or /tmp/hvd-UID):"
    " each directory has a machine of its own.",
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one document a line.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A domain's name or domid.", autocompletion=domain_names)]
Names = Annotated[
    list[str], typer.Argument(metavar="NAME", help="Domains' names or domids.", autocompletion=domain_names)
]


def as_seconds(text: str | float) -> float:
    try:
        return seconds_from(str(text))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


Deadline = Annotated[
    float, typer.Option("--deadline", metavar="SECONDS", parser=as_seconds, help="How long to wait for domains.")
]
Grace = Annotated[
    float,
    typer.Option("--grace", metavar="SECONDS", parser=as_seconds, help="How long a domain may take till it is killed."),
]
Require = Annotated[
    str,
    typer.Option("--require-sandbox", metavar="LAYER,...", help="Refuse where the sandbox lacks one of these layers."),
]
MaybeNames = Annotated[
    list[str] | None,
    typer.Argument(metavar="NAME", help="Domains' names or domids.", autocompletion=domain_names),
]
All = Annotated[bool, typer.Option("--all", "-a", help="All guests that run, in place of names.")]
Fallback = Annotated[bool, typer.Option("-F", help="As in xl, which goes on where a guest cannot be asked: always so.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", "-w", help="Return when it is done.")]

Policy = Annotated[
    str | None,
    typer.Option("--policy", metavar="NAME|FILE", help="The security policy, in place of the one the file names."),
]


def command(*examples: str) -> Callable[[F], F]:
    """Register a command under its function's name with dashes, its docstring and these examples as its help."""

    def register(function: F) -> F:
        text = f"{function.__doc__}\n\n\b\nExamples:\n" + "\n".join(f"  {example}" for example in examples)
        app.command(function.__name__.strip("_").replace("_", "-"), help=text)(function)
        return function

    return register


def program(*words: str) -> Any:
    """What reads a command line that begins so: if it names a command, that one alone. Typer takes 0.4 ms to build one.

    Anything else, help and what the shell completes among it, is read by all of them.
    """
    named = [each for each in app.registered_commands if each.name in words[:1]]
    if not named:
        return typer.main.get_command(app)
    one = copy.copy(app)
    one.registered_commands = named
    return typer.main.get_group(one)
