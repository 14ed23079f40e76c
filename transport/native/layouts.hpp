// What two processes see in one shared page, byte for byte, and the only functions that touch its words.
//
// Both layouts are little-endian and of fixed width, so that a C program or another language can share them.
#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace hvd {

static_assert(std::endian::native == std::endian::little, "shared pages are little-endian");
static_assert(std::atomic_ref<std::uint32_t>::is_always_lock_free, "a lock would live in one process only");

inline constexpr std::size_t page_size = 4096;

/// The head of a shared ring, as Xen's public/io/ring.h lays it out; the slots follow it. The checks lie in its padding:
/// where both ends keep them, each is the complement of its index, written before it.
struct RingHeader {
    std::uint32_t req_prod;
    std::uint32_t req_event;
    std::uint32_t rsp_prod;
    std::uint32_t rsp_event;
    std::uint8_t pvt[4];
    std::uint32_t req_check;
    std::uint32_t rsp_check;
    std::uint8_t pad[36];
};
static_assert(sizeof(RingHeader) == 64);
static_assert(offsetof(RingHeader, req_event) == 4 && offsetof(RingHeader, rsp_prod) == 8);
static_assert(offsetof(RingHeader, rsp_event) == 12 && offsetof(RingHeader, pvt) == 16);
static_assert(offsetof(RingHeader, req_check) == 20 && offsetof(RingHeader, rsp_check) == 24);

/// One direction of an event channel, written by its sender (pending, closed, sent) and its receiver (waiting, cpu).
/// Two cache lines wide, because adjacent lines are prefetched in pairs.
struct alignas(128) ChannelLine {
    std::uint32_t pending;
    std::uint32_t waiting;
    std::int32_t cpu;
    std::uint32_t closed;
    std::uint64_t sent;  // events since the sender opened its end: for whoever looks on, read by neither end
};
static_assert(sizeof(ChannelLine) == 128 && offsetof(ChannelLine, closed) == 12 && offsetof(ChannelLine, sent) == 16);

/// A channel page: side 0 receives on line 0, side 1 on line 1.
struct ChannelPage {
    ChannelLine lines[2];
};
static_assert(sizeof(ChannelPage) <= page_size);

/// `ChannelLine::waiting` says what wakes its receiver: nothing, since it is awake, a byte in the pipe, or this very word. Any
/// other value of it is the receiver's own fault, and taken for the pipe.
inline constexpr std::uint32_t awake = 0, woken_by_pipe = 1, woken_by_word = 2;

/// `ChannelLine::cpu` says where its receiver runs; negative while it sleeps, and then still says where it last ran,
/// because that is where it is likely to wake. -1 is "never ran".
inline constexpr std::int32_t cpu_unknown = -1;
constexpr std::int32_t asleep_on(std::int32_t cpu) { return -2 - cpu; }
constexpr bool is_asleep(std::int32_t word) { return word < 0; }
/// Unsigned arithmetic: the word is the peer's, and any value of it must be harmless.
constexpr std::int32_t cpu_of(std::int32_t word) {
    return word >= -1 ? word : static_cast<std::int32_t>(0U - 2U - static_cast<std::uint32_t>(word));
}

// Sequentially consistent loads and stores are the fences of the doorbell and of the ring: a store by one of them is
// ordered before every later load by one of them (xchg on x86, stlr/ldar on aarch64), and ThreadSanitizer, which does
// not know stand-alone fences, can follow them.
template <class Word>
inline Word load_relaxed(Word& word) {
    return std::atomic_ref<Word>(word).load(std::memory_order_relaxed);
}
template <class Word>
inline Word load_acquire(Word& word) {
    return std::atomic_ref<Word>(word).load(std::memory_order_acquire);
}
template <class Word>
inline Word load_fenced(Word& word) {
    return std::atomic_ref<Word>(word).load(std::memory_order_seq_cst);
}
template <class Word>
inline void store_relaxed(Word& word, Word value) {
    std::atomic_ref<Word>(word).store(value, std::memory_order_relaxed);
}
template <class Word>
inline void store_release(Word& word, Word value) {
    std::atomic_ref<Word>(word).store(value, std::memory_order_release);
}
template <class Word>
inline void store_fenced(Word& word, Word value) {
    std::atomic_ref<Word>(word).store(value, std::memory_order_seq_cst);
}
template <class Word>
inline Word exchange_fenced(Word& word, Word value) {
    return std::atomic_ref<Word>(word).exchange(value, std::memory_order_seq_cst);
}

}  // namespace hvd
