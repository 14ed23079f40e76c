// What a process did, record by record, in a buffer that it shares with the broker and that outlives it.
//
//   off:     one load, and one branch that is not taken
//   writer:  n = head++;  slot[n].sequence = 0;  then the rest of slot[n];  then slot[n].sequence = n + 1
//   reader:  end = head;  copy;  then what lies further than the capacity behind head by now may be torn: drop it
//
// The oldest records are overwritten. Whoever dies in the middle leaves a record whose sequence does not fit. Writers may
// be several, each with slots of its own; one that sleeps in the middle for a whole lap mixes its record with a later one.
//
// The switch is a word of the shared info page, which the broker writes.
//
// Why every raw access is in bounds: slots are addressed by `n & (records - 1)` in a mapping of `buffer_bytes`. The head
// lies in memory that the broker has too, and any value of it is harmless.
#pragma once

#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>

#if defined(__x86_64__)
#include <x86intrin.h>
#endif

#include "faults.hpp"
#include "layouts.hpp"
#include "shared_info.hpp"

namespace hvd::trace {

enum class Kind : std::uint8_t {
    notify = 1,        // this port's peer was notified
    event = 2,         // an event of this port was taken
    request_out = 3,   // put into the ring of this port, not yet published
    request_in = 4,    // copied out of it
    response_out = 5,
    response_in = 6,
    // The broker's own, written by its loop:
    hypercall = 7,       // id: its sequence number; port: the caller's domid; count: its number
    hypercall_done = 8,  // count: errno
    port_bound = 9,      // id: channel << 32 | domid; port; count: side
    broker = 10,         // id: pid of the one that writes from here on
};

/// Values of the switch: which clock the records carry.
enum Clock : std::uint32_t { off = 0, monotonic = 1, counter = 2 };
/// In the switch; its other bits are event_faults.hpp's.
inline constexpr std::uint32_t clock_mask = 0xff;

/// `count` 0: one message whose own id is `id`. Else `count` messages with the ring indices from `id` on.
struct Record {
    std::uint64_t sequence;
    std::uint64_t ticks;
    std::uint64_t id;
    std::uint64_t what;  // port, count << 32, kind << 48
};
static_assert(sizeof(Record) == 32);

inline constexpr std::uint64_t records = 32'768;
inline constexpr std::size_t header_bytes = page_size;
inline constexpr std::size_t buffer_bytes = header_bytes + records * sizeof(Record);
static_assert((records & (records - 1)) == 0);

inline std::uint32_t& switch_word() { return shared_info::at<std::uint32_t>(shared_info::trace_switch_offset); }

/// Whether somebody traces us, or has our notifications fail. Said to the compiler in assembly where it would take three instructions for two.
inline bool on() {
#if defined(HVD_WITHOUT_TRACE)  // for the test that counts what it costs
    return false;
#elif defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
    bool is_on;
    asm volatile("cmpl $0, %1" : "=@ccne"(is_on) : "m"(switch_word()));
    return is_on;
#else
    return load_relaxed(switch_word()) != off;
#endif
}

inline std::uint64_t monotonic_ns() {
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000U + static_cast<std::uint64_t>(now.tv_nsec);
}

/// The CPU's counter takes half the time of the kernel's clock, and is the same on all CPUs where the kernel trusts it.
inline std::uint64_t ticks(std::uint32_t clock) {
#if defined(__x86_64__)
    if (clock == counter) {
        return __rdtsc();
    }
#elif defined(__aarch64__)
    if (clock == counter) {
        std::uint64_t value;
        asm volatile("mrs %0, cntvct_el0" : "=r"(value));
        return value;
    }
#endif
    static_cast<void>(clock);
    return monotonic_ns();
}

class Buffer {
public:
    Buffer(std::byte* memory, std::size_t bytes) {
        if (bytes < buffer_bytes || reinterpret_cast<std::uintptr_t>(memory) % alignof(Record) != 0) {
            throw LocalError("a trace buffer holds " + std::to_string(buffer_bytes) + " bytes, aligned, not " + std::to_string(bytes));
        }
        head_ = reinterpret_cast<std::uint64_t*>(memory);
        slots_ = reinterpret_cast<Record*>(memory + header_bytes);
    }

    /// By any thread, and any process that has the memory: each takes a slot of its own.
    void record(Kind kind, std::uint32_t port, std::uint64_t id, std::uint32_t count, std::uint32_t clock) noexcept {
        const std::uint64_t n = std::atomic_ref<std::uint64_t>(*head_).fetch_add(1, std::memory_order_relaxed);
        if (n == 0) [[unlikely]] {
            map_pages();
        }
        Record& slot = slots_[n & (records - 1)];
        store_relaxed(slot.sequence, std::uint64_t{0});
        store_release(slot.ticks, ticks(clock));  // none of these before the head and the 0, none behind the sequence
        store_release(slot.id, id);
        store_release(slot.what, port | std::uint64_t{count} << 32 | static_cast<std::uint64_t>(kind) << 48);
        store_release(slot.sequence, n + 1);
    }

    /// By its owner's one thread that notifies and waits; a second one may lose counts.
    void count(std::size_t what, std::uint64_t more) noexcept {
        std::uint64_t& word = head_[counts_at + what];
        store_relaxed(word, load_relaxed(word) + more);
    }

private:
    /// Words into the first page: on a line of their own.
    static constexpr std::size_t counts_at = 16;

    /// All page faults at the first record, not one at every 128th of the first lap. Where it is refused, they come then.
    [[gnu::noinline, gnu::cold]] void map_pages() const noexcept {
        constexpr int populate_write = 23;  // MADV_POPULATE_WRITE, since Linux 5.14
        ::madvise(head_, buffer_bytes, populate_write);
    }

    std::uint64_t* head_;
    Record* slots_;
};

/// This process's buffer, if it is a domain: set once, before its switch can be on.
__attribute__((visibility("hidden"))) inline Buffer* own_buffer = nullptr;

/// What is counted in its first page while a fault is on (event_faults.hpp), and always what nobody had notified of.
enum class Count : std::size_t { dropped = 0, delayed = 1, repeated = 2, found = 3 };

inline void count(Count what, std::uint64_t more) noexcept {
    if (own_buffer != nullptr) {
        own_buffer->count(static_cast<std::size_t>(what), more);
    }
}

/// Only where `on()`; it may have been switched off since, or not for us, or there may be no buffer.
[[gnu::noinline]] inline void record(Kind kind, std::uint32_t port, std::uint64_t id, std::uint32_t count) noexcept {
    const std::uint32_t clock = load_relaxed(switch_word()) & clock_mask;
    if (own_buffer != nullptr && clock != off) {
        own_buffer->record(kind, port, id, count, clock);
    }
}

/// `count` messages with consecutive ring indices: one record for as many as its count can say.
inline void record_run(Kind kind, std::uint32_t port, std::uint32_t index, std::uint32_t count) noexcept {
    constexpr std::uint32_t most = std::numeric_limits<std::uint16_t>::max();
    for (; count != 0; count -= std::min(count, most)) {
        record(kind, port, index, std::min(count, most));
        index += std::min(count, most);
    }
}

}  // namespace hvd::trace
