"""What bounds the goals that a machine may miss: found by profile, printed beside a miss in docs/performance.md."""

from __future__ import annotations

WHAT_BOUNDS: tuple[tuple[str, str], ...] = (
    (
        r"both asleep, .* CPUs? / C eventfd",
        "**Event channel, both asleep.** An end makes two system calls a round trip, as many as the eventfd's "
        "(`strace`: `futex` to wake, `futex` to sleep), and Python makes them. A bare C program of two processes on "
        "one CPU, back to back (lower quartiles of 41 turns of 2,000 round trips, other work on both CPUs): eventfd "
        "3.79 µs, a pipe that is read without a deadline 3.82, a futex 3.84, one with a deadline 4.29, a pipe slept "
        "on by `ppoll` 4.33, by `ppoll` with a deadline 6.02. In turns with these two domains took 5.27 µs, which is "
        "1.35 times the eventfd, and os.pipe 5.17: what is beyond the futex is four calls from Python into C and "
        "back, 0.13 of it the seccomp filter's. Behind a millisecond of sleep all of that, kernel and interpreter, "
        "has to come back into the caches: beside other work that fills them the domains took 13.8 µs, os.pipe 12.8, "
        "a semaphore in shared memory 14.7, and the eventfd, which is a loop of a few hundred instructions, 8.0.",
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
        r"traced / untraced$",
        "**A traced ring.** A record is an atomic addition, a reading of the CPU's counter and six stores. In a ring "
        "whose two ends are one thread it takes 7.9 ns (C++, lower quartile of 1,500 times 16,000 messages of four "
        "records each); without the reading it takes 6.9, with an addition that is not atomic 5.4, with neither 2.5: "
        "the two wait for each other. Each side makes two for a message that goes out and its answer, and a message "
        "one by one takes some 130 ns untraced: 12 % before anything has left a cache. The trace's reader is not in "
        "that. It took 16 to 35 ms of CPU time for each of its ten looks a second as long as it made an object of "
        "every record, and takes 2 to 4 since it does that when the trace has ended.",
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
        "is missing all of it takes twice as long. "
        "Since then machine and broker load 21 modules less, dataclasses, inspect and OpenSSL among them: 443 million "
        "instructions until they are loaded, where it was 535 (whole processes), of which what both need are 242, "
        "where it was 280; the command line, which loads inspect itself, has its order after 410, where it was 426. "
        "The machine used 58 ms of CPU time over a boot, where it was 72 (medians of 12, in turns, other work on both "
        "CPUs). "
        "Since then neither machine and broker nor domain 0 load pathlib, which brings urllib and ipaddress, "
        "records that differ in names alone are compiled once, and hypercalls' messages are made once and not "
        "twice: 387 million instructions until machine and broker are loaded, where it was 418 (an installed tree, "
        "whole processes), and 474 for `hvd list`, where it was 482; 93 ms of CPU time for the former, where it "
        "was 101 (medians of 15, in turns, five times as much work as CPUs beside them). As it boots the broker "
        "writes to 1,300 pages that are the machine's until then, and the kernel copies each.",
    ),
    (
        r"^domain create to",
        "**Creating a domain.** With a clock read at each step (medians of 30, sandboxed, the process standing by, "
        "in a cluster that six domains have lived in, all of it with real-time priority beside other work on two "
        "CPUs), of 3.4 ms: 0.15 until the caller has packed and sent the hypercall, 0.25 until ZeroMQ's threads have "
        "brought it, 0.15 until the broker has read it and checked each of its fields, 0.25 until it has ordered a "
        "process of the machine, 0.75 by way of machine and zygote until the process knows that it is wanted, in "
        "which the broker makes its ports and pages, 0.2 until it has its name and its certificate, 0.9 for the "
        "sandbox, 0.4 for channels, console and streams, 0.3 until it may run, its kernel is loaded and it has said "
        "that it is ready. Of the sandbox 0.2 are for a look at the host's files, at the one that it is to note its "
        "first line in and at its endpoint, 0.2 to mount the two, 0.15 its uid, 0.15 seccomp, which the kernel "
        "compiles, 0.1 the bounds of its control groups, 0.1 what it needs, read from its certificate. From when the "
        "process knows that it is wanted that is 1.8 ms: it makes some 30 page faults, where it made 370, since who "
        "stands by has the pages that births use (`domains/birth_pages.py`), which saves 1.2 ms. The zygote learns "
        "those of domains that live for a while; of a cluster that has had none a create takes as long as its row "
        "says. The rest is what its "
        "sandbox has at hand (ARCHITECTURE.md, \"A sandbox put on in two halves\"), and a bounding set that is "
        "dropped by 42 system calls where it took 164. It does not wait for the "
        "kernel to let go of the host's mounts, which took 0.3 to 1.6 ms of it. What bounds it is that all of this is "
        "CPU time of Python: 1.8 ms of the broker's until it has let the domain run, as much of the domain's, and at "
        "the same time that of ZeroMQ's threads, machine and zygote, on two CPUs. So a shorter way saves little: where "
        "the broker told the process itself, which stood by with the next domain's upcall socket, it knew 0.25 ms "
        "sooner, and its first line came 0.15 sooner (five runs of 30 or 40 each, in turns: 3.56 and 3.10, 3.12 and "
        "2.99, 3.26 and 3.24, 3.44 and 3.29, 3.07 and 2.90); told before its ports and pages were made it knew 0.4 ms "
        "sooner, and its first line came no sooner than that. With no way at all it would still be 0.8 ms until the "
        "broker has ordered it and 1.8 from then on, 2.6 in all. A "
        "process that is forked comes 3 ms later into being, which is the fork of the image itself with its "
        "namespaces (1.6 until the zygote goes on, 2.2 until the child does), and has 2.5 ms more to do: what one "
        "that stands by has behind it. No answer of the broker's is waited for on the way.",
    ),
    (
        r"with and without a kill, Mann-Whitney p$",
        "**The data path while a broker dies.** It does not wait: no system call of either end is the broker's. But "
        "the next broker is forked and takes everything over in some 20 ms of CPU time; on two CPUs that meets one "
        "end or the other in most windows, so that the worst round trip of a window is longer. With the hypervisor on "
        "another CPU nobody of ours runs on theirs who asks the hypervisor nothing (counted by the kernel, "
        "`/proc/PID/task/TID/status`, over 40 kills with eight domains): no thread of ZeroMQ's, and no domain's own "
        "more often than without a kill. Until then ZeroMQ's thread of each domain that has a client connected again "
        "there, 0.75 ms of CPU time in ten pieces a kill, and domain 0, driver domain and reader ran for their bells, "
        "0.3 to 0.4 ms each. The worst round trip of a window was 26 µs in the median with a kill and 25 without one "
        "(40 windows each, Mann-Whitney p 0.69, other work on both CPUs), where it had been 179 (20 windows beside 10 "
        "without a kill, p 0.0003). "
        "Reads of a disk, 4 KiB, in turns: 221 and 220 µs (40 each, p 0.60), and 324 and 220 before.",
    ),
    (
        r"^driver domain SIGKILL to",
        "**A driver domain's recovery.** With a clock read at each hypercall in the broker (one of 5 kills without a "
        "spare, quiet), of 15.4 ms: 0.5 until the fence, 7.7 until its successor is in its sandbox and may run (see "
        "above; what the dead one held is withdrawn in that time), 2.7 until its device is offered (three hypercalls "
        "over its upcall socket), 2.2 until the frontend has read the offer and published its ring, 1.3 until that is "
        "read and attached (two hypercalls), 0.9 until the first request is answered. With a spare the 7.7 are "
        "some 3, of the broker's for it and of the spare's until it asks. "
        "Since then the process that becomes it has let go of the host's mounts while it stood by: the guest's next "
        "request after 18.2 ms in the median and 15.2 in the lower quartile, where it was 35.8 and 19.0 (30 kills "
        "each, in turns, other work on both CPUs). "
        "Since then both ends ask over their upcall sockets, 0.3 ms where it was 0.8 to 1.8, and images are opened "
        "with the first look. A spare asks nothing before its first answer: what it would ask comes with the word to "
        "run, what its frontend has published with the event. Of one (medians of 40, clock reads in all processes, "
        "other work on both CPUs): 1.3 ms until the fence (0.5 in the quickest tenth), 1.7 for the tables (0.7 "
        "withdrawn, 0.2 promoted, 0.3 offered again, 0.4 asked ahead), 0.6 until it is told to run, 0.1 until it does, "
        "1.2 until it has made its backend, 0.9 until what the guest has published meanwhile is heard, 0.4 until that "
        "is attached, 0.6 until the first answer. From the word to run to that answer it uses 1.9 ms of CPU time and "
        "makes 230 page faults, since all of it runs for the first time; so does the broker's: to renew the offers and "
        "the domain's home took 0.3 ms there and 0.1 when it was done again and again. "
        "Since then a spare has served a disk of its own, in memory, before it stands by: over a takeover it makes 38 "
        "and 39 page faults, where it was 249 and 254 (medians of 15 kills, in two turns, other work on both CPUs). "
        "What it goes through then took 1.7 ms of CPU time the second time, where the first took 3.2 (medians of 9). "
        "Since then the spare's XenStore socket is made while it stands by, its guests are told of the offer before "
        "what the spare would ask is carried out, and all threads of a driver domain are watched. The quickest "
        "quarter of 60 with some 20 processes beside, on both CPUs: 0.5 until the fence, 0.3 until the broker has it,"
        " 1.0 for the tables (0.6 withdrawn, 0.25 promoted, 0.15 offered again), 0.2 until the guest knows, 0.2 until"
        " it has made its ring anew and asks; meanwhile 0.3 to ask ahead and 0.5 until the spare has made its "
        "backend; 1.1 from the guest's question until the broker, which does that first, has written it down, 0.8 "
        "until the spare has attached, 0.4 until the first answer: 4.6, where it was 6.1 to 7.0. In turns with the "
        "tree before, 120 kills each, that load beside: the fence after 1.2 ms in the median where it was 2.3, the "
        "guest's next request after 6.4 where it was 7.6. A death was known 0.2 to 20 s late a few times in 120 with "
        "such load, on memory files too: what was left of the one before was scheduled by SCHED_IDLE, held locks of "
        "the kernel's, and the machine waited for these. With a nice value of 5 instead: with a spare 9 ms at the "
        "99th percentile of 80, without one two of 80 after more than 50 ms, the longest 0.4 s. "
        "A domain that is killed in the middle of `fdatasync` ends when the disk is done, "
        "and a FLUSH that is issued again waits for the disk too: with other work writing to the same disk 0.7 and "
        "1.1 s were seen (`/proc/PID/stack`: folio_wait_writeback). Where 20 processes want the two CPUs the same "
        "steps take 0.25 to 1.1 s; what each of them waits for then was not sampled. "
        "What other work changes least is the CPU time of each step (medians of 60 kills with a spare, the thread's "
        "CPU time read at each step in all processes, some 20 processes beside). The machine: 0.24 ms to see that all "
        "threads have ended, 0.07 to say so. The broker: 0.62 to withdraw (0.15 of it one node of the store, 0.1 "
        "watches), 0.32 to promote, 0.21 to renew the offers, 0.26 until the guest is told, 0.43 to ask ahead, 0.3 "
        "until the spare is let run, 0.2 until it has looked who asks, 0.4 until what the guest has published is "
        "written down and the spare told: 2.8 one behind the other, beside which the guest (0.2 until it publishes) "
        "and the spare (0.34 until its backend is made) run. Then the spare's 0.12 to hear of the ring, 0.22 to "
        "attach it, up to 0.2 to serve; five wake-ups come on top. So 2 ms are less than the broker's own share. "
        "Since then a directory is read in one look, not by a path and a look-up for each of its nodes: the two or "
        "three that a takeover brings took 0.39 ms of the broker's time and take 0.11. Without a spare the same look "
        "saves as much of some 10 ms, of which 7 are the process, its sandbox and its offers. Of 100 kills "
        "with a spare, with all that the scheduler did (`perf record -a -e sched:sched_switch,sched:sched_wakeup`, "
        "quiet), the slowest tenth took 8.9 ms and the quickest quarter 4.2: the fence came after 2.2 where it was "
        "0.7, the broker ran for 4.0 and waited for a CPU for 2.9 where it was 2.4 and 1.1, what serves ran for 3.5 "
        "and waited for 2.5 where it was 2.4 and 1.7; both CPUs were busy for 65 and for 89 % of it. So a 99th "
        "percentile is that whose turn it is waits for a CPU that another step of the same recovery has. Many kills "
        "in one run (`hvd bench recovery --seed 1 --kills 1000 --duration 150`, as root, on this machine on a day on"
        " which all took half as long again: `hvd list` 168 ms): 1,000 without a spare 11.3 ms in the median, 14.4, "
        "16.9 and 61.2 at 90 %, 99 % and at most; 1,000 with one 7.5, 11.0, 14.1 and 17.2; of neither was an "
        "operation lost, wrong or failed, so at 95 % of fewer than 0.3 % of kills. A death was known after 0.08 and "
        "0.09 ms, and fenced after 1.1 and 0.9. Of 1,000 brokers killed 1,000 were survived; of 200 domains 100 of "
        "100.",
    ),
    (
        r"death to (the machine's )?(suspicion|fence)$",
        "**From a death to its being known.** The pidfd of a process tells when the kernel has taken its memory "
        "apart: of a bare fork of Python that holds nothing 0.65 ms after SIGKILL at the earliest and 0.85 in the "
        "median, of one with 8 MiB of its own after 2.1 and 2.9, with 32 MiB after 7.3 and 11.5 (60 kills each). A "
        "driver domain has some 4.5 MiB of its own. So the machine has the pidfd of a thread that "
        "sleeps: it is gone 0.06 to 0.09 ms after SIGKILL where a CPU is free for it, and must be woken for that where"
        " it sleeps. Then the machine looks at the others' flags, 0.15 to 0.25 ms, and the broker withdraws what the "
        "dead one held. Who measured it was an ordinary process, that waited for a CPU behind those who recover: with "
        "a spare 0.27 ms, where the machine had known it after 0.115. Since then it has real-time priority for that "
        "moment, where it may: 0.08 ms with a spare where it was 1.27, the machine after 0.14 and 0.13 (40 kills each, "
        "in turns, some 35 processes beside).",
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
        "**A switch's recovery.** As a driver domain's. With four vifs its offers are two hypercalls, what "
        "their frontends have published comes with the events, and each vif is attached with one: 12 ms from its "
        "readiness to the next answer (when they were read with one more), of which most is the guests' and the "
        "switch's first steps, on two CPUs that six processes want. "
        "The more vifs a switch has, the longer the last one waits.",
    ),
    (
        r"^throughput lost",
        "**Throughput lost.** Twice a recovery's time is the goal. What is found is the difference of two counts: what "
        "other work does to the machine in the 0.4 s before a kill or behind it weighs as much as the recovery, and "
        "three kills said 13.5 % ± 24. So it is of ten at least, and a goal within the interval is not judged.",
    ),
    (
        r"/ xenstored's$",
        "**XenStore over its socket.** The broker makes three system calls for what has come in one piece (`strace "
        "-c`: epoll_wait, recvfrom, sendto), which take 2.8 µs of its time, and one record for its writes. With a "
        "broker and its client in one process, a read took 4.0 µs and a write 5.3 one at a time, 0.25 and 0.5 with "
        "32 in flight (the least of 6,000); of xenstored's CPU either takes 10 one at a time and 7 with 32 in flight "
        "(schedstat), and it keeps no journal. One at a time a broker that finds its CPU free waits awake; on a "
        "machine that has other work it sleeps between two requests, and each begins with cold caches, of which "
        "Python has more to warm: of the broker's CPU a write takes 10.6 µs on the quiet machine, spinning included, "
        "and 17 beside a load of 30 on two CPUs, of xenstored's 10 and 11. A read beside another's write waits for "
        "both.",
    ),
    (
        r"^a write's cost beside many",
        "**A write beside many.** What it cost was snapshots: of a journal of 8 MiB small writes fill one in a third"
        " of a second, and then a snapshot of the whole store was taken at once, 0.3 s of CPU time of 100,000 nodes."
        " Of the broker's CPU a write took 1.5 µs beside nothing, 3.4 beside 100,000 nodes and 4.0 beside 10,000 "
        "watches as well (32 in flight, other work on both CPUs); since a snapshot copies what has not changed, and "
        "a full journal is given room until it is whole, 1.4, 1.1 and 1.2 in one run. The tree itself takes 0.38 µs "
        "of that either way; watches took 0.09 more, a look for each name of the path, and take none since they are "
        "a tree of names.",
    ),
    (
        r"^a pair beside",
        "**A pair beside one that wants everything.** A turn begins 20 ms after the nuisance was let run, or "
        "paused. Without that the 99th percentile of a turn of 70 ms is what its first milliseconds were, in "
        "which the hypervisor does what the bench asks of it and follows whoever calls to his CPU: 2.2, 1.4 and "
        "1.2 for ports, watches and prints, 0.9, 1.0 and 0.8 with it (medians of 9 rounds, some other work). One "
        "that calls in bursts of 15 ms has a row of its own, since it has the hypervisor come and go as well. "
        "What is left is another set of rows from run to run, some 17 µs where it is 11. In 1.2 s beside one that "
        "grants, 5,200 round trips, the pair's CPU took 36 interrupts and ran somebody else 75 times, alone 29 "
        "and 70 (`perf record`): that is no more than one in a hundred either way, so most of it is not this "
        "kernel's doing but what two CPUs share beneath it, core, caches or host. The controls: beside a process "
        "that rests, which is what the measuring itself finds, the ratio was 1.00 (bare C 0.97); beside processes that "
        "are no domains and walk, map, talk or nap 0.97 to 1.14 (bare C 0.97 to 1.07). So what those that grant and "
        "allocate cost beyond 1.2 is more than such a process costs, and is not explained. One that reads none of its "
        "descriptors (4.3) dies of it, and is made anew: each end, and each extent taken or given back, makes the "
        "machine's process work, some 1,000 switches and 55 ms of CPU time a second, on any CPU, and on a quiet host "
        "the free one is the pair's. Kept on the callers' CPUs, as the broker is, it no longer came there (`perf "
        "record` of the pair's CPU: 23 switches and 5.8 ms a second, then none). But where a guest that calls had "
        "fifty threads compute the moment that another domain died, that death was known after 270 ms (median of 17, "
        "600 at most) where it had been 165 (of 20, 285 at most): so it stays where it is. The figure is the median "
        "over "
        "rounds: in each, the 99th percentile beside it is set against that of the turn without it which follows.",
    ),
    (
        r"^bystander",
        "**A bystander beside kills.** 1.94 where the hypervisor runs wherever the scheduler has it, 1.08 where it has "
        "the killed one's CPU to itself and that, in one run: so what comes to the pair's CPU is the "
        "machine's, the broker's and the zygote's work for a death and a birth, and not what the dead one leaves. "
        "`cpus` of `[cluster]` keeps it away.",
    ),
    (
        r"^8 domains idle",
        "**Idle.** By threads (`/proc/PID/task/TID/schedstat`, 3 s): broker 0.14 %, domain 0 0.014, zygote 0.018, each "
        "other domain 0.010 to 0.016, machine nothing; 22 wake-ups a second in all, two of each process for its "
        "heartbeat. In the first 3 s behind the domains' creation it is 1.5 %: broker 0.84, domain 0 0.31, their "
        "ZeroMQ threads 0.14.",
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
