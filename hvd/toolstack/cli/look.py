"""The commands that look: list, info, dmesg, logs, doctor."""

from __future__ import annotations

import io
import os
import select
import signal
import sys
from pathlib import Path

from hvd.toolstack.cli.output import FAILED, on_one_line, print_json, print_line, print_table, printable, seconds
from hvd.toolstack.cli.xl_info import xl_info
from hvd.toolstack.cli.xl_numa import BEHIND_TOPOLOGY, Topology
from hvd.toolstack.cli.xl_tables import ListColumns, list_lines
from hvd.toolstack.cluster import BadInput, Cluster, Domain, DomainInfo, NoSuchDomain, NotRunning
from hvd.toolstack.cluster.domain import full_name
from hvd.toolstack.cluster.process_times import process_times
from hvd.toolstack.cluster.run_dirs import default_run_dir
from hvd.transport.run_dir import LOG

FOLLOW_INTERVAL_S = 0.1
HEADINGS = ("Name", "ID", "Mem", "VCPUs", "State", "Ready", "Restarts", "Uptime", "Last death")
STANDING_BY = ("Spare", "Service")
"""Two columns more where a domain has either."""


def list_domains(names: list[str], columns: ListColumns, *, restarts: bool, long: bool, as_json: bool) -> None:
    """Every domain, or these, in a table."""
    with Cluster.attach() as cluster:
        domids = {cluster.domain(name).domid for name in names}
        infos = [info for info in cluster.infos().values() if not names or info.domid in domids]
        configs = [Domain(cluster, info.domid, info.name).config() for info in infos] if long else []
    if long:
        from hvd.toolstack.cli.xl_json import domain_json

        print_json([domain_json(info, config) for info, config in zip(infos, configs, strict=True)])
    elif as_json:
        print_json([info.as_dict() for info in infos])
    elif restarts:
        print_restarts(infos)
    else:
        rows = [(info, process_times(info.pid)) for info in infos]
        for line in list_lines(rows, columns):
            print_line(line)


def print_restarts(infos: list[DomainInfo]) -> None:
    """How often each died, of what, and who stands by for the next time."""
    if not any(info.spare or info.service for info in infos):
        print_table(HEADINGS, [row(info) for info in infos])
        return
    standing = [(info.spare.partition(":")[0] or "-", info.service or "-") for info in infos]
    rows = [(*row(info)[:-1], *more, row(info)[-1]) for info, more in zip(infos, standing, strict=True)]
    print_table((*HEADINGS[:-1], *STANDING_BY, HEADINGS[-1]), rows)


def row(info: DomainInfo) -> tuple[str, ...]:
    return (
        info.name,
        str(info.domid).rjust(2),
        str(info.memory).rjust(3),
        str(info.vcpus).rjust(5),
        info.state_text,
        "yes" if info.ready else "no",
        str(info.restarts).rjust(8),
        seconds(info.uptime_ns).rjust(6),
        on_one_line(info.last_death),
    )


def info(name: str, *, numa: bool, as_json: bool) -> None:
    """The machine: what `xl info` says, then what only hvd has; or one of these facts alone.

    With its tables of CPUs and nodes, as in xl, it is all of them.
    """
    with Cluster.attach() as cluster:
        facts = cluster.info()
    told = xl_info(facts) | {"uptime": seconds(facts["uptime_ns"])} | facts
    name = "" if numa else name
    if name and name not in told:
        raise BadInput(f"command line: NAME: expected one of {', '.join(told)}; found {name!r}")
    topology = Topology.here(told["total_memory"], told["free_memory"]) if numa else None
    if as_json:
        print_json({name: told[name]} if name else told | (topology.as_dict() if topology else {}))
    elif name:
        print_line(str(told[name]))
    else:
        for key, value in told.items():
            if topology and key == BEHIND_TOPOLOGY:
                print_line("\n".join(topology.lines()))
            if key != "uptime_ns":  # people have read it above
                print_line(f"{key:<23}: {value}")


def sandboxes(*, as_json: bool) -> None:
    """The layers of each domain's sandbox: in force, and lacking with the reason."""
    with Cluster.attach() as cluster:
        rows = cluster.sandboxes()
    if as_json:
        print_json(rows)
        return
    for one in rows:
        layers = ", ".join(one["in_force"]) or "not started"
        print_line(f"{one['name']} (domid {one['domid']}), {one['kind']}: {layers}")
        for name, reason in one["lacking"].items():
            print_line(f"    lacks {name}: {reason}")


