"""Every fault there is, by name: the one table that the command line, campaigns and docs/faults.md are made from."""

from __future__ import annotations

from hvd.toolstack.faults.fault import Fault
from hvd.toolstack.faults.signals import SIGNAL_FAULTS

FAULTS: dict[str, Fault] = {fault.name: fault for fault in (*SIGNAL_FAULTS,)}
