// A console ring between two threads, both streams at once, for the sanitizers: every byte arrives once and in order.
#include <cstdint>
#include <thread>
#include <vector>

#include "../../transport/native/console_ring.hpp"
#include "expect.hpp"

namespace {

constexpr std::uint32_t bytes_each_way = 2'000'000;

std::byte nth(std::uint32_t number) { return static_cast<std::byte>(number * 2654435761U >> 24); }

/// Writes the whole sequence and reads the other end's, in uneven pieces.
void converse(hvd::ConsoleRing& ring, std::uint32_t piece) {
    std::vector<std::byte> buffer(4096);
    std::uint32_t written = 0;
    std::uint32_t read = 0;
    while (written < bytes_each_way || read < bytes_each_way) {
        const std::uint32_t offered = std::min(piece, bytes_each_way - written);
        for (std::uint32_t i = 0; i < offered; ++i) {
            buffer[i] = nth(written + i);
        }
        written += ring.write(buffer.data(), offered);
        const std::uint32_t ready = ring.unconsumed();
        ring.peek(buffer.data(), ready);
        ring.consume(ready);
        for (std::uint32_t i = 0; i < ready; ++i) {
            EXPECT(buffer[i] == nth(read + i));
        }
        read += ready;
        if (ready == 0) {
            std::this_thread::yield();
        }
    }
}

/// A peer that writes anything into the index words cannot make us touch memory outside the page.
void talk_to_a_liar() {
    std::vector<std::byte> page(sizeof(hvd::ConsoleInterface));
    std::vector<std::byte> buffer(4096);
    auto* words = reinterpret_cast<std::uint32_t*>(page.data() + offsetof(hvd::ConsoleInterface, in_cons));
    for (std::uint32_t seed = 1; seed < 20'000; ++seed) {
        hvd::ConsoleRing ring(seed % 2 == 0 ? hvd::RingEnd::front : hvd::RingEnd::back, page);
        for (int i = 0; i < 4; ++i) {
            words[i] = (seed * 2654435761U) >> ((seed + static_cast<unsigned>(i)) % 32U);
        }
        try {
            ring.write(buffer.data(), seed % 4096);
            const std::uint32_t ready = ring.unconsumed();
            ring.peek(buffer.data(), ready);
            ring.consume(ready);
            ring.copy_in_flight(buffer.data(), ring.in_flight());
        } catch (const hvd::PeerFault&) {
        }
    }
}

}  // namespace

int main() {
    start_watchdog();
    std::vector<std::byte> page(sizeof(hvd::ConsoleInterface));
    hvd::ConsoleRing front(hvd::RingEnd::front, page);
    hvd::ConsoleRing back(hvd::RingEnd::back, page);
    std::thread other([&] { converse(back, 700); });
    converse(front, 1900);
    other.join();
    talk_to_a_liar();
}
