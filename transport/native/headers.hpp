// What the first bytes of an Ethernet frame say: addresses, VLAN, IP, TCP and UDP, as far as a switch decides by them.
//
// Nothing is trusted: each field is read behind a comparison of its place with how many bytes there are. What contradicts itself, or
// hides its ports behind more than `Frame::head_max` bytes of headers, is `malformed`: nobody who filters lets it pass.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "netif.hpp"

namespace hvd::netif {

inline constexpr std::uint16_t type_ipv4 = 0x0800, type_arp = 0x0806, type_vlan = 0x8100, type_service_vlan = 0x88a8, type_ipv6 = 0x86dd, type_loopback = 0x9000;
inline constexpr std::uint8_t protocol_tcp = 6, protocol_udp = 17, protocol_icmpv6 = 58;
inline constexpr std::size_t ethernet_bytes = 14, vlan_tag_bytes = 4;

using IpAddress = std::array<std::uint8_t, 16>;  ///< IPv4's are the first four bytes

inline bool is_group(const Address& address) { return (address[0] & 1) != 0; }

/// Network byte order.
inline std::uint16_t word_at(std::span<const std::byte> bytes, std::size_t at) {
    return static_cast<std::uint16_t>(static_cast<unsigned>(bytes[at]) << 8 | static_cast<unsigned>(bytes[at + 1]));
}
inline void set_word(std::byte* at, std::uint16_t value) {
    at[0] = static_cast<std::byte>(value >> 8);
    at[1] = static_cast<std::byte>(value & 0xff);
}

struct Headers {
    Address destination{};
    Address source{};
    std::uint16_t type = 0;       ///< behind the VLAN tag, if there is one
    std::uint16_t tag = 0;        ///< the VLAN tag's control word
    bool tagged = false;
    bool malformed = false;
    bool has_ports = false;
    bool later_fragment = false;  ///< not the first: it has no transport header
    bool fragment = false;
    std::uint8_t version = 0;     ///< of IP; 0: it is none
    std::uint8_t protocol = 0;
    IpAddress from{};
    IpAddress to{};
    std::uint16_t source_port = 0;
    std::uint16_t destination_port = 0;
    std::size_t network = ethernet_bytes;  ///< where IP's header begins
    std::size_t transport = 0;             ///< where TCP's or UDP's begins
    std::size_t network_bytes = 0;         ///< of IP's whole packet, as it says itself

