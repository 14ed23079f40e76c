// What the broker has become of this domain's notifications: lost, late, too many, or its death in the place of one.
//
// Notify looks at one word, the switch that traces have too; what follows here is run while it is on, and never else. The words
// stand in the shared info page, which only the broker writes: the program of the domain has no part in it. Which notification
// is hit is decided by the seed and by how many there were before it.
//
// What was done is counted in the first page of the trace buffer, behind its head. The domain can write that page: whoever
// reads the counts has the domain's word for it.
#pragma once

#include <errno.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdint>

#include "layouts.hpp"
#include "shared_info.hpp"
#include "spin.hpp"
#include "trace.hpp"

namespace hvd::event_faults {

enum class Kind : std::uint32_t { none = 0, drop = 1, delay = 2, storm = 3, die = 4 };

/// Words of the shared info page (transport/shared_info.py).
inline constexpr std::size_t kind_offset = 56, rate_offset = 60, seed_offset = 64, until_offset = 72, amount_offset = 80;
/// In the switch: the second of its bytes.
inline constexpr std::uint32_t switched_on = 0x100;
inline constexpr std::uint64_t storm_most = 1'000;
inline constexpr std::uint64_t delay_most_us = 1'000'000;

/// A well-mixed number for each count (splitmix64).
inline std::uint64_t mixed(std::uint64_t seed, std::uint64_t count) noexcept {
    std::uint64_t z = seed + (count + 1) * 0x9E37'79B9'7F4A'7C15U;
    z = (z ^ (z >> 30)) * 0xBF58'476D'1CE4'E5B9U;
    z = (z ^ (z >> 27)) * 0x94D0'49BB'1331'11EBU;
    return z ^ (z >> 31);
}

/// How many notifications this fault has looked at.
inline std::atomic<std::uint64_t> looked_at = 0;
inline std::atomic<std::uint64_t> looked_at_for = 0;

inline bool is_hit() noexcept {
    const auto seed = load_relaxed(shared_info::at<std::uint64_t>(seed_offset));
    const auto until = load_relaxed(shared_info::at<std::uint64_t>(until_offset));
    if (static_cast<std::uint64_t>(now_ns()) >= until) {
        return false;
    }
    if (looked_at_for.exchange(until, std::memory_order_relaxed) != until) {
        looked_at.store(0, std::memory_order_relaxed);  // another fault
    }
    const auto count = looked_at.fetch_add(1, std::memory_order_relaxed);
    return mixed(seed, count) % 1000 < load_relaxed(shared_info::at<std::uint32_t>(rate_offset));
}

inline void sleep_us(std::uint64_t microseconds) noexcept {
    timespec left{static_cast<time_t>(microseconds / 1'000'000), static_cast<long>(microseconds % 1'000'000 * 1'000)};
    while (::nanosleep(&left, &left) != 0 && errno == EINTR) {
    }
}

/// What becomes of the notification that is about to be sent: how often it is. Slow, and does not return from a death.
[[gnu::noinline, gnu::cold]] inline std::uint64_t times_to_send() noexcept {
    if ((load_relaxed(trace::switch_word()) & switched_on) == 0 || !is_hit()) {
        return 1;
    }
    const auto amount = load_relaxed(shared_info::at<std::uint64_t>(amount_offset));
    switch (static_cast<Kind>(load_relaxed(shared_info::at<std::uint32_t>(kind_offset)))) {
        case Kind::drop:
            trace::count(trace::Count::dropped, 1);
            return 0;
        case Kind::delay:
            trace::count(trace::Count::delayed, 1);
            sleep_us(std::min(amount, delay_most_us));
            return 1;
        case Kind::storm:
            trace::count(trace::Count::repeated, std::min(amount, storm_most));
            return 1 + std::min(amount, storm_most);
        case Kind::die:
            ::_exit(128 + SIGKILL);  // the first process of a PID namespace cannot send itself that signal
        case Kind::none:
            break;
    }
    return 1;
}

}  // namespace hvd::event_faults
