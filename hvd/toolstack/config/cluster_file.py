"""Reads a whole cluster file: TOML text in, a `ClusterConfig` or every mistake out."""

import os
import re
import tomllib
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path

from hvd.toolstack.config.domains import DOM0_KERNEL, Draft, read_dom0, read_domain
from hvd.toolstack.config.kernels import Kernels
from hvd.toolstack.config.names import DOM0_NAME
from hvd.toolstack.config.problems import ConfigError, Problem, Report
from hvd.toolstack.config.relations import Running, check_relations, start_order
from hvd.toolstack.config.table import Table, table_in
from hvd.transport.limits import DOMAINS_MAX, MESSAGE_BYTES_MAX
from hvd.transport.messages import DomainConfig

FILE_BYTES_MAX = 1 << 20
_ENVELOPE_BYTES = 256
_WHERE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)\Z")


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """A cluster that can be started, as far as its file and this machine's files tell."""

    name: str = "hvd"
    file: Path | None = None
    """None: there is no file, dom0 is alone."""
    dom0: DomainConfig = field(default_factory=lambda: DomainConfig(DOM0_NAME, DOM0_KERNEL, driver_domain=True))
    domains: tuple[DomainConfig, ...] = ()
    """Every other domain, as they stand in the file."""
    start_order: tuple[str, ...] = ()
    """Their names, each behind the domains it comes `after` and those that host its backends."""

    def domain(self, name: str) -> DomainConfig:
        """The domain of this name, dom0 by its full name; KeyError if there is none."""
        for config in (self.dom0, *self.domains):
            if config.name == name:
                return config
        raise KeyError(name)


def load(path: str | os.PathLike[str], running: Running | None = None) -> ClusterConfig:
    """The cluster described by the file at `path`; ConfigError names everything that is wrong with it.

    Kernels and images are found from the file's own directory, and looked at but not run or changed. With `running` the
    domains are to join those, and may name them.
    """
    text = text_of(path)
    report = Report(os.fspath(path), text)
    file = Path(path).absolute()
    config = _read(Table(report, (), _document(path, text)), file, running or {})
    report.raise_if_wrong()
    return config


def _read(root: Table, file: Path, running: Running) -> ClusterConfig:
    kernels = Kernels(file.parent)
    cluster = _subtable(root, "cluster")
    name = cluster.name("name") if cluster and "name" in cluster.rest() else _stem(file)
    if cluster:
        cluster.finish()
    dom0 = _subtable(root, "dom0")
    dom0_config = read_dom0(dom0 or Table(root.report, ("dom0",), {}), kernels)
    drafts = [read_domain(table, kernels, file.parent) for table in root.tables("domain", "domain")]
    root.finish()
    _check_sizes(root.report, drafts)
    check_relations(root.report, drafts, running)
    root.report.raise_if_wrong()
    return ClusterConfig(name, file, dom0_config, tuple(draft.config for draft in drafts), start_order(drafts))


def _subtable(root: Table, key: str) -> Table | None:
    value = root.take(key)
    return None if value is None else table_in(root.report, root.at(key), value)


def _stem(file: Path) -> str:
    return re.sub(r"[^A-Za-z0-9_.+-]+", "-", file.stem).strip("-.")[:64] or "hvd"


def text_of(path: str | os.PathLike[str]) -> str:
    """The file's text, read once and at most a bound: it may be a pipe."""
    found: object
    try:
        str(Path(path).absolute()).encode()  # every kernel's and image's path, which hypercalls carry, begins so
        with open(path, "rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
        if len(content) <= FILE_BYTES_MAX:
            return content.decode("utf-8-sig")
        found = "more"
    except OSError as error:
        found = error.strerror
    except ValueError as error:  # a NUL in the path; a path or bytes that are no UTF-8
        found = error
    expected = f"a cluster file of at most {FILE_BYTES_MAX} bytes in UTF-8"
    raise ConfigError([Problem(os.fspath(path), "", expected, str(found))])


def _document(path: str | os.PathLike[str], text: str) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except RecursionError:
        problem = Problem(os.fspath(path), "", "TOML", "brackets nested too deep")
    except ValueError as error:  # TOMLDecodeError, and what int() and datetime say of absurd numbers
        message = str(error)
        where = _WHERE.search(message)
        line, column = (int(where[1]), int(where[2])) if where and where[1] else (None, None)
        if where and line is None:
            line = text.count("\n") + 1
        what = message[: where.start()] if where else message
        problem = Problem(os.fspath(path), "", "TOML", what[:1].lower() + what[1:], line=line, column=column)
    raise ConfigError([problem])


def _check_sizes(report: Report, drafts: list[Draft]) -> None:
    if len(drafts) >= DOMAINS_MAX:
        report.wrong(("domain",), f"at most {DOMAINS_MAX - 1} domains beside dom0", str(len(drafts)))
    for draft in drafts:
        size = _wire_bytes(draft.config)
        if size > MESSAGE_BYTES_MAX - _ENVELOPE_BYTES:
            expected = f"a domain that fits a hypercall of {MESSAGE_BYTES_MAX} bytes"
            report.wrong(draft.place, expected, f"{size} bytes", "its arguments, options and paths are too long")


def _wire_bytes(value: object) -> int:
    """The most that msgpack may need for a value of a message."""
    if isinstance(value, str):
        return len(value.encode()) + 5
    if isinstance(value, list):
        return 5 + sum(_wire_bytes(item) for item in value)
    if isinstance(value, dict):
        return 5 + sum(_wire_bytes(key) + _wire_bytes(item) for key, item in value.items())
    if is_dataclass(value):
        return 5 + sum(_wire_bytes(getattr(value, each.name)) for each in fields(value))
    return 9
