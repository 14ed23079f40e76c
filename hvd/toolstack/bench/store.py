"""XenStore by its socket: requests a second beside Xen's own daemons, with 100,000 nodes, with 10,000 watches."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from contextlib import ExitStack
from typing import Self, TypeVar

from hvd.toolstack.bench.figures import Figure, Goal, absent, ratio
from hvd.toolstack.bench.peers.peer import Absent
from hvd.toolstack.bench.peers.xenstored import DAEMONS, running
from hvd.toolstack.bench.run import ROUNDS, Run
from hvd.toolstack.bench.store_client import StoreClient
from hvd.toolstack.cluster import Cluster, Domain
from hvd.transport._native import Histogram
from hvd.transport.messages import DomainConfig, DomctlDestroy
from hvd.transport.run_dir import DOMAINS, STORE_SOCKET
from hvd.transport.xs_wire import Type

NODES, WATCHES, REMOVED, OWNED, IN_FLIGHT = 100_000, 10_000, 10_000, 900, 32
BESIDE_ROUNDS = 20
"""What comes of a round is a ratio of two turns."""
REMOVAL_NS = 50_000_000
"""About how long it takes."""
NODE = "/bench/node"
NOTHING, MANY_NODES, MANY_OF_BOTH = "nothing", "many nodes", "many nodes and watches"
OURS, READS_IN_FLIGHT = "", f"reads, {IN_FLIGHT} in flight"
READ, WRITE = f"{NODE}\0".encode(), f"{NODE}\0value".encode()


def measure_store(run: Run) -> list[Figure]:
    """In clusters of its own: one with few nodes and no watches, one with many nodes, one with many of both."""
    with (
        Cluster.build(name="bench-store") as few, StoreClient(_socket(few)) as plain,
        Cluster.build(name="bench-store-nodes") as nodes, StoreClient(_socket(nodes)) as unwatched,
        Cluster.build(name="bench-store-full") as many, StoreClient(_socket(many)) as full,
        StoreClient(_socket(many)) as watcher,
    ):  # fmt: skip
        _fill(run, [unwatched, full], watcher)
        costs = _write_costs(run, {NOTHING: plain, MANY_NODES: unwatched, MANY_OF_BOTH: full})
        return [*_beside(run, _socket(few)), *costs, *_bystanders(run, many, full)]


def _socket(cluster: Cluster) -> str:
    path: str = cluster.info()["xenstored_socket"]
    return path


def _fill(run: Run, stores: list[StoreClient], watcher: StoreClient) -> None:
    run.tell(f"{_scaled(run, NODES):,} nodes and {_scaled(run, WATCHES):,} watches")
    for store in stores:
        store.write_all([f"/load/{number % 100}/{number // 100}" for number in range(_scaled(run, NODES))])
    for number in range(_scaled(run, WATCHES)):
        watcher.call(Type.WATCH, f"/unrelated/{number}\0token\0".encode())


def _scaled(run: Run, count: int) -> int:
    """Fewer where there is less than a second to measure them."""
    return int(count * min(1.0, max(run.duration_s, 0.01)))


Turn = Callable[[int], float]
"""Measures for so many nanoseconds: requests a second."""


Name = TypeVar("Name", bound=Hashable)


def _in_turns(
    run: Run, what: str, part: float, turns: dict[Name, Turn], rounds: int = ROUNDS
) -> dict[Name, list[float]]:
    """What disturbs the machine for a while disturbs all of them."""
    rates: dict[Name, list[float]] = {name: [] for name in turns}
    turn_ns = run.share_ns(part) // (rounds * len(turns))
    for number in range(rounds):
        run.tell(f"{what}, round {number + 1} of {rounds}")
        order = list(turns)
        run.random.shuffle(order)
        for name in order:
            rates[name].append(turns[name](turn_ns))
    return rates


def _beside(run: Run, path: str) -> list[Figure]:
    """Reads and writes by one connection, of ours and of each of Xen's daemons that this machine has, in turns."""
    turns: dict[tuple[str, str], Turn] = {}
    absences: list[Figure] = []
    with ExitStack() as opened:
        for name, socket in {OURS: path, **_xens(opened, absences)}.items():
            turns |= _turns(name, opened.enter_context(_Asker(socket)))
        rates = _in_turns(run, "requests", 0.5, turns, BESIDE_ROUNDS)
    goals = {(OURS, READS_IN_FLIGHT): (Goal("p50", least=20_000.0),)}
    rows = [Figure(_named(*key), "1/s", each, goals.get(key, ()), "one connection") for key, each in rates.items()]
    return [*rows, *(_beaten(whose, what, rates) for whose, what in rates if whose != OURS), *absences]


def _xens(opened: ExitStack, absences: list[Figure]) -> dict[str, str]:
    """The sockets of those that run from now on."""
    sockets = {}
    for name in DAEMONS:
        try:
            sockets[name] = str(opened.enter_context(running(name)).socket)
        except Absent as why:
            absences.append(absent(f"the same of {name}", str(why)))
    return sockets


def _named(whose: str, what: str) -> str:
    return f"{whose}: {what}" if whose else what


def _beaten(whose: str, what: str, rates: dict[tuple[str, str], list[float]]) -> Figure:
    """Round by round: what disturbs the machine for a while disturbs both."""
    ratios = [ours / theirs for ours, theirs in zip(rates[OURS, what], rates[whose, what], strict=True)]
    return Figure(f"{what} / {whose}'s", "×", ratios, (Goal("p50", least=1.0),), "of the same round")


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


def _turns(whose: str, asker: _Asker) -> dict[tuple[str, str], Turn]:
    client = asker.client
    turns: dict[str, Turn] = {
        "reads": lambda ns: client.rate(Type.READ, READ, ns),
        READS_IN_FLIGHT: lambda ns: client.rate(Type.READ, READ, ns, IN_FLIGHT),
        "reads, each beside another's write": asker.rate_beside_writer,
        "writes": lambda ns: client.rate(Type.WRITE, WRITE, ns),
        f"writes, {IN_FLIGHT} in flight": lambda ns: client.rate(Type.WRITE, WRITE, ns, IN_FLIGHT),
    }
    return {(whose, what): turn for what, turn in turns.items()}


def _write_costs(run: Run, stores: dict[str, StoreClient]) -> list[Figure]:
    """Of the same write in each of them."""
    for store in stores.values():
        store.call(Type.WRITE, WRITE)
    turns = {f"writes beside {what}": _writes(store) for what, store in stores.items()}
    rates = _in_turns(run, "the full stores", 0.35, turns)
    figures = [Figure(name, "1/s", samples, note=f"{IN_FLIGHT} in flight") for name, samples in rates.items()]
    alone, unwatched, full = figures
    many = f"{_scaled(run, NODES):,} nodes and {_scaled(run, WATCHES):,} watches that are not concerned"
    return [
        *figures,
        ratio("a write's cost beside many / beside nothing", alone, full, most=1.1, note=many),
        ratio("a write's cost beside many watches / beside none", unwatched, full, most=1.1, note="in the same tree"),
    ]


def _writes(store: StoreClient) -> Turn:
    return lambda for_ns: store.rate(Type.WRITE, WRITE, for_ns, IN_FLIGHT)


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
