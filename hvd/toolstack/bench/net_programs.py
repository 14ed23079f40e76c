"""Unmodified programs that talk to each other, by each way in turns: one TCP stream, and packets there and back."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable, Mapping

from hvd.toolstack.bench.figures import Figure, Goal, absent, ratio
from hvd.toolstack.bench.net_ways import (
    ADDRESSES,
    SERVER,
    Ask,
    Ends,
    Way,
    bare_chain,
    bridge,
    guests,
    python,
    user_space_switch,
)
from hvd.toolstack.bench.peers.peer import Absent
from hvd.toolstack.bench.run import Contender, Run, in_turns
from hvd.transport.errors import HvdError
from hvd.transport.histogram import Histogram

GUESTS, BRIDGE, SWITCH, CHAIN = (
    "guests that are programs", "veth and a Linux bridge", "TAP devices and Open vSwitch's user-space datapath",
    "TAP devices and a bare chain of wake-ups in C",
)  # fmt: skip
WAYS: dict[str, Way] = {GUESTS: guests, BRIDGE: bridge, SWITCH: user_space_switch, CHAIN: bare_chain}

TCP_TURN_S = 1
IPERF3 = f"iperf3 -f m -t {TCP_TURN_S} -c {ADDRESSES[SERVER]}"
ASK_TCP = f"for try in $(seq 100); do {IPERF3} && exit; sleep 0.1; done; exit 1"
"""Again while nobody listens yet."""
RECEIVED = re.compile(r"([\d.]+) Mbits/sec\s+receiver")
RETRANSMITTED = re.compile(r"(\d+)\s+sender")
GBITS_LEAST, TIMES_THE_SWITCH_LEAST = 5.0, 2.0

ECHO = """
import socket
here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
here.bind(("", 7))
while True:
    here.sendto(*here.recvfrom(64))
"""
PING = """
import socket, struct, sys, time
from collections import Counter
to, for_ns, think_s = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
here.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 100_000))
here.connect((to, 7))
counts, now = Counter(), time.monotonic_ns
def ask(packet):
    while True:
        try:
            here.send(packet)
            while here.recv(64) != packet: pass
            return
        except (BlockingIOError, ConnectionRefusedError):
            time.sleep(0.01)
for number in range(100):  # to warm up
    ask(number.to_bytes(8, "big"))
until = now() + for_ns
while now() < until:
    number += 1
    packet = number.to_bytes(8, "big")
    if think_s: time.sleep(think_s)
    start = now()
    ask(packet)
    took = now() - start
    counts[round(took, 3 - len(str(took)))] += 1
for took, count in sorted(counts.items()): print("took", took, count)
"""
"""A packet that is lost is sent again, and takes as long as that does."""
TOOK = re.compile(r"took (\d+) (\d+)")
ASLEEP_S = 0.001
HOT_TIMES_MOST, ASLEEP_TIMES_MOST = 2.0, 1.5


def measure_net_programs(run: Run) -> list[Figure]:
    """Where there is no TAP device for guests, one figure says so."""
    try:
        return [*_tcp(run), *_round_trips(run)]
    except Absent as why:
        return [absent(f"packets between {GUESTS}", str(why))]


class Field:
    """The ways that this machine has, open until the end of the block; `figures` says which are absent."""

    def __init__(self, stack: contextlib.ExitStack, ends: Ends, names: tuple[str, ...]) -> None:
        """Absent when there are no guests: then there is nothing to compare."""
        self.ways: dict[str, Ask] = {GUESTS: stack.enter_context(WAYS[GUESTS](ends))}
        self.lacking: dict[str, str] = {}
        for name in names:
            try:
                self.ways[name] = stack.enter_context(WAYS[name](ends))
            except (Absent, HvdError, OSError) as why:
                self.lacking[name] = str(why)

    def figures(self, what: str, make: Callable[[str, str], Figure]) -> dict[str, Figure]:
        """By way: what `make` makes of its name and the figure's; that it is absent."""
        titles = {name: f"{what}: {name}" for name in (*self.ways, *self.lacking)}
        return {
            name: absent(title, self.lacking[name]) if name in self.lacking else make(name, title)
            for name, title in titles.items()
        }


