"""Packets between two guests through a driver domain's switch: how many, how fast, and how limited."""

from __future__ import annotations

from hvd.toolstack.bench.disks import disk_domain
from hvd.toolstack.bench.figures import Figure, Goal, absent, value
from hvd.toolstack.bench.measured import MeasuredDomain
from hvd.toolstack.bench.run import ROUNDS, Run
from hvd.toolstack.cluster import Cluster
from hvd.transport.messages import DeviceConfig
from hvd.transport.packed_rules import pack_rules

SWITCH, SENDER, RECEIVER = "bench-switch", "bench-sender", "bench-receiver"
DEADLINE_S = 60.0
MACS = {SENDER: "00:16:3e:00:00:01", RECEIVER: "00:16:3e:00:00:02"}
RULES = (
    "deny ether=0x88cc", "deny proto=tcp to-port=22", "deny proto=tcp to-port=23", "deny ip=192.168.0.0/16",
    "deny to-ip=172.16.0.0/12", "deny ip=fd00::/8", "deny proto=udp to-port=53", "deny proto=icmp",
    "deny mac=00:16:3e:00:00:09", "allow proto=udp",
)  # fmt: skip
"""Ten; the packets that are sent fit the last."""
ASLEEP_NS = 1_000_000
RATES_MBITS = (1, 10, 100, 1000)
RATE_NS = 1_000_000_000
LARGE = 1514


def measure_net(run: Run) -> list[Figure]:
    """In a cluster of its own."""
    if run.one_cpu:
        return [absent("packets through the switch", f"this process may use CPU {run.here} alone")]
    with Cluster.build(name="bench-net") as cluster:
        driver = cluster.create(disk_domain(SWITCH))
        driver.wait_ready(DEADLINE_S)
        ends = {name: native_end(run, cluster, name) for name in MACS}
        figures = [*_throughput(run, ends), *_round_trips(run, ends)]
        for end in ends.values():
            end.domain.destroy()
        figures += [_rate(run, cluster, mbits) for mbits in RATES_MBITS]
    return figures


def native_end(run: Run, cluster: Cluster, name: str, **keys: str) -> MeasuredDomain:
    """A guest on the CPU of its end, and its vif, whose frontend it drives itself."""
    rules = pack_rules(RULES, allow_by_default=False)
    back = {"mac": MACS[name], "bridge": "bench", "hvd-guard": "1", **rules, **keys}
    cpu = run.here if name == SENDER else run.there
    return MeasuredDomain(cluster, name, cpu, (DeviceConfig("vif", 0, SWITCH, back, {"mac": MACS[name]}),))


def _flood(ends: dict[str, MeasuredDomain], size: int, for_ns: int) -> dict[str, int]:
    """What the receiver counted of what the sender sends meanwhile."""
    ends[RECEIVER].order("count_packets", size=size, for_ns=for_ns)
    ends[SENDER].do("send_packets", to=MACS[RECEIVER], size=size, for_ns=for_ns + 2 * 200_000_000)
    counted: dict[str, int] = ends[RECEIVER].result()
    return counted


def _throughput(run: Run, ends: dict[str, MeasuredDomain]) -> list[Figure]:
    turn_ns = max(run.share_ns(0.15) // (2 * ROUNDS), 100_000_000)
    packets, gbits = [], []
    for number in range(ROUNDS):
        run.tell(f"packets through the switch, round {number + 1} of {ROUNDS}")
        small, large = _flood(ends, 64, turn_ns), _flood(ends, LARGE, turn_ns)
        packets.append(small["received"] / small["took_ns"] * 1e9)
        gbits.append(large["bytes"] * 8 / large["took_ns"])
    return [
        Figure("64-byte packets through the switch, ten rules", "packets/s", packets, (Goal("p50", least=500_000),)),
        Figure(f"{LARGE}-byte packets through the switch, ten rules", "Gbit/s", gbits),
    ]


def _round_trips(run: Run, ends: dict[str, MeasuredDomain]) -> list[Figure]:
    ends[RECEIVER].do("answer_packets")
    for_ns = run.share_ns(0.05)
    run.tell("round trips of a packet")
    hot = ends[SENDER].times("ping", to=MACS[RECEIVER], for_ns=for_ns)
    asleep = ends[SENDER].times("ping", to=MACS[RECEIVER], for_ns=for_ns, think_ns=ASLEEP_NS)
    return [
        Figure.timed("round trip of one packet, guest, switch, guest and back, hot", hot, wait="adaptive"),
        Figure.timed("round trip of one packet, asleep", asleep, wait="adaptive"),
    ]


def _rate(run: Run, cluster: Cluster, mbits: int) -> Figure:
    """What a vif's rate lets through, as its receiver counts it."""
    run.tell(f"a rate of {mbits} Mbit/s")
    interval_us = 50_000
    ends = {
        SENDER: native_end(run, cluster, SENDER, rate=f"{mbits * 125_000 * interval_us // 1_000_000},{interval_us}"),
        RECEIVER: native_end(run, cluster, RECEIVER),
    }
    counted = _flood(ends, LARGE, RATE_NS)
    for end in ends.values():
        end.domain.destroy()
    percent = counted["bytes"] * 8 / counted["took_ns"] * 1e3 / mbits * 100
    return value(f"rate of {mbits} Mbit/s", "%", percent, Goal("p50", 103.0, 97.0), note="of what it says")
