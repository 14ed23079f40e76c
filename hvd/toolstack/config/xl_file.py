"""Reads an xl.cfg, the file that `xl create` takes, into the domain that hvd makes of it.

What hvd knows means what xl.cfg(5) says, xl's defaults included; what only Xen has, or nobody, is left out and told.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from hvd.toolstack.config.document import text_of
from hvd.toolstack.config.domains import read_domain
from hvd.toolstack.config.kernels import Kernels
from hvd.toolstack.config.networks import Backends
from hvd.toolstack.config.problems import ConfigError, Problem, Report, nearest, shown
from hvd.toolstack.config.relations import Running, check_relations
from hvd.toolstack.config.table import Table
from hvd.toolstack.config.xl_keys import XL_KEYS_NOT_HERE
from hvd.toolstack.config.xl_syntax import Document, SyntaxProblem, Value, as_text, number_in, parse
from hvd.transport.messages import DomainConfig

SUFFIX = ".toml"
"""A file with another name is an xl.cfg: those have no suffix of their own."""
_WORDS = """
    name kernel memory maxmem vcpus cpus disk vif driver_domain seclabel on_poweroff on_reboot on_crash on_watchdog
    args after uuid heartbeat_ms io_bps
"""
KNOWN = frozenset(_WORDS.split())
"""xl's keys that hvd has too, and those of hvd's own that make sense in such a file."""
DEFAULTS: Mapping[str, object] = {"on_watchdog": "destroy", "on_crash": "destroy", "heartbeat_ms": 0}
"""Where xl.cfg(5) has another default than a cluster file; there a domain has no watchdog but its own."""
NUMBERS = ("memory", "maxmem", "vcpus", "driver_domain", "heartbeat_ms", "io_bps")
ARGUMENTS = frozenset(("cmdline", "root", "extra"))
"""What a Linux kernel gets on its command line is what a kernel of ours gets as arguments."""


class XlDomain(NamedTuple):
    """The domain, and what of its description it does without."""

    config: DomainConfig
    warnings: tuple[str, ...]


def load_xl_cfg(
    path: Path, running: Running, networks: Backends, given: Mapping[str, object], settings: Sequence[str] = ()
) -> XlDomain:
    """The domain that an xl.cfg describes; what is `given` stands in the file's place. ConfigError names every mistake.

    It is to join `running`, its vifs `networks`. `settings` are more lines in the file's syntax, read behind it.
    Kernels and images are found from the current directory, as by xl.
    """
    text, more = text_of(path, "an xl.cfg"), "\n".join(settings)
    document, extra = _parsed(str(path), text), _parsed("command line", more)
    lines = {place: line for place, line in document.lines.items() if place[0] not in extra.values}
    report = Report(str(path), text, lines, document.columns)
    said = Report("command line", more, extra.lines, extra.columns)
    values = {**DEFAULTS, **_known(report, document), **_known(said, extra), **given}
    said.raise_if_wrong()
    draft = read_domain(Table(report, (), values), Kernels(Path.cwd()), Path.cwd(), networks)
    check_relations(report, [draft], running)
    _warn(report, document)
    _warn(said, extra)
    if wrong := report.problems():
        raise ConfigError(map(partial(_where_it_stands, set(extra.values)), wrong))
    return XlDomain(draft.config, (*report.warnings(), *said.warnings()))


def _where_it_stands(said: set[str], problem: Problem) -> Problem:
    """A key that was said on the command line is wrong there, and not in the file."""
    key = re.match(r"\w*", problem.key)
    return replace(problem, file="command line") if key is not None and key[0] in said else problem


def _parsed(source: str, text: str) -> Document:
    try:
        return parse(text)
    except SyntaxProblem as problem:
        wrong = Problem(source, "", problem.expected, problem.found, line=problem.line, column=problem.column)
        raise ConfigError([wrong]) from None


def _known(report: Report, document: Document) -> dict[str, object]:
    """The keys of a `[[domain]]` in which a cluster file says the same."""
    values = {key: _as_meant(key, document.values[key]) for key in KNOWN & document.values.keys()}
    if "driver_domain" in values:
        values["driver_domain"] = _flag(report, values["driver_domain"])
    arguments = _arguments(report, document)
    if arguments:
        values.setdefault("args", " ".join(arguments).split())
    return values


def _arguments(report: Report, document: Document) -> list[str]:
    """What a kernel is to be told: all of it is in `cmdline`, or the root and more in the two other keys."""
    texts: dict[str, str] = {}
    for key in ARGUMENTS & document.values.keys():
        value = document.values[key]
        if isinstance(value, list):
            report.wrong((key,), "a text", shown(value))
        else:
            texts[key] = as_text(value)
    if "cmdline" not in texts:
        return [text if key == "extra" else f"root={text}" for key, text in sorted(texts.items(), reverse=True)]
    for key in sorted(texts.keys() - {"cmdline"}):
        report.warn((key,), "is left out: cmdline stands in its place")
    return [texts["cmdline"]]


def _as_meant(key: str, value: Value) -> object:
    """Whether in quotes or not, what is a number to xl is one, and all else is a text or a list of them."""
    if isinstance(value, list):
        return [_as_meant(key, item) for item in value]
    if key not in NUMBERS:
        return as_text(value)
    number = number_in(value) if isinstance(value, str) else value
    return value if number is None else int(number)


def _flag(report: Report, value: object) -> object:
    """xl's truth is a number, any but 0."""
    if not isinstance(value, int):
        report.wrong(("driver_domain",), "a number, 0 for no", shown(value))
    return bool(value)


def _warn(report: Report, document: Document) -> None:
    for key, value in document.values.items():
        if key not in KNOWN and key not in ARGUMENTS:
            report.warn((key,), f"is left out: {_why(key, value)}")


def _why(key: str, value: Value) -> str:
    if key in XL_KEYS_NOT_HERE:
        return f"xl has it, hvd does not ({shown(value)})"
    return nearest(key, sorted(KNOWN | XL_KEYS_NOT_HERE)) or "neither xl nor hvd knows it"
