// The fuzzer's bytes as the choices of a target. What is not there any more is zero, so that every input means something.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace fuzz {

class Input {
public:
    Input(const std::uint8_t* data, std::size_t size) : left_(data, size) {}

    bool more() const { return !left_.empty(); }

    template <class Number>
    Number number() {
        Number value{};
        bytes({reinterpret_cast<std::byte*>(&value), sizeof value});
        return value;
    }

    /// From 0 to `count` - 1, of one byte.
    std::size_t below(std::size_t count) { return number<std::uint8_t>() % count; }
    bool flag() { return (number<std::uint8_t>() & 1) != 0; }

    /// Fills `to`.
    void bytes(std::span<std::byte> to) {
        const std::size_t count = std::min(to.size(), left_.size());
        if (count != 0) {
            std::memcpy(to.data(), left_.data(), count);
            left_ = left_.subspan(count);
        }
        std::fill(to.begin() + static_cast<std::ptrdiff_t>(count), to.end(), std::byte{0});
    }

private:
    std::span<const std::uint8_t> left_;
};

}  // namespace fuzz
