// Which flow a packet belongs to, as a number: packets of one flow take one queue, so that they stay in order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "headers.hpp"

namespace hvd::netif {

inline std::size_t flow_of(const Headers& packet) {
    std::size_t hash = packet.protocol;
    const auto mix = [&hash](std::size_t value) { hash = (hash ^ value) * 0x9e3779b97f4a7c15ULL; };
    for (std::size_t at = 0; at < packet.from.size(); at += 4) {
        std::uint32_t words[2];
        std::memcpy(&words[0], &packet.from[at], 4);
        std::memcpy(&words[1], &packet.to[at], 4);
        mix(std::size_t{words[0]} << 32 | words[1]);
    }
    mix(std::size_t{packet.source_port} << 16 | packet.destination_port);
    return hash >> 32;
}

}  // namespace hvd::netif
