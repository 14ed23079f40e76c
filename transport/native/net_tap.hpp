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

#include "netfront.hpp"
#include "vnet_header.hpp"

namespace hvd::netif {

struct TapCounters {
    std::uint64_t to_network = 0;
    std::uint64_t to_tap = 0;
    std::uint64_t not_sent = 0;     ///< the device's packets that no frontend can send
    std::uint64_t not_written = 0;  ///< packets that the device refused: it is down, or they make no sense to it
};

class TapPump {
public:
    static constexpr std::uint32_t packets_per_turn = 64;

    enum class End { dry, more, no_room, gone };  ///< gone: somebody has removed the device, and its descriptor is of none

    /// `header_bytes` as TUNSETVNETHDRSZ set it: 10, or 12 with the count of buffers, which is 1.
    TapPump(int fd, std::size_t header_bytes) : fd_(fd), header_bytes_(header_bytes) {
        if (header_bytes != sizeof(VnetHeader) && header_bytes != vnet_bytes_least) {
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
            return errno == EINTR ? End::more : errno == EBADFD ? End::gone : End::dry;  // EAGAIN; EIO from one that goes
        }
        const auto size = static_cast<std::size_t>(bytes) - std::min(static_cast<std::size_t>(bytes), header_bytes_);
        const std::optional<Offload> offload = size < ethernet_bytes ? std::nullopt : offload_of(header);
        if (!offload) {
            ++counters.not_sent;
            return End::more;
        }
        queue.send_lent(static_cast<std::uint32_t>(size), *offload);
        ++counters.to_network;
        return End::more;
    }

    bool write_one(const FrontQueue::Arrived& packet) {
        std::array<std::byte, Frame::head_max> head{};
        const Headers found = packet.offload.csum_blank ? parse_head(packet, head) : Headers{};
        auto header = vnet_header(packet.offload, found, head);
        if (!header) {
            return false;
        }
        std::array<iovec, slots_per_packet_max + 1> parts;
        parts[0] = {&*header, header_bytes_};
        std::copy_n(packet.parts.begin(), packet.count, parts.begin() + 1);
        ssize_t written = 0;
        do {
            written = ::writev(fd_, parts.data(), static_cast<int>(packet.count + 1));
        } while (written < 0 && errno == EINTR);
        return written >= 0;
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
