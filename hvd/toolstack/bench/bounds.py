"""What bounds the goals that a machine may miss: found by profile, printed beside a miss in docs/performance.md."""

from __future__ import annotations

WHAT_BOUNDS: tuple[tuple[str, str], ...] = (
    (
        r"both asleep, .* CPUs? / C eventfd",
        "**Event channel, both asleep.** An end makes three system calls a round trip (`pwritev2`, `ppoll`, a "
        "`read` that empties the pipe before the next sleep), the eventfd's two. `os.pipe` from Python, in the "
        "table below, makes two as well: what it is above the eventfd is Python's own part. The caller's deadline "
        "costs a kernel timer a sleep: with waits that have none the ratio of two bare processes on one CPU was "
        "1.26 to 1.28, with deadlines 1.35 to 1.45, in one run.",
    ),
    (
        r"handed over / memcpy",
        "**Pages handed over.** The time is that of the cache lines on their way from the writer's cache to the "
        "reader's. A bare C program of two pinned threads, which does the same on the same memory, reads 65, 92, "
        "104 and 107 GB/s for the four sizes where the hand-over reads 58, 87, 105 and 106, and prefetching "
        "changes neither. memcpy of what fits into one CPU's own second-level cache is faster than that, of what "
        "does not it is slower: small sizes miss the goal and large ones exceed it. Where the host runs the two "
        "CPUs on different cores, large sizes miss it too.",
    ),
    (
        r"^hvd up to",
        "**Boot.** `hvd up --timings` shows the parts: Python's start and the command line come before the machine "
        "has its order. The clock that a process's start is read from ticks every 10 ms.",
    ),
    (
        r"^domain create to",
        "**Creating a domain.** Of a birth's 440 system calls most belong to ZeroMQ's connection (`strace -f` of a "
        "standby): opening its threads, then the CURVE handshake, between whose HELLO and WELCOME most of the time "
        "passes. A standby has no connection before it is told which domain it is, because its endpoint and key "
        "are that domain's.",
    ),
    (
        r"^memory of a domain",
        "**Memory.** Of an idle domain's pages some 3.9 MiB are its own (`/proc/PID/smaps`: 2.5 MiB anonymous, 0.8 "
        "heap, 0.6 data of libpython): copies of the zygote's pages into which Python has written reference "
        "counts.",
    ),
)
"""(pattern of goals' names, what is known), in the order of the page."""
