"""Faults of control messages: what the victim asks of the hypervisor is lost, comes twice, late, or behind nonsense."""

from __future__ import annotations

from hvd.toolstack.faults.events import counted
from hvd.toolstack.faults.fault import Fault, Parameter
from hvd.toolstack.faults.held import held_fault
from hvd.toolstack.faults.signals import BROKER_UNDOES, DIES, ended_by
from hvd.transport.faults import FaultKind

RATE = Parameter("rate", "thousandths of its requests", 300, 1, 1000)
DELAY_US = Parameter("amount", "microseconds that one arrives late", 50_000, 1, 5_000_000)
ONCE = "each is carried out once, and its caller goes on"

HYPERCALL_FAULTS = (
    Fault(
        str(FaultKind.DROP_HYPERCALLS), "its hypercalls, and replies to it, are lost", "its caller, who sends again",
        f"{ONCE}; at a rate of 1000 it waits for its deadline, and its program is told",
        held_fault(FaultKind.DROP_HYPERCALLS, counted("sent again")), for_s=2.0, parameters=(RATE,),
        undone_by=BROKER_UNDOES,
    ),
    Fault(
        str(FaultKind.DUPLICATE_HYPERCALLS), "its hypercalls arrive twice", "the sessions' memory of what was answered",
        ONCE, held_fault(FaultKind.DUPLICATE_HYPERCALLS, counted("repeats")), for_s=2.0,
        parameters=(RATE,), undone_by=BROKER_UNDOES,
    ),
    Fault(
        str(FaultKind.REORDER_HYPERCALLS), "its hypercalls arrive behind the next", "its caller, who sends again",
        ONCE, held_fault(FaultKind.REORDER_HYPERCALLS, counted("sent again")), for_s=2.0,
        parameters=(RATE,), undone_by=BROKER_UNDOES,
    ),
    Fault(
        str(FaultKind.DELAY_HYPERCALLS), "its hypercalls arrive late", "the endpoint's clock",
        ONCE, held_fault(FaultKind.DELAY_HYPERCALLS, counted("late")), for_s=2.0,
        parameters=(RATE, DELAY_US), undone_by=BROKER_UNDOES,
    ),
    Fault(
        str(FaultKind.OVERSIZE_HYPERCALLS), "messages too large come with its hypercalls", "the codec, which refuses",
        f"nothing of them is decoded, a line in the broker's log; {ONCE}",
        held_fault(FaultKind.OVERSIZE_HYPERCALLS, counted("refused")), for_s=2.0, parameters=(RATE,),
        undone_by=BROKER_UNDOES,
    ),
    Fault(
        str(FaultKind.KILL_IN_TRANSACTION), "SIGKILL between the start and the end of a XenStore transaction",
        "the store's count of open transactions, then the machine's reaper",
        f"the transaction is dropped, nothing of it is seen; {DIES}",
        held_fault(FaultKind.KILL_IN_TRANSACTION, ended_by("killed by SIGKILL")), for_s=10.0,
        undone_by=BROKER_UNDOES,
    ),
)  # fmt: skip
