// A descriptor that becomes readable at a time of CLOCK_MONOTONIC (timerfd), for whoever sleeps on descriptors alone.
#pragma once

#include <sys/timerfd.h>

#include <cerrno>
#include <cstdint>

namespace hvd {

/// A descriptor, or -errno.
inline int timer_descriptor() {
    const int fd = ::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

/// 0, or -errno. A time that has passed is now.
inline int arm_timer(int fd, std::int64_t at_ns) {
    constexpr std::int64_t second_ns = 1'000'000'000;
    const std::int64_t at = at_ns < 1 ? 1 : at_ns;  // 0 would disarm it
    const itimerspec when{{0, 0}, {static_cast<time_t>(at / second_ns), static_cast<long>(at % second_ns)}};
    return ::timerfd_settime(fd, TFD_TIMER_ABSTIME, &when, nullptr) == 0 ? 0 : -errno;
}

}  // namespace hvd
