// Sleeping on a word that two processes share, and waking whoever sleeps there: futex(2), by address in the shared file.
//
// What the other process can do to a sleeper: not wake it, wake it for nothing, or move it to another word of its own
// (FUTEX_REQUEUE). All three end with the sleeper's own time limit, which it cannot reach.
#pragma once

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string>

#include "faults.hpp"
#include "spin.hpp"

namespace hvd::futex {

/// Sleeps while the word is `expected`, for at most `most_ns`; the kernel compares and lies down in one step. `ready`: it was
/// another, or we were woken, for whatever reason.
inline Wake wait(std::uint32_t& word, std::uint32_t expected, std::int64_t most_ns) {
    const timespec left{static_cast<time_t>(most_ns / 1'000'000'000), static_cast<long>(most_ns % 1'000'000'000)};
    if (::syscall(SYS_futex, &word, FUTEX_WAIT, expected, &left, nullptr, 0) == 0 || errno == EAGAIN) {
        return Wake::ready;
    }
    if (errno != ETIMEDOUT && errno != EINTR) {
        throw LocalError(std::string("futex: ") + std::strerror(errno));
    }
    return errno == EINTR ? Wake::interrupted : Wake::timed_out;
}

/// The one that sleeps there, if there is one.
inline void wake(std::uint32_t& word) { ::syscall(SYS_futex, &word, FUTEX_WAKE, 1, nullptr, nullptr, 0); }

}  // namespace hvd::futex
