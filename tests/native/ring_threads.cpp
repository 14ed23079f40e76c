// The ring without Python: two threads as the two ends, and every hostile index over memory that ends where the ring does.
#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "../../transport/native/ring.hpp"
#include "expect.hpp"

namespace {

using hvd::Ring;
using hvd::RingEnd;

constexpr hvd::RingShape shape{64, 24, 64};
constexpr std::uint64_t rounds = 60'000;

/// Allocated to the byte, so that AddressSanitizer sees whatever lies beyond.
struct Memory {
    explicit Memory(std::size_t bytes) : words((bytes + 7) / 8), size(bytes) {}
    std::span<std::byte> span() { return {reinterpret_cast<std::byte*>(words.data()), size}; }
    hvd::RingHeader& header() { return *reinterpret_cast<hvd::RingHeader*>(words.data()); }
    std::vector<std::uint64_t> words;
    std::size_t size;
};

template <std::size_t words>
std::array<std::uint64_t, words> message_of(std::uint64_t number) {
    std::array<std::uint64_t, words> message;
    for (std::size_t i = 0; i < words; ++i) {
        message[i] = number * 31 + i;
    }
    return message;
}

void serve(Memory& memory, std::uint32_t start, bool checked) {
    Ring back(RingEnd::back, memory.span(), shape, checked);
    back.attach(start);
    std::array<std::uint64_t, 8> request;
    for (std::uint64_t served = 0; served < rounds;) {
        while (back.pop_many(request.data(), 1) == 1) {
            EXPECT(request == message_of<8>(served));
            const auto response = message_of<3>(served++);
            back.push(response.data(), sizeof response);
        }
        back.final_check();
        std::this_thread::yield();
    }
}

void two_threads_see_every_message_whole_and_in_order(bool checked) {
    constexpr std::uint32_t start = 0xFFFF'F000;
    Memory memory(64 + 8 * shape.slot_size);
    memory.header() = {start, start + 1, start, start + 1, {}, ~start, ~start, {}};
    std::thread server(serve, std::ref(memory), start, checked);
    Ring front(RingEnd::front, memory.span(), shape, checked);
    front.attach(start);
    std::uint64_t asked = 0;
    std::uint64_t collected = 0;
    std::array<std::uint64_t, 3> response;
    while (collected < rounds) {
        while (asked < rounds && front.free() != 0) {
            const auto request = message_of<8>(asked++);
            front.push(request.data(), sizeof request);
        }
        while (front.pop_many(response.data(), 1) == 1) {
            EXPECT(response == message_of<3>(collected++));
        }
        front.final_check();
        std::this_thread::yield();
    }
    server.join();
}

/// Whatever the four words say, an end takes at most a ring full and stays within its memory.
void any_words_keep_within_bounds() {
    std::mt19937 engine(20261122);
    const auto random = [&] { return static_cast<std::uint32_t>(engine()); };
    std::vector<std::byte> taken(64 * shape.slot_size);
    for (int i = 0; i < 20'000; ++i) {
        Memory memory(64 + 4 * shape.slot_size);
        Ring ring(i % 2 == 0 ? RingEnd::front : RingEnd::back, memory.span(), shape);
        const std::uint32_t start = random();
        ring.attach(start);
        for (int step = 0; step < 8; ++step) {
            const auto word = [&] { return random() % 2 == 0 ? random() : start + random() % 16 - 8; };
            memory.header() = {word(), word(), word(), word(), {}, word(), word(), {}};
            try {
                EXPECT(ring.pop_many(taken.data(), 64) <= ring.size());
                ring.push_many(taken.data(), random() % 8);
                ring.final_check();
            } catch (const hvd::PeerFault&) {
                EXPECT(!ring.has_work());
                expect_throw<hvd::PeerFault>([&] { ring.unconsumed(); }, "a broken ring");
                break;
            }
        }
    }
}

void odd_sizes_copy_every_byte_and_none_beside() {
    for (std::size_t size = 1; size <= 40; ++size) {
        Memory memory(64 + 2 * size);
        const hvd::RingShape odd{size, size, size};
        Ring front(RingEnd::front, memory.span(), odd);
        front.init();
        Ring back(RingEnd::back, memory.span(), odd);
        std::vector<std::uint8_t> sent(size, 0xA5);
        auto received = std::make_unique<std::uint8_t[]>(size);
        for (int round = 0; round < 3; ++round) {
            front.push(sent.data(), size);
            EXPECT(back.pop_many(received.get(), 1) == 1);
            EXPECT(std::memcmp(sent.data(), received.get(), size) == 0);
            back.push(received.get(), size - 1);
            EXPECT(front.pop_many(received.get(), 1) == 1);
            EXPECT(received[size - 1] == 0);
        }
    }
}

}  // namespace

int main() {
    start_watchdog();
    two_threads_see_every_message_whole_and_in_order(false);
    two_threads_see_every_message_whole_and_in_order(true);
    any_words_keep_within_bounds();
    odd_sizes_copy_every_byte_and_none_beside();
    return 0;
}
