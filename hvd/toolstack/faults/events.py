"""Faults of notifications: the victim's transport loses, delays or repeats them as its shared info page says."""

from __future__ import annotations

from hvd.toolstack.faults.fault import Fault, Parameter, Seen
from hvd.toolstack.faults.held import HeldFault, Witness, held_fault
from hvd.toolstack.faults.signals import BROKER_UNDOES, DIES, KERNEL_AND_REAPER, ended_by
from hvd.transport.faults import FaultKind

COUNTED = "the victim's trace page, and what other domains found in their rings"
"""The page is the victim's: one that lies can say anything, one that replaced its transport says nothing."""


def counted(name: str) -> Witness:
    """The victim's transport says that it did it."""

    def look(effect: HeldFault) -> Seen:
        counts = effect.counts()
        text = ", ".join(f"{number} {what}" for what, number in counts.items())
        return Seen(True if counts.get(name) else None, text or "nothing counted")

    return look


RATE = Parameter("rate", "thousandths of its notifications", 500, 1, 1000)
DELAY_US = Parameter("amount", "microseconds that one takes longer", 2_000, 1, 1_000_000)
REPEATS = Parameter("amount", "how often one is sent again", 100, 1, 1_000)

EVENT_FAULTS = (
    Fault(
        str(FaultKind.DROP_EVENTS), "notifications are lost", COUNTED,
        "whoever they were for finds its work within a second, and soon after it found some; no request fails",
        held_fault(FaultKind.DROP_EVENTS, counted("dropped")), for_s=2.0, parameters=(RATE,), undone_by=BROKER_UNDOES,
    ),
    Fault(
        str(FaultKind.DELAY_EVENTS), "notifications take as long as a slow hypercall", COUNTED,
        "the victim and what it serves take longer; no request fails",
        held_fault(FaultKind.DELAY_EVENTS, counted("delayed")), for_s=2.0, parameters=(RATE, DELAY_US),
        undone_by=BROKER_UNDOES,
    ),
    Fault(
        str(FaultKind.STORM), "each notification is sent many times", COUNTED,
        "whoever they are for is woken in vain, and serves its other peers all the same",
        held_fault(FaultKind.STORM, counted("repeated")), for_s=2.0, parameters=(RATE, REPEATS),
        undone_by=BROKER_UNDOES,
    ),
    Fault(
        str(FaultKind.KILL_BEFORE_NOTIFY), "it dies after it has published and before it notifies", KERNEL_AND_REAPER,
        DIES, held_fault(FaultKind.KILL_BEFORE_NOTIFY, ended_by("killed by SIGKILL")), for_s=2.0,
        undone_by=BROKER_UNDOES,
    ),
)  # fmt: skip
