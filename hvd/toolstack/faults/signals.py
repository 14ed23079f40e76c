"""Faults that are signals, and exit: deaths of every kind, stops long and short, slowness, and a busy loop."""

from __future__ import annotations

from hvd.toolstack.cluster.domain import ALIVE, DomainInfo
from hvd.toolstack.faults.fault import Fault, Parameter, Seen
from hvd.toolstack.faults.held import HeldFault, Witness, held_fault
from hvd.transport.faults import FaultKind

BROKER_UNDOES = "the broker, at its deadline"
DIES = "its on_crash action follows; whoever used it waits and is served by its next incarnation"
KERNEL_AND_REAPER = "pidfd, and the machine's reaper"
BUSY_LEAST_S = 0.05
"""Computed at a stretch: the machine may be full, so it may take longer."""

FOUND_STOPPED = "its process has been stopped"
"""Of the last death of a domain whose heartbeat was not taken."""


def ended_by(how: str) -> Witness:
    """Its process is gone, and the reaper says by what."""

    def look(effect: HeldFault) -> Seen:
        if not effect.process.ended():
            return Seen(None, f"process {effect.process.pid} lives")
        info = effect.order.cluster.infos().get(effect.victim.domid)
        if info is None:
            return Seen(True, f"process {effect.process.pid} ended, and its domain is gone")
        if _is_yet_to_be_reaped(effect, info):
            return Seen(None, f"process {effect.process.pid} ended; not reaped yet")
        return Seen(how in info.last_death, f"process {effect.process.pid} ended; reaper: {info.last_death}")

    return look


def _is_yet_to_be_reaped(effect: HeldFault, info: DomainInfo) -> bool:
    """Whether the last death that is told of is of an incarnation before."""
    return info.incarnation == effect.incarnation and info.state in ALIVE


def stopped(effect: HeldFault) -> Seen:
    """The kernel says that it is, or said so to whoever looks after heartbeats, who ended it before we looked."""
    state = effect.process.state()
    if not state:
        info = effect.order.cluster.infos().get(effect.victim.domid)
        if info is not None and FOUND_STOPPED in info.last_death and not _is_yet_to_be_reaped(effect, info):
            return Seen(True, f"process {effect.process.pid} ended; {info.last_death}")
    return Seen(True if state == "T" else None, f"/proc/{effect.process.pid}/stat: state {state or 'gone'}")


def stopped_now_and_then(effect: HeldFault) -> Seen:
    """It was seen stopped, and it was seen not to be."""
    state = effect.process.state()
    effect.before["stopped" if state == "T" else "not stopped"] = 1
    seen = " and ".join(effect.before)
    return Seen(True if len(effect.before) == 2 else None, f"/proc/{effect.process.pid}/stat: {seen}")


def computes(effect: HeldFault) -> Seen:
    """The kernel has counted that it computed and did not once give the processor up by itself, beside nobody else."""
    sleeps, cpu_s = effect.process.sleeps(), effect.process.cpu_s()
    if effect.before.get("sleeps") != sleeps:
        effect.before = {"sleeps": sleeps, "cpu_s": cpu_s}
    spent = cpu_s - effect.before["cpu_s"]
    text = f"/proc/{effect.process.pid}/status: {spent:.2f} s computed without a voluntary context switch"
    others = list(effect.process.states_below().values())
    if others:
        text += f", {others.count('T')} of the {len(others)} processes that it has started stopped"
    return Seen(True if spent >= BUSY_LEAST_S and others.count("T") == len(others) else None, text)


def _death(kind: FaultKind, summary: str, how: str, expected: str = DIES) -> Fault:
    return Fault(str(kind), summary, KERNEL_AND_REAPER, expected, held_fault(kind, ended_by(how)))


SHARE = Parameter("rate", "thousandths of the time that it is stopped", 800, 1, 999)

SIGNAL_FAULTS = (
    _death(FaultKind.KILL, "SIGKILL", "killed by SIGKILL"),
    _death(FaultKind.SEGV, "SIGSEGV", "killed by SIGSEGV", f"{DIES}; with a coredump action there is a core"),
    _death(FaultKind.ABORT, "SIGABRT", "killed by SIGABRT", f"{DIES}; with a coredump action there is a core"),
    _death(FaultKind.EXIT, "exit(0) in the middle of anything, closing nothing", "exited with status 0"),
    Fault(
        str(FaultKind.HANG), "SIGSTOP, longer than a heartbeat", "/proc/PID/stat",
        "with a heartbeat: found, and its on_watchdog action follows; without one it goes on where it was",
        held_fault(FaultKind.HANG, stopped), for_s=5.0, undone_by=BROKER_UNDOES,
    ),
    Fault(
        "stall", "SIGSTOP, shorter than a heartbeat", "/proc/PID/stat",
        "nothing is restarted; what waited for it waits as much longer",
        held_fault(FaultKind.HANG, stopped), for_s=0.1, undone_by=BROKER_UNDOES,
    ),
    Fault(
        str(FaultKind.SLOW), "stopped for a part of each 20 ms", "/proc/PID/stat",
        "nothing is restarted; what it serves takes longer",
        held_fault(FaultKind.SLOW, stopped_now_and_then), for_s=2.0, parameters=(SHARE,), undone_by=BROKER_UNDOES,
    ),
    Fault(
        str(FaultKind.BUSY), "its first process computes and does nothing else; what that has started stands still",
        "/proc/PID: time computed, context switches, states",
        "others get their share of the processor; a driver domain that serves nobody for five heartbeats is found, and "
        "its on_watchdog action follows",
        held_fault(FaultKind.BUSY, computes), for_s=2.0,
        undone_by=f"its own deadline in its shared info page, and {BROKER_UNDOES}",
    ),
)  # fmt: skip
