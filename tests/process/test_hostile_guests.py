"""Owns what a guest may ask for to take the broker down with it: the broker stays the one it was, and goes on."""

import errno
import time
from pathlib import Path

import pytest

from hvd import Cluster
from hvd.broker.upcall_sockets import OUTBOX_DESCRIPTORS_MAX, OUTBOX_MAX
from hvd.toolstack.cluster import Domain
from hvd.transport.hypercalls import HypercallError
from hvd.transport.messages import DomainConfig

DEADLINE_S = 40.0
ASKS = {
    "a timer in the far future": "guest.runtime.set_timer(2**62)",
    "a watchdog in the far future": "guest.runtime.watchdog(2**32 - 1)",
    "a death notice on its upcall port": """
    shared = guest.runtime.grants.share(DomId(0), 1)
    guest.runtime.hypercalls.call(m.GnttabShareNotify(shared.id, 0, False, 1))""",
    "a shutdown with endless grace": "guest.runtime.hypercalls.call(m.DomctlShutdown(DOMID_SELF, False, 2**32 - 1))",
    "an upcall socket it shuts": """
    import socket
    sock = socket.socket(fileno=3)
    sock.shutdown(socket.SHUT_RDWR)
    sock.detach()
    for n in range(50):
        guest.runtime.store.watch("data", print)""",
}
KERNEL = """
from hvd.domains.guest import GuestShutdown
from hvd.transport import messages as m
from hvd.transport.ids import DOMID_SELF, DomId


def main(guest):
    try:
        {ask}
        guest.run_forever()
    except GuestShutdown:
        guest.run_forever()
"""


DEAF_TO_DESCRIPTORS = """
from hvd.transport import messages as m
from hvd.transport.ids import DomId


class Liar:  # it says that whatever was sent has been taken, and reads nothing
    events_seen = descriptors_received = 2**40

    def take_descriptors(self, sequence, count, deadline_s):
        return []


def main(guest):
    hypercalls = guest.runtime.hypercalls
    hypercalls.requests.upcalls = Liar()
    while True:
        extent, _ = hypercalls.call(m.GnttabAllocate(DomId(0), 1, False))
        hypercalls.call(m.GnttabFree(extent))
"""
DEAF_AT_BIRTH = """
from hvd.transport import messages as m
from hvd.transport.ids import DOMID_SELF

AUTO_READY = False


def main(guest):
    hypercalls = guest.runtime.hypercalls
    while True:
        try:
            hypercalls.post(m.EvtchnStatus(DOMID_SELF, 1))
        except BlockingIOError:  # the broker has not heard the last ones yet
            pass
"""


def await_log_line(cluster: Cluster, text: str) -> None:
    """The broker opens its log when it has been up for a while."""
    log, end = cluster.run_dir / "log" / "broker.log", time.monotonic() + DEADLINE_S
    while not (log.exists() and text in log.read_text()):
        assert time.monotonic() < end, f"no line with {text!r}"
        time.sleep(0.005)


def destroy(domain: Domain) -> None:
    """One whose end may come first."""
    try:
        domain.destroy()
    except HypercallError as error:
        assert error.errno == errno.ESRCH, error


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS.keys())
def test_a_guest_that_asks_for(tmp_path, ask):
    kernel = tmp_path / "hostile.py"
    kernel.write_text(KERNEL.format(ask="\n    ".join(ask.strip().splitlines())))
    with Cluster.build([DomainConfig("hostile", str(kernel), on_crash="destroy")]) as cluster:
        before = cluster.info()["broker_pid"]
        cluster.create(DomainConfig("first", "hvd:idle")).wait_ready()
        for domain in cluster.domains():
            if domain.name == "hostile":  # unless that was its end
                destroy(domain)
        cluster.create(DomainConfig("second", "hvd:idle")).wait_ready()
        assert (cluster.info()["broker_pid"], cluster.info()["broker_restarts"]) == (before, 0)


@pytest.mark.parametrize(
    ("deaf", "waits"),
    [(DEAF_AT_BIRTH, f"{OUTBOX_MAX} messages"),
     (DEAF_TO_DESCRIPTORS, f"{OUTBOX_DESCRIPTORS_MAX} descriptors (at most {OUTBOX_DESCRIPTORS_MAX})")],
    ids=["a reply", "a descriptor"],
)  # fmt: skip
def test_a_domain_that_never_reads_is_killed_before_what_waits_for_it_grows(tmp_path, deaf, waits):
    kernel = tmp_path / "deaf.py"
    kernel.write_text(deaf)
    with Cluster.build() as cluster:
        before = cluster.info()
        cluster.create(DomainConfig("deaf", str(kernel), on_crash="destroy")).wait_gone(DEADLINE_S)
        cluster.create(DomainConfig("second", "hvd:idle")).wait_ready(DEADLINE_S)
        await_log_line(cluster, f"{waits} wait on its upcall socket, which it does not read: killed")
        assert cluster.info()["broker_pid"] == before["broker_pid"]


def test_a_domain_goes_before_broker_and_machine_when_memory_runs_out():
    with Cluster.build([DomainConfig("guest", "hvd:idle")]) as cluster:
        info = cluster.info()
        pids = {"guest": cluster.domain("guest").pid, "broker": info["broker_pid"], "machine": info["machine_pid"]}
        scores = {name: int(Path(f"/proc/{pid}/oom_score_adj").read_text()) for name, pid in pids.items()}
    assert scores["guest"] > max(scores["broker"], scores["machine"])
