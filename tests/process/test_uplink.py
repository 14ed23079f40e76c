"""Uplinks for real: a TAP device between guests and a host's programs, in a network namespace of each test's own."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from hvd import Cluster
from hvd.toolstack.cli import reconfigure
from hvd.toolstack.cluster import DomainState
from tests.nobody import NOBODY, WITH_TAP, nobody
from tests.process.stations import SWITCH
from tests.waiting import wait_for

PYTHON = "/usr/bin/python3"
TAP = "hvd-tap"
HOST, WEB = "10.9.0.1", "10.9.0.2"
BEYOND = "192.0.2.1"
"""Of the host, in none of its guests' networks."""
CONTENT_BYTES, MARK_BYTES = 96 << 20, 16 << 20
"""More lies between two marks than sockets hold."""
LAUNCH = Path(__file__).parents[2] / "scripts" / "launch_cluster.py"
PATIENT = ("--retry", "50", "--retry-connrefused")
CLUSTER = SWITCH + """
[[network]]
name = "lan"
backend = "net"
uplink = "hvd-tap"
rules = ["deny from=uplink to=web proto=tcp to-port=81"{rules}]

[[domain]]
name = "web"
kernel = "/bin/sh"
args = ["-c", '''
    python3 -m http.server 81 --bind {web} --directory {srv} &
    exec python3 -m http.server 80 --bind {web} --directory {srv}
''']
paths = ["{srv}"]
vif = ["ip={web}"]
"""
CLIENT = """
[[domain]]
name = "{name}"
kernel = "/bin/sh"
args = ["-c", '''{script}''']
on_poweroff = "preserve"
on_crash = "preserve"
vif = ["ip={ip}"]
"""
GET = textwrap.dedent("""
    import hashlib, sys, time, urllib.request
    for patience in range(600):
        try:
            reply = urllib.request.urlopen(sys.argv[1], timeout=60)
            break
        except OSError:
            time.sleep(0.05)
    digest, seen = hashlib.sha256(), 0
    while part := reply.read(1 << 16):
        digest.update(part)
        seen, before = seen + len(part), seen
        if seen >> 24 != before >> 24:
            print("part", seen >> 24, flush=True)
            sys.stdin.readline()
    print(digest.hexdigest(), flush=True)
""")
"""What a host's program gets from a guest: behind each part that it tells of it waits for a word."""

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces as root"),
    pytest.mark.skipif(not os.access("/dev/net/tun", os.R_OK | os.W_OK), reason="there is no /dev/net/tun for us"),
    pytest.mark.skipif(any(shutil.which(each) is None for each in ("ip", "ping", "curl", "nsenter", "unshare", PYTHON)),
                       reason="not on this machine: ip, ping, curl, nsenter, unshare or python3"),
]  # fmt: skip


class Host:
    """A network namespace, for as long as a process in it lives, and a cluster that is started there."""

    def __init__(self, directory: Path, rules: str = "") -> None:
        self.run_dir = directory / "run"
        self.file = directory / "c.toml"
        (directory / "srv").mkdir()
        self.content = random.Random(7).randbytes(CONTENT_BYTES)
        (directory / "srv" / "known").write_bytes(self.content)
        self.file.write_text(CLUSTER.format(web=WEB, srv=directory / "srv", rules=rules))
        self._holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "ip link set lo up; echo; exec cat"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._holder.stdout is not None
        self._holder.stdout.readline()
        self._clusters: list[Cluster] = []

    def line(self, *words: str | Path) -> list[str]:
        return ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net", *map(str, words)]

    def run(self, *words: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A program of the host's."""
        return subprocess.run(self.line(*words), check=check, text=True, capture_output=True, timeout=280)

    def hvd(self, *words: str | Path, python: Sequence[str] = (sys.executable,), run_dir: Path | None = None):
        """The command, there; its exit status, and what it said."""
        environment = ["env", f"HVD_RUN_DIR={run_dir or self.run_dir}"]
        done = self.run(*environment, *python, "-P", "-m", "hvd", *words, check=False)
        return done.returncode, done.stdout + done.stderr

    def up(self, more: str = "", *, address: bool = True) -> Cluster:
        self.file.write_text(self.file.read_text() + more)
        assert self.hvd("up", "-d", self.file)[0] == 0
        self._clusters.append(Cluster.attach(self.run_dir))
        if address:
            self.run("ip", "addr", "add", f"{HOST}/24", "dev", TAP)
        return self._clusters[-1]

    def has_tap(self) -> bool:
        return self.run("ip", "link", "show", TAP, check=False).returncode == 0

    def pings(self, address: str = WEB) -> bool:
        return self.run("ping", "-c", "3", "-i", "0.2", "-W", "20", address, check=False).returncode == 0

    def curl(self, port: int, *patience: str) -> int:
        """Its exit status: 28 if nothing came in time."""
        url = f"http://{WEB}:{port}/"
        return self.run("curl", "-sS", *patience, "-o", "/dev/null", url, check=False).returncode

    def close(self) -> None:
        for cluster in self._clusters:
            cluster.close()
        self.hvd("down")
        self._holder.communicate()


@pytest.fixture
def host(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Host]:
    made = Host(tmp_path, getattr(request, "param", ""))
    yield made
    made.close()


def printed(cluster: Cluster, name: str) -> str:
    """What a guest's program has printed when it has ended."""
    domain = cluster.domain(name)
    domain.wait_state(DomainState.PRESERVED, deadline_s=60)
    return domain.console_log()


def kill_driver(cluster: Cluster) -> None:
    cluster.domain("net").kill()
    cluster.domain("net").wait_ready()


def kill_broker(cluster: Cluster) -> None:
    pid = cluster.info()["broker_pid"]
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: cluster.info()["broker_pid"] != pid, "another broker")


