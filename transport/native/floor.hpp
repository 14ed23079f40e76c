// The floor that sleeping round trips are compared with: a bare eventfd ping-pong between two processes, nothing else of hvd in it.
#pragma once

#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <vector>

namespace hvd {

inline std::int64_t monotonic_ns() {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<std::int64_t>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}

inline void pin_to(int cpu) {
    if (cpu >= 0) {
        cpu_set_t cpus;
        CPU_ZERO(&cpus);
        CPU_SET(static_cast<unsigned>(cpu), &cpus);
        sched_setaffinity(0, sizeof cpus, &cpus);
    }
}

/// Round trips in nanoseconds; empty with errno set when the kernel refuses. The child answers on `child_cpu` (-1: anywhere);
/// both sleep `think_ns` between rounds, so every wake-up is of a sleeper.
inline std::vector<std::int64_t> eventfd_ping_pong(int rounds, std::int64_t think_ns, int child_cpu) {
    std::vector<std::int64_t> times;
    const int ping = eventfd(0, EFD_CLOEXEC);
    const int pong = eventfd(0, EFD_CLOEXEC);
    const pid_t child = ping < 0 || pong < 0 ? -1 : fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        pin_to(child_cpu);
        std::uint64_t value = 0;
        while (read(ping, &value, sizeof value) == sizeof value && write(pong, &value, sizeof value) == sizeof value) {
        }
        _exit(0);
    }
    if (child > 0) {
        times.reserve(static_cast<std::size_t>(rounds));
        std::uint64_t value = 1;
        for (int round = 0; round < rounds; ++round) {
            const timespec think{static_cast<time_t>(think_ns / 1'000'000'000), static_cast<long>(think_ns % 1'000'000'000)};
            nanosleep(&think, nullptr);
            const std::int64_t start = monotonic_ns();
            if (write(ping, &value, sizeof value) != sizeof value || read(pong, &value, sizeof value) != sizeof value) {
                break;
            }
            times.push_back(monotonic_ns() - start);
        }
        kill(child, SIGKILL);
        waitpid(child, nullptr, 0);
    }
    const int error = errno;
    if (ping >= 0) close(ping);
    if (pong >= 0) close(pong);
    errno = error;
    return times;
}

}  // namespace hvd
