"""Whether a domain hangs: of what is seen of it at each beat, a verdict. Pure: process_evidence.py looks.

A domain does what is asked of it in its waits and nowhere else. So its heartbeat is an event that the broker raises,
and it has beaten when that event is taken, which every wait does: the runtime has nothing to do for it. One that has
not taken it may yet have every right not to: it computes, or it wants to and others have the CPUs, or somebody debugs
it. What the kernel says of its process tells these from one that hangs: it neither runs nor wants to, although
something waits for it.

A verdict is about one beat. It is a hang when it has been the same for as long as `PATIENCE` says: counted in beats at
which the broker looked in time, so that what stops the broker, or the whole machine, ages nobody.
"""

from __future__ import annotations

from enum import StrEnum

from hvd.transport.records import dataclass, replace

SECOND = 1_000_000_000


class Doing(StrEnum):
    """What the kernel says of a domain's process at one moment."""

    RUNNABLE = "runnable"
    """A thread of it runs, or wants to."""
    STOPPED = "stopped"
    TRACED = "traced"
    """A debugger holds it, or could."""
    NAPPING = "napping"
    """It sleeps until a time that it has set itself, or a program of its own ends; or nobody knows for what."""
    ASLEEP = "asleep"
    """It waits for something else than its events: a lock, a pipe, a socket."""
    IN_KERNEL = "in kernel"
    """It waits for the kernel, and takes no signal: a disk, as a rule."""
    UNKNOWN = "unknown"
    """It cannot be seen, or is just ending."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is seen of a domain that has not taken its beat."""

    doing: Doing
    cpu_ns: int = 0
    """CPU time of its process so far."""
    steps: int = 0
    """Something that changes whenever any thread of it has run; not looked for while it is runnable."""
    waited_for: bool = False
    """Somebody's event, or the hypervisor's, waits for it beside the beat."""


class Verdict(StrEnum):
    """How a domain was found at a beat."""

    BEATING = "beating"
    BUSY = "busy"
    """It has run since the last beat, and not come to a wait."""
    STARVED = "starved"
    """It wants to run, and has not been let."""
    NAPPING = "napping"
    """It sleeps until a time of its own, and events wait for it."""
    DEBUGGED = "debugged"
    STOPPED = "stopped"
    IN_KERNEL = "in the kernel"
    DEAF = "deaf"
    """It waits for something else, and events wait for it."""
    ASLEEP = "asleep"
    """It waits for something else, or naps, and nothing waits for it."""
    UNSEEN = "unseen"
    """Its process cannot be looked at: nothing can be said."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a verdict may last before it is a hang: so many beats, and no shorter than this."""

    beats: int
    least_ns: int = 0


GUEST_PATIENCE = {
    Verdict.STOPPED: Patience(1),
    Verdict.DEAF: Patience(10, 10 * SECOND),
    Verdict.IN_KERNEL: Patience(10, 10 * SECOND),
}
"""What no line is for is never a hang. A guest may compute for as long as it likes."""
SERVER_PATIENCE = {
    **GUEST_PATIENCE,
    Verdict.DEAF: Patience(5, SECOND),
    Verdict.NAPPING: Patience(5, SECOND),
    Verdict.BUSY: Patience(5, SECOND),
}
"""Of a driver domain that others have devices of. BUSY is counted in CPU time: one that others keep from running is not
what it has had none of."""


@dataclass(frozen=True, slots=True)
class Pulse:
    """What is remembered of a domain from beat to beat."""

    verdict: Verdict = Verdict.BEATING
    beats: int = 0
    """At how many beats in a row it was found so, in which it did not run."""
    seen: Evidence | None = None
    """At the last beat, if it had not taken that."""
    busy_since_cpu_ns: int | None = None
    """The CPU time that it had had when it was first found not to have taken its beat."""


def judge(pulse: Pulse, evidence: Evidence | None) -> Pulse:
    """The next pulse; evidence None: it has taken the beat."""
    if evidence is None:
        return Pulse()
    ran = _has_run(pulse.seen, evidence)
    verdict = _verdict(evidence, ran=ran)
    beats = pulse.beats + 1 if verdict is pulse.verdict and not ran else 1
    since = evidence.cpu_ns if pulse.busy_since_cpu_ns is None else pulse.busy_since_cpu_ns
    return Pulse(verdict, beats, evidence, since)


def hangs(pulse: Pulse, interval_ns: int, *, serves: bool) -> str:
    """Why this is a hang, for people; empty while it is none."""
    patience = (SERVER_PATIENCE if serves else GUEST_PATIENCE).get(pulse.verdict)
    if patience is None or pulse.seen is None:
        return ""
    lasted_ns = (pulse.beats - 1) * interval_ns
    if pulse.verdict is Verdict.BUSY:
        lasted_ns = pulse.seen.cpu_ns - (pulse.busy_since_cpu_ns or 0)
    if lasted_ns < max(patience.beats * interval_ns, patience.least_ns):
        return ""
    return f"it hangs: {REASONS[pulse.verdict].format(lasted_ns / SECOND)}"


REASONS = {
    Verdict.STOPPED: "its process has been stopped for {:.3g} s",
    Verdict.DEAF: "it has waited for something else for {:.3g} s while events waited for it",
    Verdict.NAPPING: "it has slept for {:.3g} s while others waited for it",
    Verdict.IN_KERNEL: "it has not come back from the kernel for {:.3g} s",
    Verdict.BUSY: "it has computed for {:.3g} s and served nobody",
}


def interrupted(pulse: Pulse) -> Pulse:
    """Nobody looked in time: what was found before may be over, and what lasts counts from here.

    But for CPU time, which nobody has while everything stands still.
    """
    return replace(pulse, beats=0, seen=None)


def _has_run(before: Evidence | None, now: Evidence) -> bool:
    return before is not None and (before.cpu_ns, before.steps) != (now.cpu_ns, now.steps)


def _verdict(evidence: Evidence, *, ran: bool) -> Verdict:
    """The table: the first line that fits. Who is stopped now is stopped, whatever it did before."""
    match evidence.doing:
        case Doing.UNKNOWN:
            return Verdict.UNSEEN
        case Doing.TRACED:
            return Verdict.DEBUGGED
        case Doing.STOPPED:
            return Verdict.STOPPED
        case _ if ran:
            return Verdict.BUSY
        case Doing.RUNNABLE:
            return Verdict.STARVED
        case Doing.IN_KERNEL:
            return Verdict.IN_KERNEL
        case Doing.NAPPING:
            return Verdict.NAPPING if evidence.waited_for else Verdict.ASLEEP
        case Doing.ASLEEP:
            return Verdict.DEAF if evidence.waited_for else Verdict.ASLEEP