def kill_both(cluster: Cluster) -> None:
    net, broker = cluster.domain("net"), cluster.info()["broker_pid"]
    pid, incarnation = net.pid, net.incarnation
    assert pid is not None
    os.kill(broker, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    net.wait_until(lambda info: info.incarnation > incarnation and info.ready, "to be back", 60)


def test_the_host_reaches_a_guest_and_a_guest_the_host(host: Host) -> None:
    host.run("ip", "addr", "add", f"{BEYOND}/32", "dev", "lo")
    there = f"until ping -c 1 -W 1 {HOST} > /dev/null; do sleep 0.1; done"  # when it has its address
    get = f"curl -sS --retry 90 --retry-connrefused http://{HOST}/known | sha256sum"
    script = f"{there}; ping -c 3 -i 0.2 -W 20 {BEYOND}; {get}"
    server = subprocess.Popen(host.line(PYTHON, "-m", "http.server", "80", "--directory", host.file.parent / "srv"),
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        cluster = host.up(CLIENT.format(name="client", script=script, ip=f"10.9.0.3/24,gateway={HOST}"))
        assert host.pings()
        told = printed(cluster, "client")
    finally:
        server.kill()
        server.wait()
    assert "3 received, 0% packet loss" in told and f"{hashlib.sha256(host.content).hexdigest()}  -" in told


def test_a_tcp_transfer_to_the_host_survives_whoever_dies_in_the_middle_of_it(host: Host) -> None:
    cluster = host.up()
    deaths = [kill_driver, kill_broker, kill_both, kill_driver]
    line = host.line(PYTHON, "-c", GET, f"http://{WEB}/known")
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None and client.stdin is not None
        for number in range(1, CONTENT_BYTES // MARK_BYTES + 1):
            assert client.stdout.readline() == f"part {number}\n"
            print(file=client.stdin, flush=True)
            if number <= len(deaths):
                deaths[number - 1](cluster)
        assert client.stdout.read().strip() == hashlib.sha256(host.content).hexdigest()
    assert cluster.domain("net").incarnation == 4 and cluster.domain("web").incarnation == 1


@pytest.mark.parametrize("host", [', "deny from=shut to=uplink"'], indirect=True)
def test_what_a_rule_forbids_the_host_or_a_guest_does_not_arrive_whoever_has_died(host: Host) -> None:
    shut = CLIENT.format(name="shut", ip="10.9.0.4", script=f"ping -c 2 -W 20 {WEB}; exec sleep 1000")
    get = f"curl -sS --retry 50 --retry-connrefused http://{WEB}:81/ -o /dev/null && echo got"
    within = CLIENT.format(name="peer", ip="10.9.0.5", script=get)
    cluster = host.up(shut + within)
    for death in (lambda _: None, kill_driver, kill_broker):
        death(cluster)
        assert (host.curl(80, *PATIENT), host.curl(81, "--max-time", "2")) == (0, 28)
        assert host.run("ping", "-c", "1", "-W", "2", "10.9.0.4", check=False).returncode == 1
    wait_for(lambda: "2 received" in cluster.domain("shut").console_log(), "shut reaches others")
    assert "got" in printed(cluster, "peer")


def test_a_tap_that_the_machine_made_goes_with_it_however_it_ends(host: Host) -> None:
    cluster = host.up()
    assert host.has_tap()
    machine, pids = cluster.connection.machine_pid, [domain.pid for domain in cluster.domains()]
    for pid in (machine, cluster.info()["broker_pid"], *pids):
        assert pid is not None
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue  # it went with the machine
    wait_for(lambda: not host.has_tap(), "the device to go")


def test_a_tap_that_was_there_is_used_as_it_is_and_stays(host: Host) -> None:
    host.run("ip", "tuntap", "add", TAP, "mode", "tap")
    host.run("ip", "link", "set", TAP, "up")
    host.run("ip", "addr", "add", f"{HOST}/24", "dev", TAP)
    cluster = host.up(address=False)
    assert host.pings()
    cluster.close()
    assert host.hvd("down")[0] == 0
    assert HOST in host.run("ip", "addr", "show", TAP).stdout


def test_a_reboot_of_the_machine_keeps_the_device_and_its_address(host: Host) -> None:
    cluster = host.up()
    cluster.reboot(grace_s=0)
    assert host.pings()


def test_who_is_plugged_in_later_reaches_the_host_too(host: Host) -> None:
    (host.file.parent / "station.py").write_text(textwrap.dedent("""
        def main(guest):
            def plugged(vif, here):
                vif.send((b"\\xff" * 6 + vif.mac + b"\\x88\\xb5hello").ljust(60, b"."))
                vif.on_receive = lambda: print(vif.receive_many())
            guest.on_device(plugged)
            guest.run_forever()
    """))
    cluster = host.up('[[domain]]\nname = "late"\nkernel = "station.py"\n')
    os.environ["HVD_RUN_DIR"] = str(host.run_dir)
    try:
        reconfigure.network_attach("late", [], as_json=False)
    finally:
        del os.environ["HVD_RUN_DIR"]
    late = cluster.domain("late")
    wait_for(lambda: host.run("ping", "-c", "1", "-b", "10.9.0.255", check=False) and late.console_log(), "a broadcast")


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ("link add {} type bridge", "Invalid argument: there is a device of this name that is no TAP"),
        ("tuntap add {} mode tun", "Invalid argument"),
        ("tuntap add {} mode tap multi_queue", "Invalid argument"),
    ],
)
def test_a_device_that_will_not_do_is_told_and_nothing_is_started(host: Host, made: str, said: str) -> None:
    if host.run("ip", *made.format(TAP).split(), check=False).returncode:
        pytest.skip(f"this kernel does not {made}")
    status, told = host.hvd("up", "-d", host.file)
    assert status == 2 and f"hvd: uplink {TAP}: {said}" in told
    assert "no machine runs" in host.hvd("list")[1]


def test_a_tap_of_another_cluster_is_not_taken_from_it(host: Host, tmp_path: Path) -> None:
    host.up()
    status, told = host.hvd("up", "-d", host.file, run_dir=tmp_path / "run2")
    expected = f"hvd: uplink {TAP}: Device or resource busy: another program has it, or another cluster\n"
    assert status == 2 and told.endswith(expected)
    launched = host.run(sys.executable, LAUNCH, host.file, "--run-dir", tmp_path / "run3", check=False)
    assert launched.returncode == 2 and expected.removeprefix("hvd: ") in launched.stderr
    assert host.pings()


def test_without_privilege_it_takes_a_tap_that_is_ours() -> None:
    if subprocess.run([*WITH_TAP, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no mount namespaces here")
    with nobody() as somebody:
        if somebody is None:
            pytest.skip("no interpreter of this version that other users may execute")
        host, python = Host(somebody.home), [*WITH_TAP, *somebody.python]
        status, told = host.hvd("up", "-d", host.file, python=python)
        assert status == 2 and f"hvd: uplink {TAP}: Operation not permitted: that takes root, CAP_NET_ADMIN" in told
        assert f"`ip tuntap add {TAP} mode tap user NAME`" in told and not host.has_tap()
        host.run("ip", "tuntap", "add", TAP, "mode", "tap", "user", str(NOBODY))
        host.run("ip", "link", "set", TAP, "up")
        host.run("ip", "addr", "add", f"{HOST}/24", "dev", TAP)
        status, told = host.hvd("up", "-d", host.file, python=python)
        assert status == 0, told
        try:
            assert host.pings() and host.curl(80, *PATIENT) == 0
        finally:
            assert host.hvd("down", python=python)[0] == 0
        assert host.has_tap()
        host.close()