def heartbeats(*, as_json: bool) -> None:
    """How often each domain is looked at, and how it was found last."""
    with Cluster.attach() as cluster:
        infos = cluster.infos().values()
    if as_json:
        names = ("domid", "name", "state", "heartbeat_ms", "heartbeat", "group")
        print_json([{name: getattr(info, name) for name in names} for info in infos])
        return
    every = [f"{info.heartbeat_ms:,} ms" if info.heartbeat_ms else "never" for info in infos]
    rows = [(info.name, often, info.heartbeat or "-", info.group) for info, often in zip(infos, every, strict=True)]
    print_table(("Name", "Every", "Found", "Group"), rows)


def quotas(*, as_json: bool) -> None:
    """What each domain has in use of what it may have."""
    with Cluster.attach() as cluster:
        rows = cluster.quotas()
    if as_json:
        print_json(rows)
        return
    names = list(rows[0]["quotas"])
    used = [[row["name"], *(f"{row['quotas'][name][0]:,}" for name in names)] for row in rows]
    most = ["(at most)", *(f"{rows[-1]['quotas'][name][1]:,}" for name in names)]
    print_table(("Name", *(name.capitalize() for name in names)), [*used, most])


def dmesg(*, clear: bool, as_json: bool) -> None:
    """The hypervisor's console, which is then forgotten if it is to be."""
    with Cluster.attach() as cluster:
        lines = cluster.dmesg()
        if clear:
            cluster.clear_dmesg()
    if as_json:
        print_json(lines)
    else:
        for line in lines:
            print_line(printable(line))


def logs(name: str, *, follow: bool, as_json: bool) -> None:
    """What a domain has written to its console; it is there after the domain, and after the machine."""
    path = _log_path(name)
    if as_json and not follow:
        print_json({"name": full_name(name), "text": "".join(_read(part)[0] for part in (_older(path), path))})
        return
    if follow:
        signal.signal(signal.SIGINT, _leave)
    position = 0
    for part in (_older(path), path):
        text, position = _read(part)
        sys.stdout.write(text)
    sys.stdout.flush()
    if follow:
        _follow(path, position)


def _leave(*_: object) -> None:
    """Ctrl-C is the usual way to end a log that is followed: at once, since there is nothing to undo."""
    os._exit(0)


def _log_path(name: str) -> Path:
    directory = default_run_dir() / LOG
    path = directory / f"{full_name(name)}.log"
    if Path(path.name) != Path(f"{full_name(name)}.log") or not (path.exists() or _older(path).exists()):
        known = ", ".join(sorted(each.stem for each in directory.glob("*.log"))) or "none"
        raise NoSuchDomain(f"no log of a domain {name!r} in {directory}; there are: {known}")
    return path


def _older(path: Path) -> Path:
    return path.with_suffix(path.suffix + ".1")


def _read(path: Path) -> tuple[str, int]:
    """What is there now, and how many bytes that are: it may grow at once."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return "", 0
    return io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", errors="replace").read(), len(data)


def _follow(path: Path, position: int) -> None:
    """What comes behind `position`, until the machine ends. Other processes write the file and change it for a new one:
    look at it regularly."""
    try:
        cluster = Cluster.attach()
    except NotRunning:
        return
    with cluster:
        ended = False
        while not ended:
            ended = bool(select.select([cluster.connection.machine_pidfd], [], [], FOLLOW_INTERVAL_S)[0])
            position = _copy_new(path, position)


def _copy_new(path: Path, position: int) -> int:
    try:
        with path.open("rb") as log:
            size = log.seek(0, 2)
            log.seek(position if position <= size else 0)
            data = log.read()
            position = log.tell()
    except FileNotFoundError:
        return 0
    if data:
        print_line_part(data)
    return position


def print_line_part(data: bytes) -> None:
    sys.stdout.write(data.decode("utf-8", "replace"))
    sys.stdout.flush()


def doctor(*, as_json: bool) -> None:
    """What this machine offers; exit status 1 when something is missing that a cluster cannot do without."""
    from hvd.toolstack.doctor import Status, examine

    findings = examine()
    if as_json:
        print_json([finding.as_dict() for finding in findings])
    else:
        for finding in findings:
            print_line(f"{finding.status.value:<8} {finding.name:<24} {finding.found}")
            for text in filter(None, (finding.cost, finding.remedy)):
                print_line(f"{'':<33} {text}")
    if any(finding.status is Status.MISSING for finding in findings):
        raise SystemExit(FAILED)
