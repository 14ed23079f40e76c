"""A switch killed again and again: how long packets wait, for what, and whether TCP connections live on."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator

from hvd.toolstack.bench.disks import disk_domain
from hvd.toolstack.bench.figures import Figure, Goal, absent, value
from hvd.toolstack.bench.namespaces import DEADLINE_S
from hvd.toolstack.bench.net import MACS, RECEIVER, SENDER, SWITCH, native_end
from hvd.toolstack.bench.net_ways import ADDRESSES, CLIENT, SERVER, check_tap, program, python
from hvd.toolstack.bench.peers.peer import Absent
from hvd.toolstack.bench.recovery import Death, kill_driver
from hvd.toolstack.bench.run import Run
from hvd.toolstack.cluster import Cluster, Domain, DomainState
from hvd.transport.errors import HvdError

KILL_S = 0.3
"""About how long a kill, and what is measured around it, takes."""
WATCHED_S, BEFORE_S = 0.25, 0.05
"""How long packets are watched for a silence, and how long of that before the kill."""
CONNECTIONS = 8
ECHO = """
import socketserver
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while part := self.request.recv(65536): self.request.sendall(part)
socketserver.ThreadingTCPServer(("", 7), Echo).serve_forever()
"""
TALK = """
import signal, socket, sys, time
to, count, asked = sys.argv[1], int(sys.argv[2]), []
signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
def connection():
    while True:
        try: return socket.create_connection((to, 7), 30)
        except OSError: time.sleep(0.05)
def talk(line, message):
    line.sendall(message)
    answer = b""
    while len(answer) < len(message):
        part = line.recv(len(message) - len(answer))
        if not part: raise OSError("it was closed")
        answer += part
    if answer != message: raise OSError("the answer is another")
lines, rounds, last = [connection() for _ in range(count)], 0, False
print("connected", flush=True)
while not last:
    last, message = bool(asked), rounds.to_bytes(8, "big") * 512
    for line in list(lines):
        try: talk(line, message)
        except OSError as error:
            print("lost:", error, flush=True)
            lines.remove(line)
    rounds += 1
    time.sleep(0.01)
print(len(lines), "lived through", rounds, "rounds")
"""
"""Every connection says something every 10 ms and waits for it to come back; when it is asked to end, once more."""
LIVED = re.compile(r"^(\d+) lived through (\d+) rounds", re.MULTILINE)
TCP = f"TCP connections lost, of {CONNECTIONS}"


def measure_net_deaths(run: Run) -> list[Figure]:
    """In a cluster of its own, whose one driver domain dies."""
    if run.one_cpu:
        return [absent("packets over deaths of the switch", f"this process may use CPU {run.here} alone")]
    kills = run.kills_of(0.4, KILL_S)
    with Cluster.build(name="bench-net-deaths") as cluster:
        cluster.create(disk_domain(SWITCH)).wait_ready(DEADLINE_S)
        with _connections(cluster) as tcp:
            deaths = _kill(run, cluster, kills)
    return [*_figures(deaths), *tcp]


@contextlib.contextmanager
def _connections(cluster: Cluster) -> Iterator[list[Figure]]:
    """Between two programs; behind the block the list has the figure that says whether they were kept over it."""
    figures: list[Figure] = []
    try:
        check_tap()
    except Absent as why:
        figures.append(absent(TCP, str(why)))
        yield figures
        return
    cluster.create(program(SERVER, SERVER, python(ECHO), [])).wait_ready(DEADLINE_S)
    talk = python(TALK, ADDRESSES[SERVER], str(CONNECTIONS))
    client = cluster.create(program(CLIENT, CLIENT, talk, []))
    _wait_for(client, "connected")
    yield figures
    client.shutdown(DEADLINE_S)
    client.wait_state(DomainState.PRESERVED, deadline_s=DEADLINE_S)
    found = LIVED.search(client.console_log())
    if found is None:
        raise HvdError(f"{CLIENT} has not ended well: {client.last_death}: {client.console_log()[-500:]}")
    note = f"each said 4 KiB and had it back {int(found[2]):,} times"
    figures.append(value(TCP, "", CONNECTIONS - int(found[1]), Goal("p50", 0), note=note))


def _wait_for(client: Domain, word: str) -> None:
    until = time.monotonic() + DEADLINE_S
    while word not in client.console_log():
        if time.monotonic() > until:
            raise HvdError(f"{client.name} has not said {word!r}: it is {client.state}: {client.console_log()[-500:]}")
        time.sleep(0.01)


def _kill(run: Run, cluster: Cluster, kills: int) -> list[tuple[Death, int]]:
    """Each death, and when the sender had the first answer through the successor."""
    ends = {name: native_end(run, cluster, name) for name in MACS}
    ends[RECEIVER].do("answer_packets")
    switch = cluster.domain(SWITCH)
    deaths = []
    with cluster.events() as events:
        for number in range(1, kills + 1):
            run.tell(f"kill {number} of {kills} of the switch")
            ends[SENDER].order("ping_over_deaths", to=MACS[RECEIVER], for_ns=int(WATCHED_S * 1e9))
            time.sleep(BEFORE_S)
            death = kill_driver(switch, events)
            deaths.append((death, int(ends[SENDER].result(WATCHED_S - BEFORE_S)["to_ns"])))
    return deaths


def _figures(deaths: list[tuple[Death, int]]) -> list[Figure]:
    steps = {
        "death to fence": [death.fenced - death.killed for death, _ in deaths],
        "fence to its successor's start": [death.started - death.fenced for death, _ in deaths],
        "start to its readiness": [death.ready - death.started for death, _ in deaths],
        "its readiness to the next answer": [answered - death.ready for death, answered in deaths],
    }
    whole = [(answered - death.killed) / 1e6 for death, answered in deaths]
    return [
        *(Figure(f"switch: {name}", "ms", [at / 1e6 for at in times]) for name, times in steps.items()),
        Figure("switch killed to the next answer", "ms", whole, (Goal("p50", 30.0), Goal("p99", 150.0))),
    ]
