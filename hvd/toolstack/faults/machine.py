"""Faults of the machine's own processes: the broker is killed or stopped, the zygote is killed."""

from __future__ import annotations

import signal
import threading

from hvd.toolstack.faults.fault import Aim, BadFault, Fault, Order, Seen
from hvd.toolstack.faults.processes import Watched, child_named
from hvd.transport import messages as m
from hvd.transport.errors import HvdError

LOOK_S = 0.001


class Strike:
    """A signal that the machine sends to one of its own."""

    def __init__(self, order: Order, role: str, number: signal.Signals) -> None:
        self._order, self._role, self._number = order, role, number
        self._process: Watched | None = None
        self._asking: threading.Thread | None = None
        self._error: HvdError | None = None

    def begin(self) -> None:
        """A broker that is stopped answers when it goes on, so a thread waits for that."""
        self._process = Watched(self._pid())
        self._asking = threading.Thread(target=self._ask, name=f"fault {self._role}", daemon=True)
        self._asking.start()
        while self._asking.is_alive() and self.look().activated is None:
            self._asking.join(LOOK_S)
        if self._error is not None:
            raise self._error

    def _ask(self) -> None:
        strike = m.MachineStrike(self._role, self._number, round(self._order.for_s * 1000))
        try:
            self._order.cluster.call(strike)
        except HvdError as error:
            self._error = error

    def _pid(self) -> int:
        machine = self._order.cluster.connection.machine_pid
        pid = child_named(machine, f"hvd-{self._role}")
        if pid is None:
            raise BadFault(f"machine {machine} has no {self._role} now; it may be forking one")
        return pid

    def look(self) -> Seen:
        assert self._process is not None
        pid = self._process.pid
        if self._number == signal.SIGSTOP:
            state = self._process.state()
            return Seen(True if state == "T" else None, f"/proc/{pid}/stat: state {state or 'gone'}")
        ended = self._process.ended()
        return Seen(True if ended else None, f"{self._role} {pid} {'ended' if ended else 'lives'}")

    def undo(self) -> None:
        """A stop that is over has been ended by the machine; before its time it ends here."""
        if self._process is not None:
            if self._number == signal.SIGSTOP and self._process.state() == "T":
                signal.pidfd_send_signal(self._process.pidfd, signal.SIGCONT)
            self._process.close()
        if self._asking is not None:
            self._asking.join()


MACHINE_FAULTS = (
    Fault(
        "broker-kill", "SIGKILL of the hypervisor", "pidfd",
        "no domain dies, block and console I/O goes on; the next broker has all that it had, hypercalls complete once",
        lambda order: [Strike(order, "broker", signal.SIGKILL)], aim=Aim.MACHINE,
    ),
    Fault(
        "broker-stop", "SIGSTOP of the hypervisor", "/proc/PID/stat",
        "no domain dies, block and console I/O goes on; hypercalls wait, and complete once",
        lambda order: [Strike(order, "broker", signal.SIGSTOP)], aim=Aim.MACHINE, for_s=1.0,
        undone_by="the machine, at its deadline; one that is silent for 5 s it kills instead",
    ),
    Fault(
        "zygote-kill", "SIGKILL of the image that domains are forked from", "pidfd",
        "domains that run notice nothing; births that were under way are asked for again",
        lambda order: [Strike(order, "zygote", signal.SIGKILL)], aim=Aim.MACHINE,
    ),
)  # fmt: skip
