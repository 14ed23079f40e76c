// What running costs, counted from outside the code that runs: system calls of a thread, instructions of this one.
#pragma once

#include <linux/perf_event.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

#include "spin.hpp"

namespace hvd {

namespace detail {

/// Waits for the traced thread's next stop until the deadline; 0 when none came, -1 on failure.
inline pid_t stop_of(pid_t pid, int& status, std::int64_t deadline_ns) {
    for (;;) {
        const pid_t stopped = waitpid(pid, &status, __WALL | WNOHANG);
        if (stopped != 0 || now_ns() >= deadline_ns) {
            return stopped;
        }
        const timespec pause{0, 50'000};
        nanosleep(&pause, nullptr);
    }
}

}  // namespace detail

/// How many system calls the thread `pid` enters within `duration_ns`; -errno when it may not be traced. Each call takes the
/// thread 50 us and more meanwhile, so it is for code that is said to make none.
inline std::int64_t count_system_calls(pid_t pid, std::int64_t duration_ns) {
    if (ptrace(PTRACE_SEIZE, pid, nullptr, PTRACE_O_TRACESYSGOOD) != 0 || ptrace(PTRACE_INTERRUPT, pid, nullptr, nullptr) != 0) {
        return -errno;
    }
    std::int64_t entered = 0;
    bool inside = false;
    bool interrupted = false;
    std::int64_t deadline = never_ns;  // the clock runs from the first stop on, from which system calls are seen
    for (;;) {
        int status = 0;
        const pid_t stopped = detail::stop_of(pid, status, deadline);
        if (stopped < 0 || (stopped > 0 && !WIFSTOPPED(status))) {
            return entered;  // it is gone
        }
        if (stopped == 0) {
            interrupted = true;
            deadline = never_ns;
            ptrace(PTRACE_INTERRUPT, pid, nullptr, nullptr);
            continue;
        }
        if (interrupted) {  // whatever stopped it: the interruption may have merged with a system call's stop
            ptrace(PTRACE_DETACH, pid, nullptr, nullptr);
            return entered;
        }
        const int what = WSTOPSIG(status);
        const bool trapped = what == (SIGTRAP | 0x80);
        if (trapped) {
            inside = !inside;
            entered += inside ? 1 : 0;
        }
        if (deadline == never_ns) {
            deadline = now_ns() + duration_ns;
        }
        const bool real_signal = !trapped && (status >> 16) == 0;
        ptrace(PTRACE_SYSCALL, pid, nullptr, real_signal ? static_cast<long>(what) : 0L);
    }
}

/// User-space instructions of the calling thread, by the CPU's own counter. Not every machine lends it.
class Instructions {
public:
    Instructions() {
        perf_event_attr attributes{};
        attributes.size = sizeof attributes;
        attributes.type = PERF_TYPE_HARDWARE;
        attributes.config = PERF_COUNT_HW_INSTRUCTIONS;
        attributes.exclude_kernel = 1;
        attributes.exclude_hv = 1;
        fd_ = static_cast<int>(syscall(SYS_perf_event_open, &attributes, 0, -1, -1, PERF_FLAG_FD_CLOEXEC));
    }
    ~Instructions() {
        if (fd_ >= 0) close(fd_);
    }
    Instructions(const Instructions&) = delete;
    Instructions& operator=(const Instructions&) = delete;

    /// -1 where there is no such counter.
    std::int64_t read_now() const {
        std::int64_t count = -1;
        return fd_ >= 0 && read(fd_, &count, sizeof count) == sizeof count ? count : -1;
    }

private:
    int fd_;
};

}  // namespace hvd
