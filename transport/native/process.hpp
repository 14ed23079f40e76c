// What a process needs of the kernel to live and die as one of hvd's: sibling forks, death with its parent, a name.
#pragma once

#include <linux/sched.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>

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

inline int set_process_name(const char* name) { return prctl(PR_SET_NAME, name) == 0 ? 0 : -errno; }

}  // namespace hvd
