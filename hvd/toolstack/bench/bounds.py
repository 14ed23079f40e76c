"""What bounds the goals that a machine may miss: found by profile, printed beside a miss in docs/performance.md."""

from __future__ import annotations

WHAT_BOUNDS: tuple[tuple[str, str], ...] = (
    (
        r"both asleep, .* CPUs? / C eventfd",
        "**Event channel, both asleep.** An end makes three system calls a round trip (`pwritev2`, `ppoll`, a "
        "`read` that empties the pipe before the next sleep), the eventfd's two, whose sleep is its read and has no "
        "deadline. A bare C program of two processes on one CPU, in one run (60,000 round trips each): eventfd 3.65 "
        "µs, a pipe that is read without a deadline 4.01, slept on by `ppoll` 5.04, by `ppoll` with a deadline 5.84, "
        "which is 1.6 times the eventfd. Of the rest 0.2 µs are the seccomp filter's (measured with the layer off). A "
        "futex with a deadline takes 4.36; but nothing wakes whoever sleeps on one when his peer dies, nor can he wait "
        "for descriptors as well.",
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
        "**Boot.** What bounds it is what Python executes to load modules. In CPU time (medians of 15 boots, other "
        "work on both CPUs): 15 ms until `hvd`'s first line (9 of an interpreter that does nothing), 31 for what "
        "command line and machine both need, ZeroMQ among it, then two processes at once: 32 until the order is "
        "given, most of it typer, and 40 until machine and broker are loaded, 310 modules with Python's own; 3 until "
        "the broker is forked, 10 until it has booted. Nothing waits for a timer on the way. Of the machine's 450 "
        "million instructions (`valgrind --tool=callgrind`) a quarter makes classes, an eighth reads bytecode, a "
        "tenth starts extension modules. dom0 waits for the zygote besides, 20 ms of CPU time that begin with the "
        "broker's 10, and its process takes some 20 until its first line, most of them in its sandbox. Where bytecode "
        "is missing all of it takes twice as long.",
    ),
    (
        r"^domain create to",
        "**Creating a domain.** With a clock read at each step (lower quartiles of 25, sandboxed, the process "
        "standing by, other work on both CPUs), of 4.8 ms: 1.8 until it has its name (0.5 the hypercall's way "
        "through ZeroMQ to the broker, 0.6 until that has made its sockets and buffers and told the machine, 0.3 "
        "each from there to the zygote and to the process), 0.3 until it has its certificate, 1.4 for the sandbox, "
        "0.9 for channels, console and streams, 0.4 until it may run, its kernel is loaded and it has said that it "
        "is ready. Of the sandbox 0.7 are its root, 2.1 in the median: the kernel waits for every CPU before it has "
        "let go of the host's mounts. The process makes some 360 page faults in that time: reference counts in "
        "pages that are the zygote's until then. It makes no client of ZeroMQ's on the way, which took 1.1 ms of "
        "one that was forked, 0.4 of one that had stood by. A process that is forked comes 3 ms later into being, "
        "which is the fork of the image itself, and has 2 ms more to do: what one that stands by has behind it. No "
        "answer of the broker's is waited for on the way.",
    ),
    (
        r"with and without a kill, Mann-Whitney p$",
        "**The data path while a broker dies.** It does not wait: no system call of either end is the broker's. But "
        "the next broker is forked and takes everything over in some 20 ms of CPU time, and domains answer it; on two "
        "CPUs that meets one end or the other in most windows, so that the worst round trip of a window is longer.",
    ),
    (
        r"^driver domain SIGKILL to",
        "**A driver domain's recovery.** With a clock read at each hypercall in the broker (one of 5 kills without a "
        "spare, quiet), of 15.4 ms: 0.5 until the fence, 7.7 until its successor is in its sandbox and may run (see "
        "above; what the dead one held is withdrawn in that time), 2.7 until its device is offered (three hypercalls "
        "over its upcall socket), 2.2 until the frontend has read the offer and published its ring, 1.3 until that is "
        "read and attached (two hypercalls), 0.9 until the first request is answered. With a spare the 7.7 are "
        "some 3, of the broker's for it and of the spare's until it asks. "
        "Since then both ends ask over their upcall sockets, 0.3 ms where it was 0.8 to 1.8, and images are opened "
        "with the first look. Of a spare's (medians of 40, clock reads in all processes, other work on both CPUs): 1.7 "
        "ms until the fence, 1.5 for the tables (withdrawn, promoted, offered again), 0.4 until it runs, 1.5 until it "
        "has looked, 0.9 until it has made its backend, by when the guest has published, 0.7 until that is read, 0.4 "
        "until it is attached, 0.5 until the first answer. "
        "Each step wakes a process, and each process runs code for the first time: 300 page faults. "
        "A domain that is killed in the middle of `fdatasync` ends when the disk is done, "
        "and a FLUSH that is issued again waits for the disk too: with other work writing to the same disk 0.7 and "
        "1.1 s were seen (`/proc/PID/stack`: folio_wait_writeback). Where 20 processes want the two CPUs the same "
        "steps take 0.25 to 1.1 s; what each of them waits for then was not sampled.",
    ),
    (
        r"death to (suspicion|fence)$",
        "**From a death to its being known.** The pidfd of a process tells when the kernel has taken its memory "
        "apart: of a bare fork of Python that holds nothing 0.65 ms after SIGKILL at the earliest and 0.85 in the "
        "median, of one with 8 MiB of its own after 2.1 and 2.9, with 32 MiB after 7.3 and 11.5 (60 kills each). A "
        "driver domain has some 4.5 MiB of its own. So the machine has the pidfd of a thread that "
        "sleeps: it is gone 0.06 to 0.09 ms after SIGKILL where a CPU is free for it, and must be woken for that where"
        " it sleeps. Then the machine looks at the others' flags, 0.15 to 0.25 ms, and the broker withdraws what the "
        "dead one held.",
    ),
    (
        r"^round trip of a packet",
        "**A packet there and back between programs.** Each way has the wake-ups of the bare chain: init, switch, "
        "init. An init makes four system calls for a packet (`strace`: `epoll_pwait2`, `readv`, a `readv` that says "
        "that there is no more, `pwritev2`) and three for the answer (`epoll_pwait2`, `read`, `writev`), where the "
        "chain makes two each. Before its waiter carried packets on without Python the round trip took some half as "
        "long again.",
    ),
    (
        r"^switch killed",
        "**A switch's recovery.** As a driver domain's. With four vifs its offers are one hypercall, all frontends "
        "that have published are read with one, and each vif is attached with one: 12 ms from its readiness to the "
        "next answer, of which most is the guests' and the switch's first steps, on two CPUs that six processes want. "
        "The more vifs a switch has, the longer the last one waits.",
    ),
    (
        r"^throughput lost",
        "**Throughput lost.** Twice a recovery's time is the goal. What is found is the difference of two counts: with "
        "three kills, one in 10 s, what other work does to the machine in 0.4 s weighs as much as the recovery.",
    ),
    (
        r"/ xenstored's$",
        "**XenStore over its socket.** The broker makes three system calls for what has come in one piece (`strace "
        "-c`: epoll_wait, recvfrom, sendto), and one record for its writes; what it is behind by is Python. With a "
        "broker and its client in one process, a read took 7.3 µs and a write 9.6 one at a time, 3.4 and 4.7 with "
        "32 in flight (the least of 4,000); of xenstored's CPU either takes 10 one at a time and 7.5 with 32 in "
        "flight (schedstat), and it keeps no journal. One at a time a broker that finds its CPU free waits awake, "
        "and reads are even with xenstored's; on a machine that has other work it sleeps between two requests, and "
        "each begins with cold caches: Python has more to warm. A read beside another's write waits for both. With "
        "a clock read at each step (medians of 6,000 pairs, broker and client with real-time priority beside other "
        "work), of 55 µs: 15 until the broker is awake, 14 for the write, 16 for the read, whose reply wakes the "
        "client, and 10 until that has it.",
    ),
    (
        r"^a pair beside",
        "**A pair beside one that wants everything.** Who runs on the pair's CPU meanwhile `perf record -e "
        "sched:sched_switch` tells: in 4 s beside one that opens ports without end the pair's two 33,600 times, nobody "
        "13,900, the broker and its ZeroMQ thread 28 times; beside one that prints no kernel thread for its terminal, "
        "where there had been 6,300 a second. Beside one that storms it was the broker's two 264 times. The other ways "
        "were not looked at so. The figure is the median over rounds: in each, the 99th percentile beside it is set "
        "against that of the turn without it which follows. Runs differ by half.",
    ),
    (
        r"^memory of a domain",
        "**Memory.** Of an idle domain's pages some 3.6 MiB are its own (`/proc/PID/smaps`: 2.4 MiB anonymous, 0.6 "
        "heap, 0.4 data of libpython): copies of the zygote's pages into which Python 3.11 has written. Compared "
        "with the zygote's word for word, a quarter of them hold what they held, since a reference count went up "
        "and down again, and another quarter differ in one word. 0.9 MiB are so behind a bare fork. Whoever asks "
        "the hypervisor for something has 0.9 MiB more for its client of ZeroMQ's. The names in Python's method "
        "cache, which are let go of one by one as a domain looks methods up, cost 0.23 MiB before the zygote "
        "emptied it, standard streams of a domain's own making 0.18. A single call of pathlib costs 1.2 MiB: "
        "nothing on the way to a kernel makes one. To lay the code of all functions side by side gains 0.1 MiB, and "
        "one arena for all threads (`MALLOC_ARENA_MAX=1`) nothing.",
    ),
)
"""(pattern of goals' names, what is known), in the order of the page."""
