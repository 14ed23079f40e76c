"""Every fault there is, by name: the one table that the command line, campaigns and docs/faults.md are made from."""

from __future__ import annotations

from hvd.toolstack.faults.corruption import CORRUPTION_FAULTS
from hvd.toolstack.faults.events import EVENT_FAULTS
from hvd.toolstack.faults.exhaustion import EXHAUSTION_FAULTS
from hvd.toolstack.faults.fault import Fault
from hvd.toolstack.faults.groups import GROUP_FAULTS
from hvd.toolstack.faults.hypercalls import HYPERCALL_FAULTS
from hvd.toolstack.faults.machine import MACHINE_FAULTS
from hvd.toolstack.faults.moments import MOMENT_FAULTS
from hvd.toolstack.faults.signals import SIGNAL_FAULTS

FAMILIES: dict[str, tuple[Fault, ...]] = {
    "Deaths, stops and slowness": SIGNAL_FAULTS,
    "Deaths at a chosen moment": MOMENT_FAULTS,
    "Many at once": GROUP_FAULTS,
    "Notifications": EVENT_FAULTS,
    "Hypercalls": HYPERCALL_FAULTS,
    "Running out": EXHAUSTION_FAULTS,
    "Shared pages": CORRUPTION_FAULTS,
    "The machine": MACHINE_FAULTS,
}
FAULTS: dict[str, Fault] = {fault.name: fault for family in FAMILIES.values() for fault in family}
