// Between a netif frontend and a TAP device with vnet headers (linux/if_tun.h, IFF_VNET_HDR): packets are read from the one straight into
// granted pages and written to the other straight from them, checksums and segmentation left as they are.
#pragma once

#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <optional>

#include "headers.hpp"
#include "netfront.hpp"
#include "offload.hpp"

namespace hvd::netif {

/// struct virtio_net_hdr_mrg_rxbuf of linux/virtio_net.h, which no C++ compiler reads.
struct VnetHeader {
    std::uint8_t flags;
    std::uint8_t gso_type;
    std::uint16_t header_bytes;  // Ethernet's to TCP's
    std::uint16_t gso_size;
    std::uint16_t csum_start;
    std::uint16_t csum_offset;
    std::uint16_t buffers;       // where the header has 12 bytes
};
static_assert(sizeof(VnetHeader) == 12);
inline constexpr std::uint8_t vnet_needs_csum = 1, vnet_data_valid = 2;
inline constexpr std::uint8_t vnet_gso_none = 0, vnet_gso_tcpv4 = 1, vnet_gso_tcpv6 = 4, vnet_gso_ecn = 0x80;

struct TapCounters {
    std::uint64_t to_network = 0;
    std::uint64_t to_tap = 0;
    std::uint64_t not_sent = 0;     ///< the device's packets that no frontend can send
    std::uint64_t not_written = 0;  ///< packets that the device refused: it is down, or they make no sense to it
};

class TapPump {
public:
    static constexpr std::uint32_t packets_per_turn = 64;

    enum class End { dry, more, no_room };

    /// `header_bytes` as TUNSETVNETHDRSZ set it: 10, or 12 with the count of buffers, which is 1.
    TapPump(int fd, std::size_t header_bytes) : fd_(fd), header_bytes_(header_bytes) {
        if (header_bytes != sizeof(VnetHeader) && header_bytes != sizeof(VnetHeader) - sizeof(VnetHeader::buffers)) {
            throw LocalError("a vnet header has 10 or 12 bytes, not " + std::to_string(header_bytes));
        }
    }

    /// What the device has to send, into one queue. The descriptor does not block.
    End to_network(FrontQueue& queue) {
        End end = End::more;
        for (std::uint32_t count = 0; count < packets_per_turn && end == End::more; ++count) {
            end = read_one(queue);
        }
        queue.publish();
        return end;
    }

    /// What has arrived in one queue, to the device; whether there is more.
    bool to_tap(FrontQueue& queue) {
        FrontQueue::Arrived packet;
        std::uint32_t count = 0;
        for (; count < packets_per_turn && queue.next(packet); ++count) {
            ++(write_one(packet) ? counters.to_tap : counters.not_written);
            queue.release();
        }
        queue.post();
        return count == packets_per_turn && queue.next(packet);
    }

    TapCounters counters;

private:
    End read_one(FrontQueue& queue) {
        if (!queue.has_room(packet_bytes_max, true)) {
            queue.collect_answers();
            if (!queue.has_room(packet_bytes_max, true)) {
                return End::no_room;
            }
        }
        VnetHeader header{};
        std::array<iovec, FrontQueue::parts_max + 1> parts;
        parts[0] = {&header, header_bytes_};
        const std::uint32_t count = queue.lend(&parts[1], packet_bytes_max);
        const ssize_t bytes = ::readv(fd_, parts.data(), static_cast<int>(count + 1));
        if (bytes < 0) {
            return errno == EINTR ? End::more : End::dry;  // EAGAIN; a device that is gone has nothing more to say
        }
        const auto size = static_cast<std::size_t>(bytes) - std::min(static_cast<std::size_t>(bytes), header_bytes_);
        const std::optional<Offload> offload = size < ethernet_bytes ? std::nullopt : from_header(header);
        if (!offload) {
            ++counters.not_sent;
            return End::more;
        }
        queue.send_lent(static_cast<std::uint32_t>(size), *offload);
        ++counters.to_network;
        return End::more;
    }

    /// Nothing: of a kind of segmentation that was not offered to the device.
    static std::optional<Offload> from_header(const VnetHeader& header) {
        Offload offload;
        offload.csum_blank = (header.flags & vnet_needs_csum) != 0;
        offload.data_validated = offload.csum_blank || (header.flags & vnet_data_valid) != 0;
        switch (header.gso_type & ~vnet_gso_ecn) {
            case vnet_gso_none:
                return offload;
            case vnet_gso_tcpv4:
                offload.gso_type = gso_tcpv4;
                break;
            case vnet_gso_tcpv6:
                offload.gso_type = gso_tcpv6;
                break;
            default:
                return std::nullopt;
        }
        offload.gso_size = header.gso_size;
        return offload.gso_size == 0 ? std::nullopt : std::optional(offload);
    }

    bool write_one(const FrontQueue::Arrived& packet) {
        VnetHeader header{};
        header.buffers = 1;
        if (!to_header(packet, header)) {
            return false;
        }
        std::array<iovec, slots_per_packet_max + 1> parts;
        parts[0] = {&header, header_bytes_};
        std::copy_n(packet.parts.begin(), packet.count, parts.begin() + 1);
        ssize_t written = 0;
        do {
            written = ::writev(fd_, parts.data(), static_cast<int>(packet.count + 1));
        } while (written < 0 && errno == EINTR);
        return written >= 0;
    }

    /// The device wants to know where the checksum is to go: netif does not say, so the headers are looked at.
    static bool to_header(const FrontQueue::Arrived& packet, VnetHeader& header) {
        if (!packet.offload.csum_blank) {
            header.flags = packet.offload.data_validated ? vnet_data_valid : std::uint8_t{0};
            return packet.offload.gso_type == gso_none;
        }
        std::array<std::byte, Frame::head_max> head;
        const Headers found = parse_head(packet, head);
        const auto place = checksum_place(found);
        if (!place) {
            return false;
        }
        header.flags = vnet_needs_csum;
        header.csum_start = static_cast<std::uint16_t>(found.transport);
        header.csum_offset = static_cast<std::uint16_t>(*place - found.transport);
        if (packet.offload.gso_type != gso_none) {
            header.gso_type = packet.offload.gso_type == gso_tcpv4 ? vnet_gso_tcpv4 : vnet_gso_tcpv6;
            header.gso_size = packet.offload.gso_size;
            header.header_bytes = static_cast<std::uint16_t>(found.transport + (static_cast<std::size_t>(head[found.transport + 12]) >> 4) * 4);
        }
        return true;
    }

    /// From a copy of the first bytes: the backend may change them.
    static Headers parse_head(const FrontQueue::Arrived& packet, std::array<std::byte, Frame::head_max>& head) {
        std::size_t size = 0;
        for (std::uint32_t part = 0; part < packet.count && size < head.size(); ++part) {
            const std::size_t here = std::min(packet.parts[part].iov_len, head.size() - size);
            std::memcpy(&head[size], packet.parts[part].iov_base, here);
            size += here;
        }
        Headers found;
        found.malformed = true;
        if (size >= ethernet_bytes) {
            found = parse_ethernet(std::span(head).first(size));
            parse_network(found, std::span(head).first(size), packet.bytes);
        }
        return found;
    }

    int fd_;
    std::size_t header_bytes_;
};

}  // namespace hvd::netif
