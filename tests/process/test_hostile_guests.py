"""Owns what a guest may ask for to take the broker down with it: the broker stays the one it was, and goes on."""

from pathlib import Path

import pytest

from hvd import Cluster
from hvd.transport.messages import DomainConfig

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


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS.keys())
def test_a_guest_that_asks_for(tmp_path, ask):
    kernel = tmp_path / "hostile.py"
    kernel.write_text(KERNEL.format(ask="\n    ".join(ask.strip().splitlines())))
    with Cluster.build([DomainConfig("hostile", str(kernel), on_crash="destroy")]) as cluster:
        before = cluster.info()["broker_pid"]
        cluster.create(DomainConfig("first", "hvd:idle")).wait_ready()
        for domain in cluster.domains():
            if domain.name == "hostile":  # unless that was its end
                domain.destroy()
        cluster.create(DomainConfig("second", "hvd:idle")).wait_ready()
        assert (cluster.info()["broker_pid"], cluster.info()["broker_restarts"]) == (before, 0)


def test_a_domain_goes_before_broker_and_machine_when_memory_runs_out():
    with Cluster.build([DomainConfig("guest", "hvd:idle")]) as cluster:
        info = cluster.info()
        pids = {"guest": cluster.domain("guest").pid, "broker": info["broker_pid"], "machine": info["machine_pid"]}
        scores = {name: int(Path(f"/proc/{pid}/oom_score_adj").read_text()) for name, pid in pids.items()}
    assert scores["guest"] > max(scores["broker"], scores["machine"])
