"""What every sub-command is declared with: the application, the options that many share, and how one is registered."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from hvd.toolstack.cli.completion import command_names, domain_names, policy_names
from hvd.toolstack.cli.durations import seconds_from

NUMBER_DIGITS_MAX = 10
F = TypeVar("F", bound=Callable[..., Any])


def with_examples(text: str, *examples: str) -> str:
    """A help text as click prints it, and `hvd man` reads it."""
    return f"{text}\n\n\b\nExamples:\n" + "\n".join(f"  {example}" for example in examples)


app = typer.Typer(
    name="hvd",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    help=with_examples(
        "Xen's paravirtual architecture carried out by Linux processes.\n\n"
        "HVD_RUN_DIR names the directory of a cluster (else $XDG_RUNTIME_DIR/hvd, or /run/hvd for root, or"
        " /tmp/hvd-UID): each directory has a machine of its own.",
        "hvd up -d cockpit.toml", "hvd list", "hvd console ivi", "hvd create --help", "hvd down",
    ),
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one document a line.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A domain's name or domid.", autocompletion=domain_names)]
Names = Annotated[
    list[str], typer.Argument(metavar="NAME...", help="Domains' names or domids.", autocompletion=domain_names)
]


def as_seconds(text: str | float) -> float:
    try:
        return seconds_from(str(text))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def whole_number(least: int) -> Callable[[str | int], int]:
    """What reads a number that is no smaller."""

    def number(text: str | int) -> int:
        if isinstance(text, int):
            return text
        if not (text.isascii() and text.isdecimal() and len(text) < NUMBER_DIGITS_MAX and int(text) >= least):
            raise typer.BadParameter(f"expected a whole number, {least} or more; found {text!r}")
        return int(text)

    return number


Deadline = Annotated[
    float, typer.Option("--deadline", metavar="SECONDS", parser=as_seconds, help="How long to wait for domains.")
]
Grace = Annotated[
    float,
    typer.Option("--grace", metavar="SECONDS", parser=as_seconds, help="How long a domain may take till it is killed."),
]
Require = Annotated[
    str | None,
    typer.Option("--require-sandbox", metavar="LAYER,...", help="Refuse where the sandbox lacks one of these layers."),
]
MaybeNames = Annotated[
    list[str] | None,
    typer.Argument(metavar="NAME...", help="Domains' names or domids.", autocompletion=domain_names),
]
MaybeCommand = Annotated[
    str,
    typer.Argument(metavar="COMMAND", help="Of this command; else of hvd itself.", autocompletion=command_names),
]
All = Annotated[bool, typer.Option("--all", "-a", help="All guests that run, in place of names.")]
Fallback = Annotated[bool, typer.Option("-F", help="As in xl, which goes on where a guest cannot be asked: always so.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", "-w", help="Return when it is done.")]

Settings = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE...", help="Lines that stand in the place of the xl.cfg's.")
]
DefConfig = Annotated[
    Path | None, typer.Option("--defconfig", "-f", metavar="FILE", help="As in xl: the FILE, said as an option.")
]
Policy = Annotated[
    str | None,
    typer.Option(
        "--policy",
        metavar="NAME|FILE",
        help="The security policy, in place of the one the file names.",
        autocompletion=policy_names,
    ),
]


def described_by(
    context: typer.Context, file: Path | None, defconfig: Path | None, settings: list[str] | None
) -> tuple[Path | None, list[str]]:
    """The file and the lines of a command line; with -f a first argument is a line already, as in xl."""
    lines = settings or []
    if defconfig is None:
        return file, lines
    first = context.params["file"]  # as it was given: a Path has made one slash of two
    return defconfig, lines if first is None else [str(first), *lines]


def command(*examples: str) -> Callable[[F], F]:
    """Register a command under its function's name with dashes, its docstring and these examples as its help."""

    def register(function: F) -> F:
        text = with_examples(inspect.cleandoc(function.__doc__ or ""), *examples)
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
