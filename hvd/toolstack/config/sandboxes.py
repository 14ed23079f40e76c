"""Reads what a domain's table says of its sandbox: kind, files of the host, layers to require or leave off."""

from pathlib import Path
from typing import TypedDict

from hvd.toolstack.config.problems import Place, Report, nearest, shown
from hvd.toolstack.config.table import Table
from hvd.transport.sandbox import ACTIONS, LAYERS, WRITABLE, Kind, split_path


class SandboxFields(TypedDict):
    """The fields of DomainConfig that are about its sandbox."""

    sandbox: str
    seccomp: str
    paths: list[str]
    sandbox_off: list[str]
    sandbox_require: list[str]


def read_sandbox(table: Table, directory: Path) -> SandboxFields:
    """Paths are meant from `directory`. Whatever is wrong is reported and left out."""
    return {
        "sandbox": table.choice("sandbox", "", tuple(Kind)),
        "seccomp": table.choice("seccomp", ACTIONS[0], ACTIONS),
        "paths": _paths(table, directory),
        "sandbox_off": _layers(table, "sandbox_off"),
        "sandbox_require": _layers(table, "sandbox_require"),
    }


def check_layers(report: Report, place: Place, names: list[str]) -> list[str]:
    """Those that there are; the others are reported."""
    for name in names:
        if name not in LAYERS:
            expected = "a layer: " + ", ".join(LAYERS)
            report.wrong(place, expected, shown(name), nearest(name, LAYERS))
    return [name for name in names if name in LAYERS]


def _layers(table: Table, key: str) -> list[str]:
    return check_layers(table.report, table.at(key), table.texts(key, "layers"))


def _paths(table: Table, directory: Path) -> list[str]:
    found = []
    for index, given in enumerate(table.texts("paths", "paths")):
        text, writable = split_path(given)
        path = directory / text
        if not text or not _is_there(path, writable=writable):
            what = "a file or directory, or a file to be made in one" if writable else "a file or directory"
            at = table.at("paths", index)
            table.report.wrong(at, what, f"{shown(str(path))}: it is not there" if text else shown(given))
        else:
            found.append(f"{path}{WRITABLE if writable else ''}")
    return found


def _is_there(path: Path, *, writable: bool) -> bool:
    return path.exists() or (writable and path.parent.is_dir())
