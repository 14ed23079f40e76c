"""Manual pages, made of what the commands are declared with: the names, options, words and examples of `--help`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hvd.toolstack.cli.output import print_json, print_line
from hvd.toolstack.cluster import BadInput

SECTION = 1
EXIT_STATUS = (
    ("0", "Done."),
    ("1", "It failed; standard error says who, what and what to do."),
    ("2", "Bad input: nothing was begun."),
)


def man(name: str, directory: Path | None, *, as_json: bool) -> None:
    """The page of a command, of hvd itself without a name; or all of them as files in a directory."""
    program = _program()
    if directory is not None:
        written = [_write(directory, each, program) for each in ("", *sorted(program.commands))]
        _tell(written, as_json=as_json)
        return
    _check(name, program)
    text = page(name, program)
    if as_json:
        print_json({"name": title(name), "section": SECTION, "text": text})
    else:
        sys.stdout.write(text)


def explain(name: str, *, as_json: bool) -> None:
    """What `--help` says of a command, or of hvd itself without a name."""
    program = _program()
    _check(name, program)
    context = program.context_class(program, info_name="hvd", **program.context_settings)
    if name:
        context = program.context_class(program.commands[name], info_name=name, parent=context)
    text = context.command.get_help(context)
    if as_json:
        print_json({"name": name, "text": text})
    else:
        print_line(text)


def _check(name: str, program: Any) -> None:
    if name and name not in program.commands:
        raise BadInput(f"command line: COMMAND: expected one of {', '.join(sorted(program.commands))}; found {name!r}")


def title(name: str) -> str:
    """What `man` finds the page by."""
    return f"hvd-{name}" if name else "hvd"


def page(name: str, program: Any) -> str:
    """One page in man(7)'s macros."""
    command = program.commands[name] if name else program
    prose, _, examples = (command.help or "").partition("\n\n\b\nExamples:\n")
    paragraphs = [part.replace("\n", " ").strip() for part in prose.split("\n\n")]
    summary = paragraphs[0].partition(". ")[0].partition(": ")[0].rstrip(".")
    lines = [f'.TH "{title(name).upper()}" {SECTION} "" "hvd" "hvd"']
    lines += [".SH NAME", f"{title(name)} \\- {escape(summary)}"]
    lines += [".SH SYNOPSIS", f".B hvd{' ' + escape(name) if name else ''}", escape(_usage(command, name))]
    lines += [".SH DESCRIPTION", *_joined(paragraphs)]
    lines += _options(command)
    if not name:
        lines += [".SH COMMANDS", *_commands(program)]
    if examples:
        lines += [".SH EXAMPLES", ".EX", *(escape(line.strip()) for line in examples.splitlines()), ".EE"]
    lines += [".SH EXIT STATUS"]
    for status, meaning in EXIT_STATUS:
        lines += [".TP", f".B {status}", meaning]
    lines += [".SH SEE ALSO", _see_also(name)]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Text that troff prints as it stands."""
    spelled = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    return f"\\&{spelled}" if spelled.startswith((".", "'")) else spelled


def _program() -> Any:
    import typer

    from hvd.toolstack.cli.app import app

    return typer.main.get_command(app)


def _usage(command: Any, name: str) -> str:
    if not name:
        return "COMMAND [OPTIONS] [ARGS]"
    arguments = [_metavar(param) for param in command.params if param.param_type_name == "argument"]
    return " ".join(["[OPTIONS]", *arguments])


def _metavar(param: Any) -> str:
    shown = param.metavar or param.name.upper()
    return shown if param.required else f"[{shown}]"


def _options(command: Any) -> list[str]:
    lines: list[str] = []
    for param in command.params:
        if param.param_type_name == "option":
            words = ", ".join([*param.opts, *param.secondary_opts])
            value = "" if param.is_flag else f" {param.metavar or param.type.name.upper()}"
            lines += [".TP", f".B {escape(words + value)}", escape(param.help or "")]
        elif param.help:
            lines += [".TP", f".I {escape(_metavar(param))}", escape(param.help)]
    return [".SH OPTIONS", *lines] if lines else []


def _commands(program: Any) -> list[str]:
    lines: list[str] = []
    for name, command in sorted(program.commands.items()):
        first = (command.help or "").partition("\n")[0]
        lines += [".TP", f".B {escape(title(name))}(1)", escape(first)]
    return lines


def _joined(paragraphs: list[str]) -> list[str]:
    lines: list[str] = []
    for paragraph in paragraphs:
        lines += [".PP", escape(paragraph)]
    return lines[1:]


def _see_also(name: str) -> str:
    return ".BR hvd (1)" if name else ".BR xl (1), \n.BR xl.cfg (5)"


def _write(directory: Path, name: str, program: Any) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{title(name)}.{SECTION}"
    path.write_text(page(name, program), encoding="utf-8")
    return path


def _tell(written: list[Path], *, as_json: bool) -> None:
    if as_json:
        print_json([str(path) for path in written])
    else:
        print_line(f"wrote {len(written)} pages to {written[0].parent}; `man -l {written[0]}` shows one")