    std::uint16_t vlan() const { return tag & 0x0fff; }
};

namespace detail {

inline void parse_ports(Headers& out, std::span<const std::byte> head) {
    constexpr std::uint8_t udp_lite = 136, sctp = 132, dccp = 33;
    const std::uint8_t p = out.protocol;
    if (out.later_fragment || !(p == protocol_tcp || p == protocol_udp || p == udp_lite || p == sctp || p == dccp)) {
        return;
    }
    if (out.transport + 4 > head.size() || out.transport + 4 > out.network + out.network_bytes) {
        out.malformed = true;
        return;
    }
    out.has_ports = true;
    out.source_port = word_at(head, out.transport);
    out.destination_port = word_at(head, out.transport + 2);
}

inline void parse_ipv4(Headers& out, std::span<const std::byte> head, std::size_t frame_bytes) {
    const std::size_t at = out.network;
    out.version = 4;
    if (head.size() < at + 20 || static_cast<unsigned>(head[at]) >> 4 != 4) {
        out.malformed = true;
        return;
    }
    const std::size_t header_bytes = (static_cast<std::size_t>(head[at]) & 0x0f) * 4;
    out.network_bytes = word_at(head, at + 2);
    if (header_bytes < 20 || out.network_bytes < header_bytes || at + out.network_bytes > frame_bytes) {
        out.malformed = true;
        return;
    }
    const unsigned fragment = word_at(head, at + 6);
    out.later_fragment = (fragment & 0x1fff) != 0;
    out.fragment = out.later_fragment || (fragment & 0x2000) != 0;
    out.protocol = static_cast<std::uint8_t>(head[at + 9]);
    std::memcpy(out.from.data(), &head[at + 12], 4);
    std::memcpy(out.to.data(), &head[at + 16], 4);
    out.transport = at + header_bytes;
    parse_ports(out, head);
}

/// Follows the extension headers; false when they do not end within the head, which has nothing from behind the packet.
inline bool skip_extensions(Headers& out, std::span<const std::byte> head) {
    constexpr std::uint8_t hop_by_hop = 0, routing = 43, fragment = 44, authentication = 51, destination = 60;
    constexpr int extensions_max = 8;
    for (int count = 0; count <= extensions_max; ++count) {
        const std::uint8_t kind = out.protocol;
        if (kind != hop_by_hop && kind != routing && kind != fragment && kind != authentication && kind != destination) {
            return true;
        }
        if (out.transport + 8 > head.size()) {
            return false;
        }
        const auto length = static_cast<std::size_t>(head[out.transport + 1]);
        if (kind == fragment) {
            const unsigned word = word_at(head, out.transport + 2);
            out.fragment = (word & 0xfff9) != 0;
            out.later_fragment = (word & 0xfff8) != 0;
        }
        out.protocol = static_cast<std::uint8_t>(head[out.transport]);
        out.transport += kind == fragment ? 8 : kind == authentication ? (length + 2) * 4 : (length + 1) * 8;
        if (out.transport > out.network + out.network_bytes) {
            return false;
        }
        if (out.later_fragment) {
            return true;
        }
    }
    return false;
}

inline void parse_ipv6(Headers& out, std::span<const std::byte> head, std::size_t frame_bytes) {
    const std::size_t at = out.network;
    out.version = 6;
    if (head.size() < at + 40 || static_cast<unsigned>(head[at]) >> 4 != 6) {
        out.malformed = true;
        return;
    }
    out.network_bytes = std::size_t{40} + word_at(head, at + 4);
    std::memcpy(out.from.data(), &head[at + 8], 16);
    std::memcpy(out.to.data(), &head[at + 24], 16);
    out.protocol = static_cast<std::uint8_t>(head[at + 6]);
    out.transport = at + 40;
    if (at + out.network_bytes > frame_bytes) {
        out.malformed = true;
        return;
    }
    // What the frame has behind the packet must not stand for headers that another fragment brings.
    const auto own = head.first(std::min(head.size(), at + out.network_bytes));
    if (!skip_extensions(out, own)) {
        out.malformed = true;
        return;
    }
    parse_ports(out, own);
}

}  // namespace detail

/// The addresses, the type, and the VLAN tag. `head` has 14 bytes at least. Who removes the tag sets `network` anew.
inline Headers parse_ethernet(std::span<const std::byte> head) {
    Headers out;
    std::memcpy(out.destination.data(), head.data(), 6);
    std::memcpy(out.source.data(), &head[6], 6);
    out.type = word_at(head, 12);
    if (out.type == type_vlan) {
        out.tagged = true;
        out.malformed = head.size() < ethernet_bytes + vlan_tag_bytes;
        out.tag = out.malformed ? std::uint16_t{0} : word_at(head, 14);
        out.type = out.malformed ? std::uint16_t{0} : word_at(head, 16);
        out.network += vlan_tag_bytes;
    }
    // A second tag would hide from rules what its receiver's kernel takes off.
    out.malformed |= out.type == type_service_vlan || (out.tagged && out.type == type_vlan);
    return out;
}

/// What is behind the type, of a frame that has so many bytes in all.
inline void parse_network(Headers& out, std::span<const std::byte> head, std::size_t frame_bytes) {
    if (out.type == type_ipv4) {
        detail::parse_ipv4(out, head, frame_bytes);
    } else if (out.type == type_ipv6) {
        detail::parse_ipv6(out, head, frame_bytes);
    }
}

}  // namespace hvd::netif
