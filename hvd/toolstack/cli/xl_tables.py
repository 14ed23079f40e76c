"""The tables that xl prints (xl(1), Xen 4.17), line by line, so that scripts which read them read ours."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from hvd.toolstack.cluster import DomainInfo
from hvd.toolstack.cluster.process_times import ProcessTimes
from hvd.toolstack.cluster.xl_state import reason, state

Row = tuple[DomainInfo, ProcessTimes]
CPU_POOL = "Pool-0"


class ListColumns(NamedTuple):
    """What `xl list` shows behind its usual columns: -v, -Z, -c and -n."""

    verbose: bool = False
    context: bool = False
    cpupool: bool = False
    numa: bool = False


def list_lines(rows: Iterable[Row], columns: ListColumns) -> list[str]:
    """`xl list`. All domains are in the one pool, and on the one node, that there is."""
    head = "Name                                        ID   Mem VCPUs\tState\tTime(s)"
    if columns.verbose:
        head += "   UUID                            Reason-Code\tSecurity Label"
    elif columns.context:
        head += "   Security Label"
    head += "         Cpupool" if columns.cpupool else ""
    head += " NODE Affinity" if columns.numa else ""
    lines = [head]
    for info, times in rows:
        line = f"{info.name:<40} {info.domid:>5} {info.memory:>5} {info.vcpus:>5}     {state(info, times)}"
        line += f"  {times.seconds:>8.1f}"
        if columns.verbose:
            over = reason(info)
            line += f" {info.uuid} {'-' if over is None else f'{over:x}':>8}"
        if columns.verbose or columns.context:
            line += f" {info.seclabel or '-':>16}"
        line += f"{CPU_POOL:>16}" if columns.cpupool else ""
        line += " all" if columns.numa else ""
        lines.append(line)
    return lines


def vcpu_lines(rows: Iterable[Row]) -> list[str]:
    """`xl vcpu-list`. A domain is one process, whatever its vcpus: the first has what there is to say."""
    lines = ["{:<32} {:>5} {:>5} {:>5} {:>5} {:>9} {}".format(
        "Name", "ID", "VCPU", "CPU", "State", "Time(s)", "Affinity (Hard / Soft)"
    )]  # fmt: skip
    for info, times in rows:
        online = info.pid is not None
        for vcpu in range(info.vcpus):
            first = online and vcpu == 0
            where = str(times.cpu) if first and times.cpu is not None else "-"
            flags = state(info, times)[:2] + "-" if first else "--p"
            seconds = times.seconds if first else 0.0
            line = f"{info.name:<32} {info.domid:>5} {vcpu:>5} {where:>5} {flags:>5} {seconds:>9.1f}"
            lines.append(f"{line}  {cpus(info.cpus)} / all")
    return lines


def cpus(numbers: Sequence[int]) -> str:
    """A set of CPUs as xl writes it: ranges, or `all`."""
    if not numbers:
        return "all"
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)


def vm_lines(infos: Iterable[DomainInfo]) -> list[str]:
    """`xl vm-list`: guests, with their UUIDs."""
    head = "UUID                                  ID    name"
    return [head, *(f"{info.uuid}  {info.domid}    {info.name:<30}" for info in infos if info.domid)]


def uptime(nanoseconds: int, *, short: bool) -> str:
    """Days, hours, minutes and, unless it is to be short, seconds."""
    days, rest = divmod(nanoseconds // 1_000_000_000, 86_400)
    hours, rest = divmod(rest, 3600)
    text = f"{hours:>2}:{rest // 60:02}" + ("" if short else f":{rest % 60:02}")
    return f"{days} day{'s' if days > 1 else ''}, {text}" if days else text


def uptime_lines(infos: Iterable[DomainInfo], *, short: bool, now: time.struct_time) -> list[str]:
    """`xl uptime`, or `xl uptime -s` at a time of day."""
    if short:
        clock = time.strftime("%H:%M:%S", now)
        return [f" {clock} up {uptime(i.uptime_ns, short=True)}, {i.name} ({i.domid})" for i in infos]
    head = f"{'Name':<33} {'ID':>4} Uptime"
    return [head, *(f"{i.name:<33} {i.domid:>4} {uptime(i.uptime_ns, short=False)}" for i in infos)]


class Disk(NamedTuple):
    """One line of `xl block-list`; -1 stands where there is no number yet, as in xl."""

    vdev: int
    backend: int
    frontend: int
    """Its domain's domid, which xl calls the handle."""
    state: int
    port: int
    ring_ref: int
    path: str


class Nic(NamedTuple):
    """One line of `xl network-list`; -1 stands where there is no number yet, as in xl."""

    devid: int
    backend: int
    mac: str
    state: int
    port: int
    tx_ref: int
    rx_ref: int
    path: str


def network_lines(nics: Iterable[Nic]) -> list[str]:
    """`xl network-list`. xl's columns do not stand below its heading, and scripts split them at spaces."""
    lines = [f"{'Idx':<3} {'BE':<2} {'Mac Addr.':<17} {'handle':<6} {'state':<5} {'evt-ch':<6} "
             f"{'tx-':>5}/{'rx-ring-ref':<5} {'BE-path':<30}"]  # fmt: skip
    for n in nics:
        refs = f"{n.tx_ref:>5}/{n.rx_ref:<11}"
        lines.append(f"{n.devid:<3} {n.backend:<2} {n.mac}{n.devid:>6} {n.state:>5} {n.port:>6} {refs} {n.path:<30}")
    return lines


def block_lines(disks: Iterable[Disk]) -> list[str]:
    """`xl block-list`."""
    lines = [f"{'Vdev':<5} {'BE':<3} {'handle':<6} {'state':<5} {'evt-ch':<6} {'ring-ref':<8} {'BE-path':<30}"]
    for d in disks:
        lines.append(
            f"{d.vdev:<5} {d.backend:<3} {d.frontend:<6} {d.state:<5} {d.port:<6} {d.ring_ref:<8} {d.path:<30}"
        )
    return lines
