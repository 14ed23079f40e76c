"""A program's network: a TAP device for each device that carries packets, which its domain's init pumps.

The device here is one of the test's own: whatever is sent to its other end over UDP comes back in capitals.
"""

from __future__ import annotations

import os
import re
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from hvd import Cluster
from hvd.toolstack.cluster import DomainState
from hvd.transport.limits import INTERFACES_MAX
from hvd.transport.messages import DeviceConfig, DomainConfig
from tests.nobody import passes_as_nobody_with_tap

DEADLINE_S = 60.0
PYTHON = "/usr/bin/python3"
DRIVER = '''
import os, struct
from hvd.domains.device import Backend, DeviceDriver, Frontend
from hvd.domains.program.network import Interface

class Wire(Frontend):
    def publish(self, backend_keys): return {}
    def connected(self, backend_keys): ...
    def backend_gone(self): ...

    @property
    def interface(self):
        return Interface(self.keys["name"], bytes.fromhex("0216e3000001"), 1400, self.keys["addresses"].split(), True)

    def pump(self, descriptor):
        self.runtime.watch_fd(descriptor, lambda: self.answer(descriptor))

    def answer(self, descriptor):
        frame = bytearray(os.read(descriptor, 65_536)[10:])
        frame[0:6], frame[6:12] = frame[6:12], bytes.fromhex("0216e3000002")
        kind = frame[12:14]
        if kind == b"\\x08\\x06":  # ARP: everybody is here
            asked = bytes(frame[38:42])
            frame[20:22] = b"\\0\\2"
            frame[32:42] = frame[22:32]
            frame[22:32] = frame[6:12] + asked
        elif kind == b"\\x08\\0" and frame[23] == 17:  # UDP
            frame[26:30], frame[30:34] = frame[30:34], frame[26:30]
            frame[34:36], frame[36:38] = frame[36:38], frame[34:36]
            frame[40:42] = b"\\0\\0"
            frame[42:] = frame[42:].upper()
        else:
            return
        os.write(descriptor, bytes(10) + frame)

class Nothing(Backend):
    def features(self): return {}
    def attach(self, untrusted_keys): return {}
    def detach(self): ...

DRIVER = DeviceDriver("wire", Wire, Nothing)
'''
NO_TUN = not os.access("/dev/net/tun", os.R_OK | os.W_OK)
pytestmark = pytest.mark.skipif(not Path(PYTHON).exists(), reason=f"there is no {PYTHON}")
needs_tun = pytest.mark.skipif(NO_TUN, reason="there is no /dev/net/tun for us")


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """One in which the driver is installed, and dom0 has the other end of everything."""
    tmp_path.chmod(0o755)
    metadata = tmp_path / "wire-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: wire\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[hvd.drivers]\nwire = wire_of_a_test:DRIVER\n")
    (tmp_path / "wire_of_a_test.py").write_text(DRIVER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Cluster.build() as made:
        yield made


def wired(cluster: Cluster, source: str, wires: int = 1, addresses: str = "10.9.8.1/24 fd00::1 10.9.7.1") -> str:
    """How a program with such devices ended, and what it printed."""
    devices = [
        DeviceConfig("wire", n, "Domain-0", {}, {"name": f"eth{n}", "addresses": addresses if n == 0 else ""})
        for n in range(wires)
    ]
    domain = cluster.create(DomainConfig("prog", PYTHON, args=["-c", textwrap.dedent(source)], devices=devices,
                                         on_poweroff="preserve", on_crash="preserve"))  # fmt: skip
    death = domain.wait_state(DomainState.PRESERVED, deadline_s=DEADLINE_S).last_death
    return f"{death}\n{domain.console_log()}"


@needs_tun
def test_packets_of_a_program_go_through_its_domains_device_and_back(cluster: Cluster) -> None:
    told = wired(cluster, """
        import socket
        to = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        to.settimeout(30)
        for size in (4, 1300):
            to.sendto(b"ping" * (size // 4), ("10.9.8.2", 7))
            answer, whence = to.recvfrom(2000)
            print(answer[:4].decode(), len(answer), whence[0])
    """)
    assert told == "poweroff\nPING 4 10.9.8.2\nPING 1300 10.9.8.2\n"


@needs_tun
@pytest.mark.skipif(shutil.which("ip") is None, reason="there is no ip")
def test_interfaces_have_the_name_address_and_size_that_the_device_says(cluster: Cluster) -> None:
    told = wired(cluster, """
        import subprocess
        subprocess.run(["ip", "-o", "link"])
        subprocess.run(["ip", "-o", "addr", "show", "scope", "global"])
    """, wires=2)
    assert re.findall(r"^\d+: (\S+):.*mtu (\d+)", told, re.MULTILINE) == [("lo", "65536"), ("eth0", "1400"),
                                                                          ("eth1", "1400")]  # fmt: skip
    assert told.count("02:16:e3:00:00:01") == 2 and told.count(",UP,LOWER_UP") == 3
    assert re.findall(r"inet6? (\S+)", told) == ["10.9.8.1/24", "10.9.7.1/24", "fd00::1/64"]


@needs_tun
def test_addresses_that_make_no_sense_are_told_with_the_interface(cluster: Cluster) -> None:
    told = wired(cluster, "", addresses="10.9.8.1/24 10.9.8.1/24")
    assert told.startswith(f"crash: {PYTHON} cannot be run: eth0: File exists: ")


@needs_tun
def test_a_program_has_so_many_interfaces_and_no_more(cluster: Cluster) -> None:
    told = wired(cluster, "", wires=INTERFACES_MAX + 1)
    assert f"cannot be run: its vif takes a TAP device: {INTERFACES_MAX} are the most" in told


@pytest.mark.skipif(not NO_TUN, reason="there is a /dev/net/tun for us")
def test_where_the_host_has_no_tap_for_us_that_is_told(cluster: Cluster) -> None:
    assert re.search(r"cannot be run: its vif takes a TAP device: /dev/net(/tun)?: .*; hvd doctor says more",
                     wired(cluster, ""))  # fmt: skip


@pytest.mark.skipif(os.geteuid() != 0, reason="everything else here is as nobody already")
@needs_tun
def test_all_of_it_holds_without_root() -> None:
    assert "4 passed" in passes_as_nobody_with_tap(Path(__file__), timeout_s=280)
