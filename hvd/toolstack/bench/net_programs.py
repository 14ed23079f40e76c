"""One TCP stream between two unmodified programs, guests here and namespaces on a Linux bridge there, in turns."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from statistics import median

from hvd.toolstack.bench.disks import disk_domain
from hvd.toolstack.bench.figures import Figure, Goal, absent, value
from hvd.toolstack.bench.run import Run
from hvd.toolstack.cluster import Cluster, DomainState
from hvd.transport.errors import HvdError
from hvd.transport.messages import DeviceConfig, DomainConfig

SWITCH, SERVER, CLIENT = "bench-switch", "bench-server", "bench-client"
ADDRESSES = {SERVER: "10.0.0.2", CLIENT: "10.0.0.3"}
DEADLINE_S = 60.0
TURN_S = 1
ASK = f"for try in $(seq 100); do iperf3 -f m -t {TURN_S} -c {ADDRESSES[SERVER]} && exit; sleep 0.1; done; exit 1"
"""Again while nobody listens yet."""
RECEIVED = re.compile(r"([\d.]+) Mbits/sec\s+receiver")
GUESTS, BRIDGE = "TCP between guests that are programs, one stream", "TCP between namespaces, veth and a Linux bridge"
RATIO = "TCP between guests, to veth and a bridge"
GBITS_LEAST = 5.0


def measure_net_programs(run: Run) -> list[Figure]:
    """iperf3's one stream; the bridge's, for comparison, where root makes namespaces."""
    if shutil.which("iperf3") is None:
        return [absent(GUESTS, "iperf3 is not installed")]
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return [absent(GUESTS, "we may not open /dev/net/tun")]
    with contextlib.ExitStack() as ends:
        ways: dict[str, Callable[[int], float]] = {GUESTS: ends.enter_context(_guests())}
        why = ""
        try:
            ways[BRIDGE] = ends.enter_context(_bridged())
        except (OSError, HvdError) as error:
            why = str(error)
        found: dict[str, list[float]] = {way: [] for way in ways}
        turns = max(int(run.share_ns(0.3) / 1e9 / TURN_S / len(ways)), 1)
        for turn in range(turns):
            for way, measure in ways.items():
                run.tell(f"{way}, {turn + 1} of {turns}")
                found[way].append(measure(turn))
    guests = Figure(GUESTS, "Gbit/s", found[GUESTS], (Goal("p50", least=GBITS_LEAST),))
    if BRIDGE not in found:
        return [guests, absent(BRIDGE, why)]
    bridged = Figure(BRIDGE, "Gbit/s", found[BRIDGE])
    return [guests, bridged, value(RATIO, "×", median(found[GUESTS]) / median(found[BRIDGE]))]


@contextlib.contextmanager
def _guests() -> Iterator[Callable[[int], float]]:
    """Gbit/s between two guests, in a cluster of their own."""
    with Cluster.build(name="bench-net-programs") as cluster:
        cluster.create(disk_domain(SWITCH)).wait_ready(DEADLINE_S)
        cluster.create(_program(SERVER, SERVER, "exec iperf3 -s")).wait_ready(DEADLINE_S)

        def measure(turn: int) -> float:
            client = cluster.create(_program(f"{CLIENT}-{turn}", CLIENT, ASK))
            death = client.wait_state(DomainState.PRESERVED, deadline_s=DEADLINE_S).last_death
            told = client.console_log()
            client.destroy()
            return _received(told, death)

        yield measure


def _program(name: str, end: str, script: str) -> DomainConfig:
    mac = f"00:16:3e:00:00:{ADDRESSES[end][-1]:0>2}"
    front = {"mac": mac, "hvd-offload": "1", "ip": ADDRESSES[end]}
    vif = DeviceConfig("vif", 0, SWITCH, {"mac": mac, "bridge": "bench", "ip": ADDRESSES[end]}, front)
    return DomainConfig(name, "/bin/sh", args=["-c", script], devices=[vif], on_poweroff="preserve",
                        on_crash="preserve")  # fmt: skip


@contextlib.contextmanager
def _bridged() -> Iterator[Callable[[int], float]]:
    """Gbit/s between two network namespaces, which go with their processes. OSError, HvdError if there are none."""
    if os.geteuid() != 0:
        raise PermissionError("only root makes them")
    with contextlib.ExitStack() as running:
        bridge, *ends = (running.enter_context(_namespace()) for _ in range(3))
        _within(bridge, "ip link add br0 type bridge && ip link set br0 up")
        for number, (pid, address) in enumerate(zip(ends, ADDRESSES.values(), strict=True)):
            _within(bridge, f"ip link add v{number} type veth peer name eth0 netns {pid} && "
                            f"ip link set v{number} master br0 up")  # fmt: skip
            _within(pid, f"ip addr add {address}/24 dev eth0 && ip link set eth0 up")
        server, client = ends
        running.enter_context(_process(_command(server, "exec iperf3 -s >/dev/null")))
        yield lambda _: _received(_within(client, ASK), "it ended")


@contextlib.contextmanager
def _namespace() -> Iterator[int]:
    """The process that is in it."""
    with _process(["unshare", "--net", "sh", "-c", "echo made; exec sleep infinity"]) as process:
        assert process.stdout is not None
        if process.stdout.readline() != "made\n":
            raise HvdError("no network namespaces here")
        yield process.pid


@contextlib.contextmanager
def _process(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """Until the end of the block, or of us."""
    command = ["setpriv", "--pdeathsig", "KILL", *command]
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def _command(pid: int, script: str) -> list[str]:
    return ["nsenter", f"--net=/proc/{pid}/ns/net", "sh", "-c", script]


def _within(pid: int, script: str) -> str:
    command = _command(pid, script)
    try:
        done = subprocess.run(command, text=True, capture_output=True, timeout=DEADLINE_S, check=False)
    except subprocess.TimeoutExpired as late:
        raise HvdError(str(late)) from None
    if done.returncode:
        raise HvdError(done.stderr.strip() or f"{script} ended with status {done.returncode}")
    return done.stdout


def _received(told: str, death: str) -> float:
    found = RECEIVED.search(told)
    if found is None:
        raise HvdError(f"iperf3 measured nothing: {death}: {told[-500:]}")
    return float(found[1]) / 1000
