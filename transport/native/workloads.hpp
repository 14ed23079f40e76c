// Work of a known amount, to be done inside a domain and outside: arithmetic, a walk through memory, a pass over pages.
#pragma once

#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

namespace hvd {

inline constexpr std::size_t cache_line = 64;

/// Arithmetic that waits for nothing but itself. Returns its last value, so that it cannot be left out.
inline std::uint64_t compute(std::uint64_t steps) {
    std::uint64_t value = 0x9e3779b97f4a7c15;
    for (std::uint64_t i = 0; i < steps; ++i) {
        value = (value ^ (value >> 31)) * 0xbf58476d1ce4e5b9 + i;
    }
    return value;
}

/// One cycle through `lines` cache lines in an order that no prefetcher guesses, always the same one.
class Walk {
public:
    explicit Walk(std::size_t lines) : next_(lines * words_per_line) {
        std::vector<std::uint64_t> order(lines);
        std::iota(order.begin(), order.end(), std::uint64_t{0});
        std::uint64_t state = 1;
        for (std::size_t i = lines; i-- > 1;) {  // Sattolo: one single cycle
            state = state * 6364136223846793005 + 1442695040888963407;
            std::swap(order[i], order[(state >> 33) % i]);
        }
        for (std::size_t i = 0; i < lines; ++i) {
            next_[i * words_per_line] = order[i] * words_per_line;
        }
    }

    /// Where it is after so many steps, each of which waits for memory.
    std::uint64_t walk(std::uint64_t steps) const {
        std::uint64_t at = 0;
        for (std::uint64_t i = 0; i < steps; ++i) {
            at = next_[at];
        }
        return at;
    }

private:
    static constexpr std::size_t words_per_line = cache_line / sizeof(std::uint64_t);
    std::vector<std::uint64_t> next_;
};

/// Reads a word of every cache line, each once (volatile: shared pages may change meanwhile). Returns their sum.
inline std::uint64_t touch_lines(std::span<const std::byte> memory) {
    std::uint64_t sum = 0;
    for (std::size_t at = 0; at + sizeof(std::uint64_t) <= memory.size(); at += cache_line) {
        sum += *reinterpret_cast<const volatile std::uint64_t*>(memory.data() + at);
    }
    return sum;
}

/// Writes a word of every cache line, so that our CPU holds them all as it would after producing them.
inline void dirty_lines(std::span<std::byte> memory, std::uint64_t value) {
    for (std::size_t at = 0; at + sizeof(std::uint64_t) <= memory.size(); at += cache_line) {
        *reinterpret_cast<volatile std::uint64_t*>(memory.data() + at) = value;
    }
}

}  // namespace hvd
