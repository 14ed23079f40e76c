"""What the native core measures with beside histograms: C ping-pongs, a counter of system calls, known work."""

import socket
import subprocess
import sys

import pytest

from hvd.transport._native import (
    Histogram,
    Instructions,
    PingPong,
    TapChain,
    Walk,
    compute,
    count_system_calls,
    dirty_lines,
    ping_pong,
    touch_lines,
)
from tests.waiting import wait_for

BUSY = "print('on', flush=True)\nwhile True: pass"
CALLING = "import os\nprint('on', flush=True)\nwhile True: os.getppid()"
SLEEPING = "import time\nprint('on', flush=True)\nwhile True: time.sleep(0.001)"


@pytest.mark.parametrize("kind", list(PingPong))
@pytest.mark.parametrize("think_ns", [0, 100_000])
def test_a_ping_pong_records_round_trips_and_leaves_no_child(kind, think_ns):
    times = Histogram()
    ping_pong(kind, times, 10_000_000, think_ns, -1)
    assert times.count > 0
    assert 0 < times.min <= times.max


@pytest.fixture
def devices():
    """In the place of two TAP devices, each a pair of ends that keep packets apart: ours, and the chain's."""
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
    ours, theirs = zip(*pairs, strict=True)
    for end in ours:
        end.settimeout(20)
    yield ours, theirs
    for end in (*ours, *theirs):
        end.close()


def test_a_chain_carries_whole_packets_in_order_both_ways(devices):
    (first, second), theirs = devices
    chain = TapChain(*(end.fileno() for end in theirs))
    for sender, receiver in ((first, second), (second, first)):
        for number in range(100):
            packet = bytes([number]) * (14 + 15 * number)
            sender.send(packet)
            assert receiver.recv(4096) == packet
    for number in range(10):  # several under way
        first.send(bytes([number]) * 60)
    assert [second.recv(4096)[0] for _ in range(10)] == list(range(10))
    chain.close()
    chain.close()


def test_a_chain_that_nobody_takes_from_loses_packets_and_goes_on(devices):
    (first, second), theirs = devices
    second.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4608)
    theirs[1].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
    chain = TapChain(*(end.fileno() for end in theirs))
    for number in range(200):
        first.send(number.to_bytes(2, "big") * 700)
    arrived: list[bytes] = []
    while not arrived or arrived[-1] != b"end":
        first.send(b"end")
        arrived.append(second.recv(4096))
    numbers = [int.from_bytes(packet[:2], "big") for packet in arrived[:-1]]
    assert numbers == sorted(set(numbers)) and len(numbers) < 200
    chain.close()


@pytest.fixture
def running(request):
    with subprocess.Popen([sys.executable, "-c", request.param], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


@pytest.mark.parametrize("running", [BUSY], indirect=True)
def test_a_thread_that_only_computes_makes_no_system_call(running):
    assert count_system_calls(running.pid, 50_000_000) == 0
    assert running.poll() is None


@pytest.mark.parametrize("running", [CALLING, SLEEPING], indirect=True)
def test_a_thread_that_makes_system_calls_is_seen_and_goes_on(running):
    seen = 0

    def is_seen():
        nonlocal seen
        seen += count_system_calls(running.pid, 200_000_000)
        assert running.poll() is None
        return seen > 2

    wait_for(is_seen, lambda: f"system calls of it; {seen} were seen")


def test_a_process_that_does_not_exist_cannot_be_traced():
    with subprocess.Popen(["true"]) as process:
        process.wait()
    with pytest.raises(OSError, match=r"."):
        count_system_calls(process.pid, 1000)


def test_instructions_are_counted_or_said_not_to_be():
    instructions = Instructions()
    before = instructions.read()
    compute(1_000_000)
    after = instructions.read()
    assert after - before >= 1_000_000 or before == after == -1


def test_known_work_is_the_same_each_time():
    assert compute(1000) == compute(1000) != compute(1001)
    assert Walk(64).walk(100) == Walk(64).walk(100)


@pytest.mark.parametrize("lines", [1, 2, 64, 1000])
def test_a_walk_comes_by_every_line_once_before_it_begins_anew(lines):
    walk = Walk(lines)
    assert sorted(walk.walk(steps) // 8 for steps in range(lines)) == list(range(lines))
    assert walk.walk(lines) == 0


def test_every_line_is_dirtied_and_touched():
    memory = bytearray(10 * 64)
    dirty_lines(memory, 3)
    assert touch_lines(memory) == 30
    assert touch_lines(memoryview(memory)[:64]) == 3
    assert touch_lines(b"") == 0
