// What a receiver that takes no offload is given: checksums filled in, TCP cut into segments. In software, as a network card would.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>

#include "frame.hpp"
#include "headers.hpp"

namespace hvd::netif {

/// The sum of 16-bit words in network byte order; an odd byte counts as the upper half of one.
inline std::uint64_t sum_words(std::span<const std::byte> bytes, std::uint64_t sum = 0) {
    std::size_t at = 0;
    std::uint64_t host = 0;
    for (; at + 8 <= bytes.size(); at += 8) {
        std::uint32_t words[2];
        std::memcpy(words, &bytes[at], sizeof words);
        host += std::uint64_t{words[0]} + words[1];
    }
    for (; at + 2 <= bytes.size(); at += 2) {
        std::uint16_t word;
        std::memcpy(&word, &bytes[at], sizeof word);
        host += word;
    }
    while (host >> 16 != 0) {
        host = (host & 0xffff) + (host >> 16);
    }
    sum += (host & 0xff) << 8 | host >> 8;  // a sum of words read in the other order is the sum, in the other order
    return at < bytes.size() ? sum + (std::uint64_t{static_cast<std::uint8_t>(bytes[at])} << 8) : sum;
}

inline std::uint16_t fold(std::uint64_t sum) {
    while (sum >> 16 != 0) {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return static_cast<std::uint16_t>(~sum);
}

/// Where TCP's or UDP's checksum lies; nothing if the packet is neither, or is not whole.
inline std::optional<std::size_t> checksum_place(const Headers& packet) {
    if (packet.malformed || packet.fragment || (packet.protocol != protocol_tcp && packet.protocol != protocol_udp)) {
        return std::nullopt;
    }
    const std::size_t at = packet.transport + (packet.protocol == protocol_tcp ? 16 : 6);
    const std::size_t least = packet.transport + (packet.protocol == protocol_tcp ? 20 : 8);
    return least <= packet.network + packet.network_bytes && least <= Frame::head_max ? std::optional(at) : std::nullopt;
}

/// Where the payload of a TCP segment begins; nothing if its header is not whole.
inline std::optional<std::size_t> payload_place(const Headers& packet, std::span<const std::byte> bytes) {
    constexpr std::size_t offset_at = 12, header_bytes_least = 20;
    if (!checksum_place(packet) || packet.protocol != protocol_tcp || packet.transport + offset_at >= bytes.size()) {
        return std::nullopt;
    }
    const std::size_t header_bytes = (static_cast<std::size_t>(bytes[packet.transport + offset_at]) >> 4) * 4;
    const std::size_t at = packet.transport + header_bytes;
    const bool whole = header_bytes >= header_bytes_least && at <= Frame::head_max && at <= packet.network + packet.network_bytes;
    return whole ? std::optional(at) : std::nullopt;
}

/// Fills in the checksum of a whole packet, laid out as `packet` says, whose transport part ends with it.
inline void write_checksum(std::span<std::byte> bytes, const Headers& packet, std::size_t place) {
    const std::size_t end = packet.network + packet.network_bytes;
    const std::size_t length = end - packet.transport;
    set_word(&bytes[place], 0);
    const std::size_t address_bytes = packet.version == 4 ? 8 : 32;
    const std::size_t addresses = packet.network + (packet.version == 4 ? 12 : 8);
    std::uint64_t sum = packet.protocol + (length >> 16) + (length & 0xffff);
    sum = sum_words(bytes.subspan(addresses, address_bytes), sum);
    sum = sum_words(bytes.subspan(packet.transport, length), sum);
    const std::uint16_t checksum = fold(sum);
    set_word(&bytes[place], checksum == 0 && packet.protocol == protocol_udp ? std::uint16_t{0xffff} : checksum);
}

inline void write_ipv4_checksum(std::span<std::byte> bytes, const Headers& packet) {
    set_word(&bytes[packet.network + 10], 0);
    set_word(&bytes[packet.network + 10], fold(sum_words(bytes.subspan(packet.network, packet.transport - packet.network))));
}

/// Makes of a packet what its receiver takes, in memory of its own.
class Finisher {
public:
    static constexpr std::uint32_t segments_max = 512;

    /// Gives `to(frame)` the packet with its checksum, or each of its segments; false if it cannot be done, and nothing was given.
    template <class To>
    bool finish(const Frame& frame, const Headers& packet, bool cut, To&& to) {
        const auto place = checksum_place(packet);
        if (!place || packet.network + packet.network_bytes > frame.size()) {
            return false;
        }
        const std::span<std::byte> whole(whole_.get(), frame.size());
        Frame::Reader(frame).copy(whole.data(), whole.size());
        if (cut) {
            return segment(whole, packet, *place, frame.offload.gso_size, to);
        }
        write_checksum(whole, packet, *place);
        Offload offload = frame.offload;
        offload.csum_blank = false;
        give(whole, offload, to);
        return true;
    }

private:
    static constexpr unsigned fin = 1, push = 8, congestion_window_reduced = 128;

    template <class To>
    bool segment(std::span<const std::byte> whole, const Headers& packet, std::size_t place, std::size_t size, To&& to) {
        const auto payload_at = payload_place(packet, whole);
        const std::size_t end = packet.network + packet.network_bytes;
        if (!payload_at || size == 0 || (end - *payload_at) / size >= segments_max) {
            return false;
        }
        const std::size_t header = *payload_at;
        std::uint32_t number = 0;
        for (std::size_t at = header;; at += size, ++number) {
            const std::size_t payload = std::min(size, end - at);
            const std::span<std::byte> one(piece_.get(), header + payload);
            std::memcpy(one.data(), whole.data(), header);
            std::memcpy(one.data() + header, whole.data() + at, payload);
            const bool last = at + payload == end;
            finish_segment(one, packet, place, number, static_cast<std::uint32_t>(at - header), last);
            give(one, Offload{false, true, gso_none, 0}, to);
            if (last) {
                return true;
            }
        }
    }

    static void finish_segment(std::span<std::byte> one, Headers packet, std::size_t place, std::uint32_t number, std::uint32_t offset, bool last) {
        const std::size_t network = packet.network;
        packet.network_bytes = one.size() - network;
        if (packet.version == 4) {
            set_word(&one[network + 2], static_cast<std::uint16_t>(packet.network_bytes));
            set_word(&one[network + 4], static_cast<std::uint16_t>(word_at(one, network + 4) + number));
            write_ipv4_checksum(one, packet);
        } else {
            set_word(&one[network + 4], static_cast<std::uint16_t>(packet.network_bytes - 40));
        }
        const std::size_t tcp = packet.transport;
        const std::uint32_t sequence = (std::uint32_t{word_at(one, tcp + 4)} << 16 | word_at(one, tcp + 6)) + offset;
        set_word(&one[tcp + 4], static_cast<std::uint16_t>(sequence >> 16));
        set_word(&one[tcp + 6], static_cast<std::uint16_t>(sequence & 0xffff));
        auto flags = static_cast<unsigned>(one[tcp + 13]);
        flags &= last ? ~0U : ~(fin | push);
        flags &= number == 0 ? ~0U : ~congestion_window_reduced;
        one[tcp + 13] = static_cast<std::byte>(flags);
        write_checksum(one, packet, place);
    }

    template <class To>
    void give(std::span<const std::byte> bytes, const Offload& offload, To&& to) {
        out_.begin(offload);
        out_.add(bytes);
        out_.seal();
        to(out_);
    }

    std::unique_ptr<std::byte[]> whole_ = std::make_unique_for_overwrite<std::byte[]>(packet_bytes_max + 4);
    std::unique_ptr<std::byte[]> piece_ = std::make_unique_for_overwrite<std::byte[]>(packet_bytes_max + 4);
    Frame out_;
};

}  // namespace hvd::netif
