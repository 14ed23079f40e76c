"""Two snapshots and a sample between them, as rates: what `hvd top` shows, line by line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hvd.toolstack.cluster.xl_state import state
from hvd.toolstack.monitor.sample import Sample
from hvd.toolstack.monitor.snapshot import Snapshot

SCHEMA = 2
"""Of `Rates.as_dict`; a key that changes its meaning makes it larger."""
INDICES = 1 << 32
"""Ring counters are 32 bits, and go round."""
SLOT_BYTES = {"vbd": 112}
"""What a ring's slot takes, of the devices whose occupancy can be told in per cent (blkif.h)."""
_RING_HEADER_BYTES, _PAGE = 64, 4096


@dataclass(frozen=True, slots=True)
class DomainRates:
    """One domain."""

    domid: int
    name: str
    state: str
    """xl's six letters."""
    cpu_percent: float
    """Of one CPU."""
    cpu_seconds: float
    memory_kib: int
    """What it may have."""
    resident_kib: int
    restarts: int
    vcpus: int


@dataclass(frozen=True, slots=True)
class DeviceRates:
    """One device's ring."""

    domid: int
    domain: str
    device: str
    backend: str
    requests_per_s: float | None
    """None: its ring is not there, or began anew meanwhile."""
    in_flight: int | None
    slots: int | None
    """Requests that the ring holds."""
    p50_us: float | None
    p99_us: float | None
    """None: no answered request was seen."""


@dataclass(frozen=True, slots=True)
class ChannelRates:
    """One event channel, both ways."""

    domain: str
    port: int
    peer: str
    peer_port: int
    sent_per_s: float | None
    received_per_s: float | None


@dataclass(frozen=True, slots=True)
class Rates:
    """One look."""

    interval_s: float
    domains: list[DomainRates]
    devices: list[DeviceRates]
    channels: list[ChannelRates]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"schema": SCHEMA, **asdict(self)}


def rates(before: Snapshot, after: Snapshot, ports: Iterable[dict[str, Any]], sample: Sample | None) -> Rates:
    """What happened between the two; `ports` are Cluster.event_channels'."""
    seconds = max((after.at_ns - before.at_ns) / 1e9, 1e-9)
    names = {int(info.domid): info.name for info, _ in after.domains}
    return Rates(
        round(seconds, 3),
        _domains(before, after, seconds),
        [_device(ring, before, names, sample, seconds) for ring in after.rings],
        _channels(ports, names, sample),
    )


def percentile(sorted_values: Sequence[float], percent: float) -> float | None:
    """The smallest value that so many per cent do not exceed; None of nothing."""
    if not sorted_values:
        return None
    rank = -(-len(sorted_values) * percent // 100)
    return sorted_values[max(0, int(rank) - 1)]


def _domains(before: Snapshot, after: Snapshot, seconds: float) -> list[DomainRates]:
    old = {(info.domid, info.incarnation): process for info, process in before.domains}
    found = []
    for info, process in after.domains:
        used = process.cpu_ns - old.get((info.domid, info.incarnation), process).cpu_ns
        found.append(DomainRates(
            info.domid, info.name, state(info, process.times), round(max(0, used) / seconds / 1e7, 1),
            process.times.seconds, info.memory * 1024, process.resident_kib, info.restarts, info.vcpus,
        ))  # fmt: skip
    return found


def _device(
    ring: dict[str, Any], before: Snapshot, names: dict[int, str], sample: Sample | None, seconds: float
) -> DeviceRates:
    key = ("domid", "kind", "devid", "ring_ref", "port")
    old = next((r for r in before.rings if all(r[k] == ring[k] for k in key)), None)
    latencies = sample.latencies_us.get((ring["domid"], ring["port"]), []) if sample else []
    answered = None
    if ring["rsp_prod"] is not None and old is not None and old["rsp_prod"] is not None:
        answered = (ring["rsp_prod"] - old["rsp_prod"]) % INDICES
    slots = _slots(ring)
    in_flight = None if ring["rsp_prod"] is None else (ring["req_prod"] - ring["rsp_prod"]) % INDICES
    sane = in_flight is None or slots is None or in_flight <= slots
    return DeviceRates(
        ring["domid"], names.get(ring["domid"], "?"), ring["name"], names.get(ring["backend"], "-"),
        None if answered is None or answered >= INDICES // 2 else round(answered / seconds, 1),
        in_flight if sane else None, slots, percentile(latencies, 50), percentile(latencies, 99),
    )  # fmt: skip


def _slots(ring: dict[str, Any]) -> int | None:
    size = SLOT_BYTES.get(ring["kind"])
    if size is None:
        return None
    whole = (int(ring["pages"]) * _PAGE - _RING_HEADER_BYTES) // size
    return 1 << whole.bit_length() - 1


def _channels(ports: Iterable[dict[str, Any]], names: dict[int, str], sample: Sample | None) -> list[ChannelRates]:
    """Each channel once, from the end with the smaller domid and port."""
    found = []
    for row in ports:
        here, there = (row["domid"], row["port"]), (row["remote_domid"], row["remote_port"])
        if row["status"] != "interdomain" or here > there:
            continue
        sent, received = ((sample.notified[end] / sample.seconds) if sample else None for end in (here, there))
        found.append(ChannelRates(
            names.get(here[0], "?"), here[1], names.get(there[0], "?"), there[1],
            None if sent is None else round(sent, 1), None if received is None else round(received, 1),
        ))  # fmt: skip
    return found
