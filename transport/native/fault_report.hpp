// What a domain does with the signals of a crash: it ends, and if a core of it is wanted, first tells the hypervisor where the
// fault lies and waits to be stopped and killed. Everything in the handlers is async-signal-safe.
//
// There are two handlers, since Python's faulthandler stands between them. The upper one, there only if a core is wanted, sees
// the context of the fault, notes where it lies and hands on to faulthandler, which prints the traceback and raises the signal
// again. That second signal reaches the lower one, whose own context is of no interest: it sends what the upper one noted.
#pragma once

#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>

namespace hvd {

/// One datagram to the hypervisor; transport/fault_notice.py reads it. Addresses are the domain's own.
struct FaultNotice {
    std::uint32_t signal;
    std::uint32_t thread;  ///< As the domain's PID namespace numbers it.
    std::uint64_t context;  ///< Of a ucontext_t.
    std::uint64_t siginfo;
};
static_assert(sizeof(FaultNotice) == 24 && offsetof(FaultNotice, context) == 8 && offsetof(FaultNotice, siginfo) == 16);

/// How long a domain waits for whoever is to take its core, before it ends as it would without.
inline constexpr time_t fault_patience_s = 5;

inline constexpr std::array fatal_signals{SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS, SIGQUIT};

struct FaultReport {
    int descriptor = -1;
    pid_t owner = 0;  ///< Who reports. A child that a domain has forked is not the domain: its faults are its own.
    std::atomic_flag noted = ATOMIC_FLAG_INIT;
    FaultNotice notice{};
    std::array<struct sigaction, fatal_signals.size()> below{};  ///< What the upper handler hands on to: faulthandler's.
};
inline FaultReport fault_report;

/// The lower handler. The status of a process that ends by it is 128 + signal.
inline void end_of_fault(int number) {
    if (fault_report.owner == getpid() &&
        send(fault_report.descriptor, &fault_report.notice, sizeof(FaultNotice), MSG_NOSIGNAL | MSG_DONTWAIT) > 0) {
        timespec until{};
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += fault_patience_s;
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr) == EINTR) {
        }
    }
    _exit(128 + number);
}

/// The upper handler.
inline void note_fault(int number, siginfo_t* info, void* context) {
    if (!fault_report.noted.test_and_set()) {  // of two threads that fault at once the first is told of
        fault_report.notice = {static_cast<std::uint32_t>(number), static_cast<std::uint32_t>(syscall(SYS_gettid)),
                               reinterpret_cast<std::uintptr_t>(context), reinterpret_cast<std::uintptr_t>(info)};
    }
    for (std::size_t i = 0; i < fatal_signals.size(); ++i) {
        const struct sigaction& below = fault_report.below[i];
        if (fatal_signals[i] == number && (below.sa_flags & SA_SIGINFO) == 0 && below.sa_handler != SIG_DFL &&
            below.sa_handler != SIG_IGN) {
            below.sa_handler(number);
        }
    }
    end_of_fault(number);
}

/// The signals of a crash end the process. Needed because the first process of a PID namespace does not die of a signal that it
/// has no handler for, not even of its own abort(). To be called before faulthandler is enabled. 0 or -errno.
inline int exit_on_fatal_signals() {
    struct sigaction action {};
    action.sa_handler = end_of_fault;
    for (const int number : fatal_signals) {
        if (sigaction(number, &action, nullptr) != 0) {
            return -errno;
        }
    }
    return 0;
}

/// Before that they are reported on this datagram socket. To be called after faulthandler is enabled. 0 or -errno.
inline int report_fatal_signals(int descriptor) {
    struct sigaction action {};
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    action.sa_sigaction = note_fault;
    for (std::size_t i = 0; i < fatal_signals.size(); ++i) {
        if (sigaction(fatal_signals[i], &action, &fault_report.below[i]) != 0) {
            return -errno;
        }
    }
    fault_report.descriptor = descriptor;
    fault_report.owner = getpid();
    return 0;
}

/// Where Yama lets only ancestors trace: whoever takes our core is a child of our parent's. Elsewhere nothing.
inline void allow_tracing() { prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0); }

}  // namespace hvd
