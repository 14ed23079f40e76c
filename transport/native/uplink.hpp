// The switch's hand on a TAP device of the host: packets of whoever is behind it, and for them, without a ring.
//
// The device's other end is the host's kernel, which is trusted. A packet from it lies in memory of our own; one for it is handed to the
// kernel from where it lies, in one system call, and waits for nothing.
#pragma once

#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <memory>

#include "frame.hpp"
#include "vnet_header.hpp"

namespace hvd::netif {

class Uplink {
public:
    /// A TAP device's descriptor, with IFF_VNET_HDR and headers of 10 bytes, which does not block. It stays the caller's.
    explicit Uplink(int fd) : fd_(fd) {}

    enum class Taken { dry, packet, malformed };

    /// The device's next packet, which lies here until the one behind it is taken.
    Taken take(Frame& frame) {
        VnetHeader header{};
        std::array<iovec, 2> parts{{{&header, vnet_bytes_least}, {memory_.get(), bytes_max}}};
        ssize_t bytes = 0;
        do {
            bytes = ::readv(fd_, parts.data(), parts.size());
        } while (bytes < 0 && errno == EINTR);
        if (bytes <= 0) {
            return Taken::dry;
        }
        const auto all = static_cast<std::size_t>(bytes);
        if (all < vnet_bytes_least + ethernet_bytes || all == vnet_bytes_least + bytes_max) {
            return Taken::malformed;
        }
        const std::span<std::byte> packet(memory_.get(), all - vnet_bytes_least);
        auto offload = offload_of(header);
        if (!offload || (offload->csum_blank && !lies_where_we_look(header, packet) && !fill_in(header, packet, *offload))) {
            return Taken::malformed;
        }
        frame.begin(*offload);
        frame.add(packet);
        frame.seal();
        return Taken::packet;
    }

    /// Whether the device has taken it: one that is down takes none.
    bool put(const Frame& frame) {
        const Headers found = frame.offload.csum_blank ? parsed(frame.head(), frame.size()) : Headers{};
        auto header = vnet_header(frame.offload, found, frame.head());
        if (!header) {
            return false;
        }
        std::array<iovec, slots_per_packet_max + 2> parts;
        parts[0] = {&*header, vnet_bytes_least};
        const std::size_t count = frame.pieces(std::span(parts).subspan<1>()) + 1;
        ssize_t written = 0;
        do {
            written = ::writev(fd_, parts.data(), static_cast<int>(count));
        } while (written < 0 && errno == EINTR);
        return written >= 0;
    }

private:
    static constexpr std::size_t bytes_max = packet_bytes_max + 1;  // what fills it all was cut off

    static Headers parsed(std::span<const std::byte> head, std::size_t size) {
        Headers found = parse_ethernet(head);
        parse_network(found, head, size);
        return found;
    }

    /// Whether the checksum that is blank is the one that whoever takes the packet would fill in: not, in a tunnel.
    static bool lies_where_we_look(const VnetHeader& header, std::span<const std::byte> packet) {
        const Headers found = parsed(packet.first(std::min(packet.size(), Frame::head_max)), packet.size());
        const auto place = checksum_place(found);
        return place && header.csum_start == found.transport && std::size_t{header.csum_start} + header.csum_offset == *place;
    }

    /// Else it is filled in here: it holds the sum of what is not in the packet.
    static bool fill_in(const VnetHeader& header, std::span<std::byte> packet, Offload& offload) {
        const std::size_t place = std::size_t{header.csum_start} + header.csum_offset;
        if (offload.gso_type != gso_none || place + 2 > packet.size()) {
            return false;
        }
        set_word(&packet[place], fold(sum_words(packet.subspan(header.csum_start))));
        offload.csum_blank = false;
        return true;
    }

    int fd_;
    std::unique_ptr<std::byte[]> memory_{new std::byte[bytes_max]};
};

}  // namespace hvd::netif
