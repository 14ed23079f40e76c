// The shared info page of the domain that this process is: its clock, and what the broker switches on and off in it.
//
// The page (transport/shared_info.py has its layout; event_faults.hpp and fault_orders.hpp read some of it) is mapped over a page of this library's own data, so that its words have
// fixed addresses: through a pointer, each look would take an instruction and a load more. Until then it is all zeros, which is
// no domain's page: everything is off, and system time is CLOCK_MONOTONIC.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

#include "faults.hpp"
#include "layouts.hpp"
#include "spin.hpp"

namespace hvd::shared_info {

#if defined(__x86_64__)
inline constexpr std::size_t largest_page = page_size;
#else
inline constexpr std::size_t largest_page = 65'536;
#endif

alignas(largest_page) __attribute__((visibility("hidden"))) inline std::byte page[largest_page];

/// Words of the page.
inline constexpr std::size_t version_offset = 0, started_offset = 8, paused_offset = 16, trace_switch_offset = 48;

template <typename T>
T& at(std::size_t offset) {
    return *reinterpret_cast<T*>(page + offset);
}

/// Maps the page that `fd` is. Once in a process, and for as long as it lives.
inline void map(int fd) {
    const auto kernel_page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    if (reinterpret_cast<std::uintptr_t>(page) % kernel_page != 0 || kernel_page > largest_page) {
        throw LocalError("pages of " + std::to_string(kernel_page) + " bytes are larger than this library was built for");
    }
    if (::mmap(page, page_size, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) {
        throw LocalError(std::string("the shared info page cannot be mapped: ") + std::strerror(errno));
    }
}

/// Nanoseconds that this domain has run, pauses left out.
inline std::int64_t system_time_ns() {
    constexpr int tries = 1000;  // the broker writes while we are stopped, or dies while it writes and does it again
    std::int64_t stood_ns = 0;
    for (int i = 0; i < tries; ++i) {
        const auto version = load_acquire(at<std::uint64_t>(version_offset));
        stood_ns = load_acquire(at<std::int64_t>(started_offset)) + load_acquire(at<std::int64_t>(paused_offset));
        if (version % 2 == 0 && load_acquire(at<std::uint64_t>(version_offset)) == version) {
            break;
        }
    }
    return now_ns() - stood_ns;
}

}  // namespace hvd::shared_info
