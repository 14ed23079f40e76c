// Polling before sleeping: the clock, the current CPU, the pause instruction and the adaptive budget.
//
// Waking a sleeping CPU costs 14 to 30 us, a polled word 0.1 us; but polling a peer that needs our own CPU costs 20 to
// 200 times more than sleeping, and polling for something that comes late burns the CPU for nothing. So each waiter grows
// its budget while polling would have caught what came, drops it to nothing when it would not, yields where it shares the
// CPU with its peer, and gives up where others want it.
#pragma once

#include <sched.h>
#include <time.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>

#include "layouts.hpp"

#if __has_include(<sys/rseq.h>)
#include <sys/rseq.h>
#define HVD_HAS_RSEQ 1
#else
#define HVD_HAS_RSEQ 0
#endif

namespace hvd {

inline constexpr std::int64_t never_ns = std::numeric_limits<std::int64_t>::max();
inline constexpr std::int64_t spin_limit_default_ns = 200'000;

/// How a wait ended.
enum class Wake { ready, timed_out, interrupted };

inline std::int64_t now_ns() {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<std::int64_t>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}

/// Negative waits for ever; a sum that overflows does too.
inline std::int64_t deadline_after(std::int64_t timeout_ns) {
    const std::int64_t now = now_ns();
    return timeout_ns < 0 || timeout_ns > never_ns - now ? never_ns : now + timeout_ns;
}

inline timespec until(std::int64_t deadline_ns) {
    const std::int64_t left = std::max<std::int64_t>(deadline_ns - now_ns(), 0);
    return {static_cast<time_t>(left / 1'000'000'000), static_cast<long>(left % 1'000'000'000)};
}

/// The kernel keeps this number up to date in our thread's rseq area, so that reading it is one load.
inline std::int32_t current_cpu() {
#if HVD_HAS_RSEQ
    if (__rseq_size != 0) {
        const auto* area = reinterpret_cast<const struct rseq*>(static_cast<const char*>(__builtin_thread_pointer()) + __rseq_offset);
        const auto cpu = static_cast<std::int32_t>(*const_cast<const volatile std::uint32_t*>(&area->cpu_id));
        if (cpu >= 0) {
            return cpu;
        }
    }
#endif
    return sched_getcpu();
}

inline void pause_cpu() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield" ::: "memory");
#else
    __asm__ __volatile__("" ::: "memory");
#endif
}

/// One clock reading costs about as much as one pause, so the clock is read once in this many polls.
inline constexpr int polls_per_clock = 16;

class SpinBudget {
public:
    explicit SpinBudget(std::int64_t limit_ns) : limit_ns_(std::max<std::int64_t>(limit_ns, 0)), budget_ns_(std::min(first_ns, limit_ns_)) {}

    std::int64_t budget_ns() const { return budget_ns_; }

    /// A wait had to sleep and lasted this long in all; `pollable` says whether polling could have seen its end at all.
    void missed(std::int64_t blocked_ns, bool pollable) {
        const bool is_short = blocked_ns <= limit_ns_;
        if (!pollable || !is_short) {
            budget_ns_ = 0;
        } else if (was_short_) {
            budget_ns_ = std::min(budget_ns_ == 0 ? first_ns : 2 * budget_ns_, limit_ns_);
        }
        was_short_ = is_short;
    }

private:
    static constexpr std::int64_t first_ns = 10'000;
    std::int64_t limit_ns_;
    std::int64_t budget_ns_;
    bool was_short_ = true;  ///< the sleep before: one that follows a long one may be followed by another
};

/// Giving up the CPU between polls, for a peer that needs this very one. It lets the two of us alternate faster than sleeping
/// and waking would, and keeps both runnable, so that the scheduler moves one of us to an idle CPU (a wake-up through a
/// pipe tends to pull the woken onto the waker's CPU, where a pair that only sleeps and wakes would stay for good).
/// Whoever else waits for this CPU takes a whole time slice, though: after a long turn yielding stops for so many times its
/// length that little is lost by it.
class Yielding {
public:
    bool pays(std::int64_t now) const { return now >= not_before_ns_; }

    /// Returns the time after it.
    std::int64_t yield(std::int64_t now) {
        ++yields_;
        sched_yield();
        const std::int64_t after = now_ns();
        if (after - now > turn_max_ns) {
            not_before_ns_ = after + pause_per_turn * (after - now);
        }
        return after;
    }

    std::uint64_t yields() const { return yields_; }

private:
    static constexpr std::int64_t turn_max_ns = 100'000;
    static constexpr std::int64_t pause_per_turn = 32;
    std::int64_t not_before_ns_ = 0;
    std::uint64_t yields_ = 0;
};

/// Where the peers of one wait are. Plain polling would take the CPU from the very peer it waits for if every peer that runs
/// (or, if none does, every peer that slept) is on our own.
class PeerPlaces {
public:
    void see(std::int32_t untrusted_word, std::int32_t our_cpu) {
        const bool here = cpu_of(untrusted_word) == our_cpu;
        const bool asleep = is_asleep(untrusted_word);
        running_here_ |= here && !asleep;
        running_elsewhere_ |= !here && !asleep;
        asleep_elsewhere_ |= !here && asleep;
    }

    bool need_our_cpu() const { return !running_elsewhere_ && (running_here_ || !asleep_elsewhere_); }

private:
    bool running_here_ = false;
    bool running_elsewhere_ = false;
    bool asleep_elsewhere_ = false;
};

/// Whether others want the CPU too. Who polls and is off it between two readings of the clock was taken off it by somebody, which
/// the kernel does where more threads want to run than there are CPUs. Whoever finds its own budget gives up the rest of it then;
/// one that was told for how long to poll does not.
class Crowding {
public:
    explicit Crowding(bool gives_up) : gives_up_(gives_up) {}

    bool gives_up(std::int64_t before, std::int64_t after) {
        const bool taken_off = gives_up_ && after - before > taken_off_ns;
        seen_ |= taken_off;
        return taken_off;
    }

    bool seen() const { return seen_; }

private:
    static constexpr std::int64_t taken_off_ns = 100'000;  ///< an interrupt takes less
    bool gives_up_;
    bool seen_ = false;
};

/// Polls `ready` for one clock's worth of pauses.
template <class Ready>
bool spin_briefly(Ready&& ready) {
    for (int i = 0; i < polls_per_clock; ++i) {
        if (ready()) {
            return true;
        }
        pause_cpu();
    }
    return false;
}

/// Polls `ready` from `now` on until it holds (true) or `end_ns` has passed (false), yielding while `shares_cpu` holds; false
/// as well when yielding does not pay, and when the CPU is wanted by others.
template <class Ready, class SharesCpu>
bool spin_until(std::int64_t now, std::int64_t end_ns, Yielding& yielding, Crowding& crowding, Ready&& ready, SharesCpu&& shares_cpu) {
    while (now < end_ns) {
        if (!shares_cpu()) {
            if (spin_briefly(ready)) {
                return true;
            }
            const std::int64_t before = std::exchange(now, now_ns());
            if (crowding.gives_up(before, now)) {
                return ready();
            }
        } else if (yielding.pays(now)) {
            now = yielding.yield(now);
            if (ready()) {
                return true;
            }
        } else {
            return false;
        }
    }
    return false;
}

}  // namespace hvd
