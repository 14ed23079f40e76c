// Trace buffers without Python: writers that lap each other while a reader copies, and what rings and doorbells record.
#include <sys/mman.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "../../transport/native/doorbell.hpp"
#include "../../transport/native/ring.hpp"
#include "../../transport/native/trace.hpp"
#include "expect.hpp"

namespace {

namespace trace = hvd::trace;
using trace::Kind;
using trace::Record;

/// Allocated to the byte, so that AddressSanitizer sees whatever lies beyond.
struct Memory {
    Memory() : words(std::make_unique<std::uint64_t[]>(trace::buffer_bytes / 8)) {}
    std::byte* bytes() { return reinterpret_cast<std::byte*>(words.get()); }
    std::uint64_t& head() { return words[0]; }
    Record& slot(std::uint64_t n) {
        return reinterpret_cast<Record*>(bytes() + trace::header_bytes)[n & (trace::records - 1)];
    }
    std::unique_ptr<std::uint64_t[]> words;
};

std::uint64_t load(std::uint64_t& word) { return std::atomic_ref<std::uint64_t>(word).load(std::memory_order_acquire); }

/// What a reader does (transport/trace.py, toolstack/trace/track.py): true where record n was whole when it was copied.
bool copy_whole(Memory& memory, std::uint64_t n, Record& copy) {
    Record& slot = memory.slot(n);
    copy.sequence = load(slot.sequence);
    copy.ticks = load(slot.ticks);
    copy.id = load(slot.id);
    copy.what = load(slot.what);
    return copy.sequence == n + 1 && load(memory.head()) <= n + trace::records;
}

void whatever_a_reader_finds_whole_was_written_as_it_is() {
    constexpr std::uint64_t count = 400'000;
    Memory memory;
    trace::Buffer buffer(memory.bytes(), trace::buffer_bytes);
    std::atomic<bool> writing = true;
    std::thread writer([&] {
        for (std::uint64_t i = 0; i < count; ++i) {
            buffer.record(Kind::notify, 3, i * 3, static_cast<std::uint32_t>(i % 65'536), trace::monotonic);
        }
        writing = false;
    });
    std::uint64_t whole = 0;
    while (writing) {
        const std::uint64_t head = load(memory.head());
        for (std::uint64_t n = head > trace::records ? head - trace::records : 0; n < head; n += 7) {
            Record copy;
            if (copy_whole(memory, n, copy)) {
                EXPECT(copy.id == n * 3 && copy.what == (std::uint64_t{1} << 48 | n % 65'536 << 32 | 3));
                ++whole;
            }
        }
    }
    writer.join();
    EXPECT(whole > 0 && memory.head() == count);
}

void every_writer_gets_slots_of_its_own() {
    constexpr std::uint64_t each = trace::records / 2;
    Memory memory;
    trace::Buffer buffer(memory.bytes(), trace::buffer_bytes);
    const auto write = [&](std::uint32_t port) {
        for (std::uint64_t i = 0; i < each; ++i) {
            buffer.record(Kind::notify, port, i, 0, trace::monotonic);
        }
    };
    std::thread one(write, 0);
    std::thread two(write, 1);
    one.join();
    two.join();
    std::array<std::uint64_t, 2> next{};
    for (std::uint64_t n = 0; n < trace::records; ++n) {
        Record copy;
        EXPECT(copy_whole(memory, n, copy) && copy.id == next[copy.what & 1]++);
    }
}

/// The domain has this memory: it may write anything there, and its own writer stays within the buffer.
void any_head_is_harmless() {
    Memory memory;
    trace::Buffer buffer(memory.bytes(), trace::buffer_bytes);
    for (const std::uint64_t head : {~std::uint64_t{0}, std::uint64_t{1} << 63, trace::records - 1, std::uint64_t{12'345}}) {
        memory.head() = head;
        buffer.record(Kind::event, 1, 2, 3, trace::monotonic);
        EXPECT(memory.slot(head).sequence == head + 1 && memory.slot(head).id == 2);
    }
}

struct Written {
    Kind kind;
    std::uint32_t port;
    std::uint64_t id;
    std::uint32_t count;
    bool operator==(const Written&) const = default;
};

std::vector<Written> take(Memory& memory) {
    std::vector<Written> found;
    for (std::uint64_t n = 0; n < memory.head(); ++n) {
        const Record& slot = memory.slot(n);
        EXPECT(slot.sequence == n + 1);
        found.push_back({static_cast<Kind>(slot.what >> 48), static_cast<std::uint32_t>(slot.what), slot.id,
                         static_cast<std::uint32_t>(slot.what >> 32 & 0xFFFF)});
    }
    memory.head() = 0;
    return found;
}

/// As in a domain, whose switch the broker turns.
struct Traced {
    Traced() : buffer(memory.bytes(), trace::buffer_bytes) {
        trace::own_buffer = &buffer;
        trace::switch_word() = trace::monotonic;
    }
    ~Traced() {
        trace::switch_word() = trace::off;
        trace::own_buffer = nullptr;
    }
    Memory memory;
    trace::Buffer buffer;
};

struct Pair {
    static constexpr hvd::RingShape shape{24, 24, 24};
    Pair() : front(hvd::RingEnd::front, span(), shape), back(hvd::RingEnd::back, span(), shape) {
        front.init();
        front.trace_port = 4;
        back.trace_port = 9;
    }
    std::span<std::byte> span() { return {reinterpret_cast<std::byte*>(words.data()), sizeof words}; }
    alignas(64) std::array<std::uint64_t, 64> words{};
    hvd::Ring front;
    hvd::Ring back;
};

void a_ring_records_runs_of_indices() {
    Traced traced;
    Pair pair;
    std::array<std::uint64_t, 12> messages{};
    pair.front.push_many(messages.data(), 3);
    pair.back.pop_many(messages.data(), 2);
    pair.back.push(messages.data(), 24);
    pair.front.pop_many(messages.data(), 9);
    EXPECT((take(traced.memory) == std::vector<Written>{{Kind::request_out, 4, 0, 3},
                                                        {Kind::request_in, 9, 0, 2},
                                                        {Kind::response_out, 9, 0, 1},
                                                        {Kind::response_in, 4, 0, 1}}));
    pair.back.push(messages.data(), 24);
    EXPECT((take(traced.memory) == std::vector<Written>{{Kind::response_out, 9, 1, 1}}));
    EXPECT(pair.back.pop_many(messages.data(), 0) == 0 && take(traced.memory).empty());
}

void a_ring_whose_messages_have_ids_records_each() {
    Traced traced;
    Pair pair;
    pair.front.name_messages_by(8, 0);
    pair.back.name_messages_by(8, 0);
    std::array<std::uint64_t, 6> messages{0, 71, 0, 0, 72, 0};
    pair.front.push_many(messages.data(), 2);
    pair.back.pop_many(messages.data(), 2);
    const std::array<std::uint64_t, 6> answers{72, 0, 0, 71, 0, 0};  // in another order
    pair.back.push_many(answers.data(), 2);
    pair.front.pop_many(messages.data(), 2);
    EXPECT((take(traced.memory) == std::vector<Written>{{Kind::request_out, 4, 71, 0},
                                                        {Kind::request_out, 4, 72, 0},
                                                        {Kind::request_in, 9, 71, 0},
                                                        {Kind::request_in, 9, 72, 0},
                                                        {Kind::response_out, 9, 72, 0},
                                                        {Kind::response_out, 9, 71, 0},
                                                        {Kind::response_in, 4, 72, 0},
                                                        {Kind::response_in, 4, 71, 0}}));
    expect_throw<hvd::LocalError>([&] { pair.front.name_messages_by(17, 0); }, "an id beyond its message");
}

void a_doorbell_records_what_is_rung_and_what_is_taken() {
    Traced traced;
    hvd::ChannelPage page{};
    hvd::Doorbell here(reinterpret_cast<std::byte*>(&page), sizeof page, 0, -1, -1);
    hvd::Doorbell there(reinterpret_cast<std::byte*>(&page), sizeof page, 1, -1, -1);
    here.trace_port = 2;
    there.trace_port = 7;
    EXPECT(!there.take());
    here.notify();
    here.kick();
    EXPECT(there.take());
    EXPECT((take(traced.memory) ==
            std::vector<Written>{{Kind::notify, 2, 0, 0}, {Kind::notify, 2, 0, 0}, {Kind::event, 7, 0, 0}}));
    EXPECT(here.statistics().notified == 2);
    trace::switch_word() = trace::off;
    here.notify();
    EXPECT(there.take() && take(traced.memory).empty() && here.statistics().notified == 3);
}

void runs_longer_than_a_count_are_several_records() {
    Traced traced;
    trace::record_run(Kind::request_out, 1, 0xFFFF'FFF0, 70'000);
    EXPECT((take(traced.memory) == std::vector<Written>{{Kind::request_out, 1, 0xFFFF'FFF0, 65'535},
                                                        {Kind::request_out, 1, 65'519, 4'465}}));
}

void what_is_too_small_is_no_buffer() {
    std::uint64_t word = 0;
    expect_throw<hvd::LocalError>([&] { trace::Buffer(reinterpret_cast<std::byte*>(&word), 8); }, "a buffer of 8 bytes");
}

}  // namespace

int main() {
    start_watchdog();
    whatever_a_reader_finds_whole_was_written_as_it_is();
    every_writer_gets_slots_of_its_own();
    any_head_is_harmless();
    a_ring_records_runs_of_indices();
    a_ring_whose_messages_have_ids_records_each();
    a_doorbell_records_what_is_rung_and_what_is_taken();
    runs_longer_than_a_count_are_several_records();
    what_is_too_small_is_no_buffer();
    return 0;
}
