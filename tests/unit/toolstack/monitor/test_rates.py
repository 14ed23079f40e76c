"""Two looks at a cluster as rates: what went round, what began anew, and what a domain made up."""

from __future__ import annotations

from collections import Counter

import pytest

from hvd.toolstack.cluster import DomainInfo, DomainState
from hvd.toolstack.cluster.process_times import ProcessTimes
from hvd.toolstack.monitor.rates import Rates, percentile, rates
from hvd.toolstack.monitor.sample import Sample
from hvd.toolstack.monitor.snapshot import Process, Snapshot
from hvd.transport.ids import DomId, Incarnation

S = 10**9


def domain(domid: int, name: str, cpu_ns: int, incarnation: int = 1) -> tuple[DomainInfo, Process]:
    info = DomainInfo(
        DomId(domid), name, DomainState.RUNNING, (), Incarnation(incarnation), 100 + domid, True, incarnation - 1,
        64, 1, False, "hvd:idle", "", 0, (),
    )  # fmt: skip
    return info, Process(ProcessTimes(True, 0, cpu_ns / S), cpu_ns, 1000)


def ring(req: int | None, rsp: int | None, **fields: object) -> dict[str, object]:
    usual = {"domid": 2, "kind": "vbd", "devid": 51712, "name": "xvda", "backend": 1, "state": 4, "port": 3,
             "ring_ref": 8, "pages": 1, "req_prod": req, "req_event": 0, "rsp_prod": rsp, "rsp_event": 0}  # fmt: skip
    return usual | fields


def look(before: dict[str, object], after: dict[str, object], sample: Sample | None = None) -> Rates:
    names = [domain(1, "driver", 0), domain(2, "guest", 0)]
    ports = [
        {"domid": 1, "port": 3, "status": "interdomain", "remote_domid": 2, "remote_port": 3, "virq": None},
        {"domid": 2, "port": 3, "status": "interdomain", "remote_domid": 1, "remote_port": 3, "virq": None},
        {"domid": 2, "port": 1, "status": "virq", "remote_domid": None, "remote_port": None, "virq": 128},
    ]
    return rates(Snapshot(S, names, [before]), Snapshot(3 * S, names, [after]), ports, sample)


def test_requests_are_counted_by_what_was_answered_between_the_two_looks():
    (device,) = look(ring(100, 90), ring(310, 290)).devices
    assert (device.requests_per_s, device.in_flight, device.slots) == (100.0, 20, 32)
    assert (device.domain, device.backend, device.device) == ("guest", "driver", "xvda")


def test_counters_go_round():
    (device,) = look(ring(2**32 - 10, 2**32 - 20), ring(100, 80)).devices
    assert (device.requests_per_s, device.in_flight) == (50.0, 20)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (ring(500, 500), ring(10, 10)),
        (ring(5, 5), ring(10, 10, ring_ref=9)),
        (ring(5, 5), ring(10, 10, port=4)),
        (ring(None, None), ring(10, 10)),
        (ring(5, 5), ring(None, None)),
    ],
    ids=["began anew", "another ring", "another port", "not there before", "gone"],
)
def test_a_ring_that_is_not_the_one_before_has_no_rate(before, after):
    (device,) = look(before, after).devices
    assert device.requests_per_s is None


def test_more_in_flight_than_there_are_slots_is_what_a_domain_made_up():
    assert look(ring(0, 0), ring(33, 0)).devices[0].in_flight is None
    assert look(ring(0, 0), ring(32, 0)).devices[0].in_flight == 32
    assert look(ring(0, 0, pages=4), ring(128, 0, pages=4)).devices[0].slots == 128
    assert look(ring(0, 0, kind="echo"), ring(33, 0, kind="echo")).devices[0].slots is None


def test_a_channel_is_shown_once_with_what_either_end_sent():
    sample = Sample(0.5, Counter({(1, 3): 50, (2, 3): 20}), {(2, 3): [1.0, 2.0, 3.0, 400.0]})
    seen = look(ring(0, 0), ring(0, 0), sample)
    (channel,) = seen.channels
    assert (channel.domain, channel.peer) == ("driver", "guest")
    assert (channel.sent_per_s, channel.received_per_s) == (100.0, 40.0)
    assert (seen.devices[0].p50_us, seen.devices[0].p99_us) == (2.0, 400.0)


def test_without_a_sample_what_it_would_say_is_not_known():
    seen = look(ring(0, 0), ring(0, 0))
    assert (seen.channels[0].sent_per_s, seen.devices[0].p50_us) == (None, None)


def test_cpu_is_of_one_cpu_and_of_this_incarnation():
    before = Snapshot(0, [domain(1, "a", 5 * S), domain(2, "b", 7 * S)], [])
    after = Snapshot(2 * S, [domain(1, "a", 6 * S), domain(2, "b", 1 * S, incarnation=2), domain(3, "c", 9 * S)], [])
    assert [d.cpu_percent for d in rates(before, after, [], None).domains] == [50.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("values", "percent", "expected"), [([], 50, None), ([1.0], 99, 1.0), ([1.0, 2.0, 3.0], 50, 2.0)]
)
def test_percentiles(values, percent, expected):
    assert percentile(values, percent) == expected