# ---- one TCP stream --------------------------------------------------------------------------------------------------


def _tcp(run: Run) -> list[Figure]:
    what = "TCP, one stream"
    if shutil.which("iperf3") is None:
        return [absent(what, "iperf3 is not installed")]
    with contextlib.ExitStack() as stack:
        field = Field(stack, Ends("exec iperf3 -s"), (BRIDGE, SWITCH))
        told = _tcp_in_turns(run, what, field.ways)
    gbits = {name: [received(text) for text in texts] for name, texts in told.items()}
    goals = {GUESTS: (Goal("p50", least=GBITS_LEAST),)}
    found = field.figures(what, lambda name, title: Figure(title, "Gbit/s", gbits[name], goals.get(name, ())))
    again = [float(count) for text in told[GUESTS] for count in RETRANSMITTED.findall(text)]
    return [
        *found.values(),
        Figure(f"{what}: segments that {GUESTS} sent again", f"in {TCP_TURN_S} s", again),
        ratio(f"{what}: {GUESTS} / {BRIDGE}", found[GUESTS], found[BRIDGE]),
        ratio(f"{what}: {GUESTS} / {SWITCH}", found[GUESTS], found[SWITCH], least=TIMES_THE_SWITCH_LEAST),
    ]


def _tcp_in_turns(run: Run, what: str, ways: Mapping[str, Ask]) -> dict[str, list[str]]:
    """What iperf3 said, of each way in each of its turns."""
    told: dict[str, list[str]] = {name: [] for name in ways}
    turns = max(int(run.share_ns(0.15) / 1e9 / TCP_TURN_S / len(ways)), 1)
    for turn in range(turns):
        for name in run.random.sample(list(ways), len(ways)):
            run.tell(f"{what}, round {turn + 1} of {turns}: {name}")
            told[name].append(ways[name](ASK_TCP))
    return told


def received(told: str) -> float:
    """Gbit/s, from what iperf3 prints. HvdError when that is not in it."""
    found = RECEIVED.search(told)
    if found is None:
        raise HvdError(f"iperf3 measured nothing: {told[-500:]}")
    return float(found[1]) / 1000


# ---- a packet there and back -----------------------------------------------------------------------------------------


def _round_trips(run: Run) -> list[Figure]:
    """Both ends pinned, to a CPU each: else the kernel moves the ends of some ways together, and not of others."""
    hot, asleep = "round trip of a packet, hot", "round trip of a packet, asleep"
    with contextlib.ExitStack() as stack:
        field = Field(stack, Ends(python(ECHO), (run.there, run.here)), (BRIDGE, SWITCH, CHAIN))
        figures = {what: _turns_of(run, field, what, think_s) for what, think_s in ((hot, 0.0), (asleep, ASLEEP_S))}
    ratios = [
        ratio(f"{hot}: {GUESTS} / {BRIDGE}", figures[hot][GUESTS], figures[hot][BRIDGE], most=HOT_TIMES_MOST),
        ratio(f"{asleep}: {GUESTS} / {CHAIN}", figures[asleep][GUESTS], figures[asleep][CHAIN], most=ASLEEP_TIMES_MOST),
        ratio(f"{asleep}: {GUESTS} / {BRIDGE}", figures[asleep][GUESTS], figures[asleep][BRIDGE]),
    ]
    return [*figures[hot].values(), *figures[asleep].values(), *ratios]


def _turns_of(run: Run, field: Field, what: str, think_s: float) -> dict[str, Figure]:
    def contender(ask: Ask) -> Contender:
        return lambda for_ns: times_of(ask(python(PING, ADDRESSES[SERVER], str(for_ns), str(think_s))))

    times = in_turns(run, what, {name: contender(ask) for name, ask in field.ways.items()}, run.share_ns(0.1))
    return field.figures(what, lambda name, title: Figure.timed(title, times[name]))


def times_of(told: str) -> Histogram:
    """From what PING prints. HvdError when that is not in it."""
    times = Histogram()
    for took, count in TOOK.findall(told):
        times.record(int(took), int(count))
    if not times.count:
        raise HvdError(f"no packet came back: {told[-500:]}")
    return times
