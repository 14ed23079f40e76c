// What a process needs of the kernel to live and die as one of hvd's: sibling forks, death with its parent, a name.
#pragma once

#include <linux/sched.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace hvd {

/// clone with CLONE_PARENT: the child is a sibling, so the caller's parent reaps it. Returns like fork, -errno on failure.
/// The child then sends its parent what the caller would. Not clone3: container engines answer ENOSYS, for its flags cannot
/// be filtered.
inline long clone_sibling(std::uint64_t namespaces) {
    const long pid = syscall(SYS_clone, static_cast<unsigned long>(CLONE_PARENT | namespaces), 0L, 0L, 0L, 0L);
    return pid < 0 ? -errno : pid;
}

/// The kernel kills us when the thread that is our parent ends.
inline int die_with_parent() { return prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 ? 0 : -errno; }

/// Gives the pages of freed memory back, of all arenas of the allocator's. Whether there were any.
inline bool trim_memory() { return malloc_trim(0) != 0; }

/// A part of the address space, and how it is brought in: madvise(2)'s MADV_POPULATE_READ or _WRITE, since Linux 5.14.
struct Stretch {
    std::uint64_t start, bytes, advice;
};
static_assert(sizeof(Stretch) == 24);

/// Takes the page faults of these now, in one go. What cannot be had is left to whoever uses it.
inline void bring_in(const std::byte* stretches, std::size_t bytes) {
    for (std::size_t at = 0; at + sizeof(Stretch) <= bytes; at += sizeof(Stretch)) {
        Stretch next{};
        std::memcpy(&next, stretches + at, sizeof next);
        syscall(SYS_madvise, next.start, next.bytes, next.advice);
    }
}

/// malloc_info(3): what each arena of the allocator's has, as XML. Nothing where there is no memory to tell it in.
inline std::string arenas() {
    char* text = nullptr;
    std::size_t size = 0;
    FILE* stream = open_memstream(&text, &size);
    if (stream == nullptr) {
        return {};
    }
    malloc_info(0, stream);
    const bool whole = std::fclose(stream) == 0;
    std::string told = whole ? std::string{text, size} : std::string{};
    std::free(text);
    return told;
}

/// A thread that sleeps until the process ends, deaf to signals, on a small stack of which it touches next to nothing.
/// None where the kernel gives none.
inline void start_sleeper() {
    constexpr std::size_t stack_bytes = 64 << 10;
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0) {
        return;
    }
    pthread_attr_setstacksize(&attributes, stack_bytes);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t thread;
    const auto sleep = [](void*) -> void* {
        for (;;) {
            pause();
        }
    };
    if (pthread_create(&thread, &attributes, sleep, nullptr) == 0) {
        pthread_detach(thread);
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    pthread_attr_destroy(&attributes);
}

/// struct sched_attr of linux/sched/types.h, which newer C libraries define too; its first 48 bytes.
struct SchedAttributes {
    std::uint32_t size;
    std::uint32_t policy;
    std::uint64_t flags;
    std::int32_t nice;
    std::uint32_t priority;
    std::uint64_t runtime;
    std::uint64_t deadline;
    std::uint64_t period;
};
static_assert(sizeof(SchedAttributes) == 48);

/// How long a thread (0: the caller) runs before others of its CPU that want to have their turn, in nanoseconds, 0: as
/// long as the kernel lets everybody. Whoever runs for shorter comes sooner when it wakes; its share of the CPU is the
/// same. Linux 6.12; before that, and for threads of another scheduling policy, nothing changes. 0 or -errno.
inline int set_slice(pid_t thread, std::uint64_t slice_ns) {
    SchedAttributes attributes{};
    if (syscall(SYS_sched_getattr, thread, &attributes, sizeof attributes, 0) != 0) {
        return -errno;
    }
    if (attributes.policy != SCHED_OTHER) {
        return 0;
    }
    attributes.runtime = slice_ns;
    return syscall(SYS_sched_setattr, thread, &attributes, 0) == 0 ? 0 : -errno;
}

inline int set_process_name(const char* name) { return prctl(PR_SET_NAME, name) == 0 ? 0 : -errno; }

}  // namespace hvd
