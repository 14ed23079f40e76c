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
        "**Creating a domain.** With a clock read at each step (medians of 40, sandboxed, the process standing by), of "
        "5.9 ms: 1.5 until it has its name (0.8 of them the hypercall's way through ZeroMQ to the broker), 0.6 until "
        "it has its certificate, 1.7 for the sandbox (1.4 of them its root and uid), 0.8 for its "
        "channels and its ZeroMQ socket, 0.5 for console and streams, 0.7 until its kernel is compiled. A process that "
        "is forked comes 3 ms later into being, which is the fork of the image itself, and has 3 ms more to do: what "
        "one that stands by has behind it. No answer of the broker's is waited for on the way.",
    ),
    (
        r"^a pair beside",
        "**A pair beside one that wants everything.** What is left when broker and domain 0 work on the greedy one's "
        "CPU: its calls and the pair's round trips share caches, the kernel's locks and the host's core; the machine "
        "process, which keeps descriptors, and the broker's looking thread, 5 µs in 4 ms, run where there is room, "
        "and so does the broker for the first 4 ms. On a machine that has other work the ratio is that of two "
        "99th percentiles of noise: several rounds are needed.",
    ),
    (
        r"^memory of a domain",
        "**Memory.** Of an idle domain's pages some 4.5 MiB are its own (`/proc/PID/smaps`: 2.8 MiB anonymous, 1.0 "
        "heap, 0.6 data of libpython): copies of the zygote's pages into which Python has written reference counts. "
        "3.4 MiB are so before a process has been told which domain it is (2.4 MiB of a bare fork that has opened and "
        "closed a ZeroMQ socket); one arena for all threads (`MALLOC_ARENA_MAX=1`) changes nothing.",
    ),
)
"""(pattern of goals' names, what is known), in the order of the page."""
