"""XenStore by its socket: requests a second beside Xen's own daemon, with 100,000 nodes, with 10,000 watches."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Self

from hvd.toolstack.bench.figures import Figure, Goal, absent, ratio
from hvd.toolstack.bench.run import ROUNDS, Run
from hvd.toolstack.bench.store_client import StoreClient
from hvd.toolstack.cluster import Cluster, Domain
from hvd.transport._native import Histogram
from hvd.transport.messages import DomainConfig, DomctlDestroy
from hvd.transport.run_dir import DOMAINS, STORE_SOCKET
from hvd.transport.xs_wire import Type

BESIDE = "HVD_BENCH_XENSTORED"
"""Names the socket of another daemon to measure in turns; tests/process/xenstored/no_xen.c says how Xen's run here."""
THEIRS = "xenstored: "
"""Begins the names of its figures."""
NODES, WATCHES, REMOVED, OWNED, IN_FLIGHT = 100_000, 10_000, 10_000, 900, 32
REMOVAL_NS = 50_000_000
"""About how long it takes."""
NODE = "/bench/node"
READ, WRITE = f"{NODE}\0".encode(), f"{NODE}\0value".encode()


def measure_store(run: Run) -> list[Figure]:
    """In clusters of its own: one with few nodes and no watches, one with many."""
    with (
        Cluster.build(name="bench-store") as few, StoreClient(_socket(few)) as plain,
        Cluster.build(name="bench-store-full") as many, StoreClient(_socket(many)) as full,
        StoreClient(_socket(many)) as watcher,
    ):  # fmt: skip
        _fill(run, full, watcher)
        return [*_beside(run, _socket(few)), *_full(run, plain, full), *_bystanders(run, many, full)]


def _socket(cluster: Cluster) -> str:
    path: str = cluster.info()["xenstored_socket"]
    return path


def _fill(run: Run, full: StoreClient, watcher: StoreClient) -> None:
    run.tell(f"{_scaled(run, NODES):,} nodes and {_scaled(run, WATCHES):,} watches")
    full.write_all([f"/load/{number % 100}/{number // 100}" for number in range(_scaled(run, NODES))])
    for number in range(_scaled(run, WATCHES)):
        watcher.call(Type.WATCH, f"/unrelated/{number}\0token\0".encode())


def _scaled(run: Run, count: int) -> int:
    """Fewer where there is less than a second to measure them."""
    return int(count * min(1.0, max(run.duration_s, 0.01)))


Turn = Callable[[int], float]
"""Measures for so many nanoseconds: requests a second."""


def _in_turns(run: Run, what: str, part: float, turns: dict[str, Turn]) -> dict[str, list[float]]:
    """What disturbs the machine for a while disturbs all of them."""
    rates: dict[str, list[float]] = {name: [] for name in turns}
    turn_ns = run.share_ns(part) // (ROUNDS * len(turns))
    for number in range(ROUNDS):
        run.tell(f"{what}, round {number + 1} of {ROUNDS}")
        order = list(turns)
        run.random.shuffle(order)
        for name in order:
            rates[name].append(turns[name](turn_ns))
    return rates


def _beside(run: Run, path: str) -> list[Figure]:
    """Reads and writes by one connection, beside another daemon if there is one."""
    theirs = os.environ.get(BESIDE)
    with _Asker(path) as ours:
        if theirs is None:
            figures = _rates(_in_turns(run, "requests", 0.5, _turns("", ours)))
            return [*figures, absent("the same of xenstored", f"{BESIDE} names no socket of one")]
        with _Asker(theirs) as other:
            rates = _in_turns(run, "requests", 0.5, _turns("", ours) | _turns(THEIRS, other))
        return [*_rates(rates), *(_beaten(name, rates[name], rates[f"{THEIRS}{name}"]) for name in _turns("", ours))]


def _beaten(name: str, ours: list[float], theirs: list[float]) -> Figure:
    """Round by round: what disturbs the machine for a while disturbs both."""
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    return Figure(f"{name} / xenstored's", "×", ratios, (Goal("p50", least=1.0),), "of the same round")


