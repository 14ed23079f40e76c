"""Ways from one unmodified program to another: hvd's, a Linux bridge, a switch in user space, a chain of bare wake-ups.

Each is a context in which a server runs on one end; what it yields runs a client's script on the other and returns what
that prints. Both ends have an address of 10.0.0.0/24. Absent says what a machine lacks for one.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hvd.toolstack.bench.disks import disk_domain
from hvd.toolstack.bench.namespaces import DEADLINE_S, inside, namespace, process, told_by, within
from hvd.toolstack.bench.peers.peer import Absent
from hvd.toolstack.cluster import Cluster, DomainState
from hvd.transport.errors import HvdError
from hvd.transport.messages import DeviceConfig, DomainConfig

SWITCH, SERVER, CLIENT = "bench-switch", "bench-server", "bench-client"
ADDRESSES = {SERVER: "10.0.0.2", CLIENT: "10.0.0.3"}
OVS = ("ovsdb-tool", "ovsdb-server", "ovs-vswitchd", "ovs-vsctl")
OVS_SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
OVS_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
LOOK_EVERY_S = 0.01
PYTHON = "/usr/bin/python3"
"""Debian's: guests see it too."""

Ask = Callable[[str], str]
"""Runs a client's script. HvdError when that fails."""


@dataclass(frozen=True, slots=True)
class Ends:
    """What runs where."""

    serve: str
    """The server's script."""
    cpus: tuple[int, int] | None = None
    """Of server and client; None: where the kernel has them."""

    def of(self, end: str) -> list[int]:
        """Its CPUs, [] if any."""
        return [] if self.cpus is None else [self.cpus[0 if end == SERVER else 1]]


def python(source: str, *arguments: str) -> str:
    """The line of a shell's script that becomes this program."""
    return "exec " + shlex.join([PYTHON, "-SEI", "-c", source, *arguments])


Way = Callable[[Ends], contextlib.AbstractContextManager[Ask]]


def check_tap() -> None:
    """Absent where we may make no TAP device."""
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        raise Absent("we may not open /dev/net/tun")


# ---- hvd -------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def guests(ends: Ends) -> Iterator[Ask]:
    """Two guests that are programs, and a driver domain's switch between them, in a cluster of their own."""
    check_tap()
    with Cluster.build(name="bench-net-programs") as cluster:
        cluster.create(disk_domain(SWITCH)).wait_ready(DEADLINE_S)
        cluster.create(program(SERVER, SERVER, ends.serve, ends.of(SERVER))).wait_ready(DEADLINE_S)
        numbers = itertools.count()

        def ask(script: str) -> str:
            client = cluster.create(program(f"{CLIENT}-{next(numbers)}", CLIENT, script, ends.of(CLIENT)))
            death = client.wait_state(DomainState.PRESERVED, deadline_s=DEADLINE_S).last_death
            told = client.console_log()
            client.destroy()
            if death != "poweroff":
                raise HvdError(f"{CLIENT} ended: {death}: {told[-500:]}")
            return told

        yield ask


def program(name: str, end: str, script: str, cpus: list[int]) -> DomainConfig:
    """A guest that is a shell's script, with the address and the vif of an end."""
    mac = f"00:16:3e:00:00:{ADDRESSES[end][-1]:0>2}"
    front = {"mac": mac, "hvd-offload": "1", "ip": ADDRESSES[end]}
    vif = DeviceConfig("vif", 0, SWITCH, {"mac": mac, "bridge": "bench-programs", "ip": ADDRESSES[end]}, front)
    return DomainConfig(name, "/bin/sh", args=["-c", script], devices=[vif], on_poweroff="preserve",
                        on_crash="preserve", cpus=cpus)  # fmt: skip


# ---- what it is compared with ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def bridge(ends: Ends) -> Iterator[Ask]:
    """Two network namespaces, each with one end of a veth pair whose other is in a Linux bridge."""
    with namespace() as middle, namespace() as server, namespace() as client:
        try:
            within(middle, "ip link add br0 type bridge && ip link set br0 up")
            for number, pid in enumerate((server, client)):
                within(middle, f"ip link add v{number} type veth peer name eth0 netns {pid} && "
                               f"ip link set v{number} master br0 up")  # fmt: skip
        except HvdError as error:
            raise Absent(f"no veth or no bridge: {error}") from None
        with _served(ends, server, client) as ask:
            yield ask


