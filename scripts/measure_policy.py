#!/usr/bin/env python3
"""Measures what the security policy adds to a hypercall in the broker, in nanoseconds, one call at a time.

Examples:
  .venv/bin/python scripts/measure_policy.py
  .venv/bin/python scripts/measure_policy.py --calls 1000000 --policy silo
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable

from hvd.broker.audit import AuditLog
from hvd.broker.errors import Refused
from hvd.broker.hardware import NoHardware
from hvd.broker.hypervisor import Hypervisor
from hvd.broker.store.mandatory import allows
from hvd.broker.store.permissions import READ, Permission, Permissions, Principal
from hvd.broker.xsm import Xsm
from hvd.broker.xsm_hooks import ask
from hvd.toolstack.config.policy_file import load_policy
from hvd.transport import messages as m
from hvd.transport.ids import DomId, GrantRef, Port

DRIVER, GUEST, OTHER = DomId(1), DomId(2), DomId(3)
GOAL_NS = 5000


class Logging(NoHardware):
    """As much of the world as a denial meets before its line is written, which one a second is."""

    def __init__(self) -> None:
        super().__init__()
        self._log = AuditLog("/nowhere")

    def audit(self, source: DomId, line: str) -> None:
        self._log.note(source, line)


def machine(policy: str) -> Hypervisor:
    """Domain-0, a driver domain and two guests."""
    hypervisor = Hypervisor(b"secret", 0, Logging(), xsm=Xsm(load_policy(policy)))
    for name in ("Domain-0", "driver", "guest", "other"):
        hypervisor.create(m.DomainConfig(name, "hvd:idle", driver_domain=name == "driver"), 0)
    return hypervisor


def cases(h: Hypervisor) -> dict[str, Callable[[], object]]:
    """What a hypercall of each kind asks of the policy."""
    bind, map_page = m.EvtchnBindInterdomain(DRIVER, Port(3)), m.GnttabMap(DRIVER, GrantRef(8), 1, writable=True)
    device: Permissions = (Permission(Principal(DRIVER, 1), 0), Permission(Principal(GUEST, 2), READ))
    denied = m.EvtchnBindInterdomain(OTHER, Port(3))

    def ask_denied() -> None:
        try:
            ask(h, GUEST, denied)
        except Refused:
            return

    return {
        "an empty call, for comparison": lambda: None,
        "bind an event channel": lambda: ask(h, GUEST, bind),
        "map a grant": lambda: ask(h, GUEST, map_page),
        "read a node of XenStore": lambda: allows(h.xsm, GUEST, device, READ),
        "a hypercall about its caller alone": lambda: ask(h, GUEST, m.SetTimer),
        "bind, denied (in silo), refusal and line of the log": ask_denied,
    }


def percentiles(call: Callable[[], object], calls: int) -> list[int]:
    """p50, p99, p99.9 and the largest of so many calls, the clock's own time included."""
    clock = time.perf_counter_ns
    times = [0] * calls
    for number in range(calls):
        begin = clock()
        call()
        times[number] = clock() - begin
    times.sort()
    return [times[int(calls * part)] for part in (0.5, 0.99, 0.999)] + [times[-1]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=200_000, metavar="N")
    parser.add_argument("--policy", default="silo", metavar="NAME|FILE")
    options = parser.parse_args()
    hypervisor = machine(options.policy)
    print(f"policy {hypervisor.xsm.policy.name}, {options.calls} calls each, ns; goal: p99 at most {GOAL_NS}")
    print(f"{'':<52} {'p50':>7} {'p99':>7} {'p99.9':>7} {'max':>9}")
    gc.freeze()
    gc.disable()
    for what, call in cases(hypervisor).items():
        percentiles(call, 1000)
        print(f"{what:<52} " + " ".join(f"{ns:>{width}}" for ns, width in zip(percentiles(call, options.calls),
                                                                               (7, 7, 7, 9), strict=True)))  # fmt: skip


if __name__ == "__main__":
    main()