class _Asker:
    """Two connections to one daemon: what asks, and what writes beside it."""

    def __init__(self, path: str) -> None:
        self._open = ExitStack()
        self.client, self._writer = (self._open.enter_context(StoreClient(path)) for _ in range(2))
        self.client.call(Type.WRITE, WRITE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._open.close()

    def rate_beside_writer(self, for_ns: int) -> float:
        """Reads a second, one at a time, while the other connection always has a write under way."""
        done, began = 0, time.perf_counter_ns()
        while (now := time.perf_counter_ns()) < began + for_ns:
            self._writer.begin(Type.WRITE, WRITE)
            self.client.call(Type.READ, READ)
            self._writer.end(Type.WRITE)
            done += 1
        return done / (now - began) * 1e9


def _turns(prefix: str, asker: _Asker) -> dict[str, Turn]:
    client = asker.client
    return {
        f"{prefix}reads": lambda ns: client.rate(Type.READ, READ, ns),
        f"{prefix}reads, {IN_FLIGHT} in flight": lambda ns: client.rate(Type.READ, READ, ns, IN_FLIGHT),
        f"{prefix}reads, each beside another's write": asker.rate_beside_writer,
        f"{prefix}writes": lambda ns: client.rate(Type.WRITE, WRITE, ns),
        f"{prefix}writes, {IN_FLIGHT} in flight": lambda ns: client.rate(Type.WRITE, WRITE, ns, IN_FLIGHT),
    }


def _rates(rates: dict[str, list[float]]) -> list[Figure]:
    goals = {f"reads, {IN_FLIGHT} in flight": (Goal("p50", least=20_000.0),)}
    return [Figure(name, "1/s", samples, goals.get(name, ()), "one connection") for name, samples in rates.items()]


def _full(run: Run, plain: StoreClient, full: StoreClient) -> list[Figure]:
    full.call(Type.WRITE, WRITE)
    rates = _in_turns(run, "the full store", 0.35, {
        "writes beside nothing": lambda ns: plain.rate(Type.WRITE, WRITE, ns, IN_FLIGHT),
        "writes beside many nodes and watches": lambda ns: full.rate(Type.WRITE, WRITE, ns, IN_FLIGHT),
    })  # fmt: skip
    many = f"{_scaled(run, NODES):,} nodes and {_scaled(run, WATCHES):,} watches that are not concerned"
    alone, beside = (Figure(name, "1/s", samples, note=f"{IN_FLIGHT} in flight") for name, samples in rates.items())
    return [alone, beside, ratio("a write's cost beside many / beside nothing", alone, beside, most=1.1, note=many)]


def _bystanders(run: Run, cluster: Cluster, busy: StoreClient) -> list[Figure]:
    """What another domain waits for a read while much follows one request of somebody else's."""
    domain = cluster.create(DomainConfig("bystander", "hvd:idle"))
    domain.wait_ready()
    nodes, owned = _scaled(run, REMOVED), _scaled(run, OWNED)
    moments: dict[str, tuple[str, Callable[[], Callable[[], object]]]] = {
        "a removal": (f"of {nodes:,} nodes", lambda: _remove(busy, nodes)),
        "a removal in a transaction": (f"of {nodes:,} nodes", lambda: _remove(busy, nodes, inside=True)),
        "a commit": (f"of {owned:,} nodes", lambda: _commit(busy, owned)),
        "a domain's end": (f"which owns {owned:,} nodes", lambda: _forget(cluster, owned)),
    }
    with _guests_client(cluster, domain) as bystander:
        return [_bystander(run, bystander, what, note, begin) for what, (note, begin) in moments.items()]


def _guests_client(cluster: Cluster, domain: Domain) -> StoreClient:
    return StoreClient(f"{cluster.run_dir}/{DOMAINS}/{domain.domid}.1/{STORE_SOCKET}")


def _bystander(
    run: Run, bystander: StoreClient, what: str, note: str, begin: Callable[[], Callable[[], object]]
) -> Figure:
    times = Histogram()
    for number in range(ROUNDS):
        run.tell(f"a read beside {what}, round {number + 1} of {ROUNDS}")
        end = begin()
        times.add(bystander.times(Type.READ, b"name\0", REMOVAL_NS))
        end()
    name = f"a read of another domain beside {what}"
    return Figure.timed(name, times, (Goal("p99", most=1000.0),), wait="woken", note=note)


def _transaction(client: StoreClient) -> int:
    return int(client.call(Type.TRANSACTION_START, b"\0").rstrip(b"\0"))


def _remove(busy: StoreClient, count: int, *, inside: bool = False) -> Callable[[], object]:
    """Begun; the rest of it is returned."""
    busy.write_all([f"/gone/{each % 50}/{each}" for each in range(count)])
    tx = _transaction(busy) if inside else 0
    busy.begin(Type.RM, b"/gone\0", tx)
    return lambda: (busy.end(Type.RM), tx and busy.call(Type.TRANSACTION_END, b"T\0", tx))


def _commit(busy: StoreClient, count: int) -> Callable[[], object]:
    tx = _transaction(busy)
    for number in range(count):
        busy.call(Type.WRITE, f"/committed/{number}\0value".encode(), tx)
    busy.begin(Type.TRANSACTION_END, b"T\0", tx)
    return lambda: (busy.end(Type.TRANSACTION_END), busy.call(Type.RM, b"/committed\0"))


def _forget(cluster: Cluster, count: int) -> Callable[[], object]:
    domain = cluster.create(DomainConfig("owner", "hvd:idle"))
    domain.wait_ready()
    with _guests_client(cluster, domain) as owner:
        owner.write_all([f"data/{number}" for number in range(count)])
    cluster.call(DomctlDestroy(domain.domid))
    return domain.wait_gone
