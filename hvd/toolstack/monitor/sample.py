"""A moment of tracing: how often each port was rung, and how long requests took."""

from __future__ import annotations

import errno
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hvd.toolstack.trace.exchanges import Channels, exchanges
from hvd.toolstack.trace.session import Recording, TraceSession, is_hypervisor
from hvd.transport.hypercalls import HypercallError
from hvd.transport.trace import Kind

if TYPE_CHECKING:
    from hvd.toolstack.cluster import Cluster

Port = tuple[int, int]
"""(domid, port)."""
SAMPLE_S = 0.05


@dataclass(slots=True)
class Sample:
    """What was recorded in so many seconds. Domains record themselves: what one says of itself is not proved."""

    seconds: float
    notified: Counter[Port] = field(default_factory=Counter)
    latencies_us: dict[Port, list[float]] = field(default_factory=dict)
    """By the port of the one who asked, from the request in the ring to the answer taken; sorted."""


def take_sample(cluster: Cluster, seconds: float = SAMPLE_S) -> Sample | None:
    """None while somebody else traces, or when the host has no memory for it."""
    session = TraceSession(cluster.connection, [], only_if_free=True)
    try:
        session.start()
    except HypercallError as error:
        if error.errno in (errno.EBUSY, errno.ENOMEM, errno.ENOSPC):
            return None
        raise
    time.sleep(seconds)
    return read(session.stop())


def read(recording: Recording) -> Sample:
    """What a recording says of ports."""
    began, ended = recording.timeline.began, recording.timeline.ended
    sample = Sample(max((ended.ns - began.ns) / 1e9, 1e-9))
    tracks = [track for track in recording.tracks if not is_hypervisor(track)]
    for track in tracks:
        for event in track.events:
            if event.kind is Kind.NOTIFY:
                sample.notified[track.domid, event.port] += 1
    channels = Channels([event for track in recording.tracks if is_hypervisor(track) for event in track.events])
    ns = recording.timeline.ns
    for exchange in exchanges(tracks, channels):
        asked, received = exchange.asked, exchange.received
        if asked is not None and received is not None:
            took_us = max(0, ns(received.ticks) - ns(asked.ticks)) / 1000
            sample.latencies_us.setdefault((tracks[asked.track].domid, asked.port), []).append(took_us)
    for latencies in sample.latencies_us.values():
        latencies.sort()
    return sample

