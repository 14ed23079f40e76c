// What this domain's process does to itself when the broker has it signalled: it exits, computes, or runs out of something.
//
// The order stands in the shared info page, which only the broker writes, and the handler is here, so that the domain's program
// has no part in it; a program that takes the signal over has no such fault, which its witness sees. Everything in the handler
// is async-signal-safe.
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdint>

#include "layouts.hpp"
#include "shared_info.hpp"
#include "spin.hpp"

namespace hvd::fault_orders {

enum class Order : std::uint64_t { none = 0, exit = 1, busy = 2, no_descriptors = 3, no_memory = 4 };

/// Words of the shared info page (transport/shared_info.py).
inline constexpr std::size_t order_offset = 88, number_offset = 96, until_offset = 104;
/// transport/faults.py has it too: no signal that glibc or Python use.
inline constexpr int signal_number = 47;

struct Taken {
    bool is_taken = false;
    rlimit before{};
};
inline Taken descriptors, memory;

inline void take(Taken& taken, decltype(RLIMIT_DATA) resource, rlim_t soft) {
    rlimit now{};
    if (!taken.is_taken && ::getrlimit(resource, &now) == 0) {
        const rlimit less{soft < now.rlim_cur ? soft : now.rlim_cur, now.rlim_max};
        taken.before = now;
        taken.is_taken = ::setrlimit(resource, &less) == 0;
    }
}

inline void give_back(Taken& taken, decltype(RLIMIT_DATA) resource) {
    if (taken.is_taken) {
        ::setrlimit(resource, &taken.before);
        taken.is_taken = false;
    }
}

/// The lowest number that is free: with it as the limit nothing more can be opened, and what is open stays.
inline void take_descriptors() {
    const int lowest = ::fcntl(0, F_DUPFD_CLOEXEC, 0);
    if (lowest >= 0) {
        ::close(lowest);
        take(descriptors, RLIMIT_NOFILE, static_cast<rlim_t>(lowest));
    }
}

/// What is there stays. Not 0: a soft limit of 0 the kernel takes for Valgrind's, and refuses nothing up to the hard one.
inline void take_memory() { take(memory, RLIMIT_DATA, 1); }

/// Computes for as long as the page has this very order. Time is CLOCK_MONOTONIC's: a paused domain's runs on.
inline void compute() {
    const auto number = load_relaxed(shared_info::at<std::uint64_t>(number_offset));
    const auto until = load_relaxed(shared_info::at<std::uint64_t>(until_offset));
    while (load_relaxed(shared_info::at<std::uint64_t>(number_offset)) == number &&
           load_relaxed(shared_info::at<std::uint64_t>(order_offset)) == static_cast<std::uint64_t>(Order::busy) &&
           static_cast<std::uint64_t>(now_ns()) < until) {
    }
}

inline void obey(int) {
    const int before = errno;
    switch (static_cast<Order>(load_acquire(shared_info::at<std::uint64_t>(order_offset)))) {
        case Order::exit:
            ::_exit(0);
        case Order::busy:
            compute();
            break;
        case Order::no_descriptors:
            take_descriptors();
            break;
        case Order::no_memory:
            take_memory();
            break;
        case Order::none:
            give_back(descriptors, RLIMIT_NOFILE);
            give_back(memory, RLIMIT_DATA);
            break;
    }
    errno = before;
}

/// From here on this process obeys. 0 or -errno.
inline int listen() {
    struct sigaction action {};
    action.sa_handler = obey;
    action.sa_flags = SA_RESTART;
    return ::sigaction(signal_number, &action, nullptr) == 0 ? 0 : -errno;
}

}  // namespace hvd::fault_orders