@contextlib.contextmanager
def user_space_switch(ends: Ends) -> Iterator[Ask]:
    """Open vSwitch's user-space datapath: its process owns a TAP device in each of two network namespaces, as ours do.

    Of the switches in user space that Debian ships without DPDK it moves most: beside it vde_switch was half as fast.
    """
    check_tap()
    if lacking := [name for name in OVS if shutil.which(name, path=OVS_PATH) is None]:
        raise Absent(f"{lacking[0]} is not installed: apt-get install openvswitch-switch")
    with (
        namespace() as middle, namespace() as server, namespace() as client,
        tempfile.TemporaryDirectory(prefix="hvd-ovs-") as directory, _open_vswitch(middle, directory) as configure,
    ):  # fmt: skip
        configure("add-br br0 -- set bridge br0 datapath_type=netdev")
        for name, pid in (("hvd-s", server), ("hvd-c", client)):
            configure(f"add-port br0 {name} -- set interface {name} type=tap")
            within(middle, f"ip link set {name} netns {pid} name eth0")
        with _served(ends, server, client) as ask:
            yield ask


@contextlib.contextmanager
def bare_chain(ends: Ends) -> Iterator[Ask]:
    """The wake-ups alone: a process in C at each hop between two TAP devices, and in each direction."""
    check_tap()
    cpus = [str(cpu) for end in (SERVER, CLIENT) for cpu in ends.of(end) or [-1]]
    module = [sys.executable, "-m", "hvd.toolstack.bench.peers.tap_chain", "hvd-s", "hvd-c", *cpus]
    with (
        namespace() as middle, namespace() as server, namespace() as client,
        process(inside(middle, *module)) as chain,
    ):  # fmt: skip
        if told_by(chain) != "made":
            raise Absent("the kernel makes no TAP devices for us")
        for name, pid in (("hvd-s", server), ("hvd-c", client)):
            within(middle, f"ip link set {name} netns {pid} name eth0")
        with _served(ends, server, client) as ask:
            yield ask


@contextlib.contextmanager
def _served(ends: Ends, server: int, client: int) -> Iterator[Ask]:
    """A server in the one namespace, whoever asks in the other; each has its eth0 there."""
    for pid, end in ((server, SERVER), (client, CLIENT)):
        within(pid, f"ip addr add {ADDRESSES[end]}/24 dev eth0 && ip link set eth0 up && ip link set lo up")
    serve = inside(server, "sh", "-c", f"exec >/dev/null; {ends.serve}", cpus=ends.of(SERVER))
    with process(serve):
        yield lambda script: within(client, script, ends.of(CLIENT))


@contextlib.contextmanager
def _open_vswitch(pid: int, directory: str) -> Iterator[Callable[[str], str]]:
    """One of its own in a namespace, none of whose files are the machine's; what it yields configures it."""
    database, socket = f"{directory}/conf.db", f"unix:{directory}/db.sock"
    where = {"PATH": OVS_PATH} | dict.fromkeys(("OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR"), directory)
    exports = " ".join(f"{name}={value}" for name, value in where.items())

    def configure(words: str) -> str:
        return within(pid, f"{exports} ovs-vsctl --timeout={DEADLINE_S:.0f} --db={socket} {words}")

    within(pid, f"{exports} ovsdb-tool create {database} {OVS_SCHEMA}")
    with (
        process(inside(pid, "ovsdb-server", database, f"--remote=p{socket}", f"--unixctl={directory}/db.ctl"), where),
        process(inside(pid, "ovs-vswitchd", socket, "--disable-system", f"--unixctl={directory}/switch.ctl"), where),
    ):
        until = time.monotonic() + DEADLINE_S
        while not Path(directory, "db.sock").exists():
            if time.monotonic() > until:
                raise HvdError("Open vSwitch's database did not start")
            time.sleep(LOOK_EVERY_S)
        configure("--no-wait init")
        yield configure
