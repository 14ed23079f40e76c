// The header that a TAP device with IFF_VNET_HDR (linux/if_tun.h) puts in front of each packet: from and to what netif says beside it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "headers.hpp"
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
inline constexpr std::size_t vnet_bytes_least = sizeof(VnetHeader) - sizeof(VnetHeader::buffers);  // struct virtio_net_hdr: what a device has
inline constexpr std::uint8_t vnet_needs_csum = 1, vnet_data_valid = 2;
inline constexpr std::uint8_t vnet_gso_none = 0, vnet_gso_tcpv4 = 1, vnet_gso_tcpv6 = 4, vnet_gso_ecn = 0x80;

/// Nothing: of a kind of segmentation that was not offered to the device.
inline std::optional<Offload> offload_of(const VnetHeader& header) {
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

/// The device wants to know where the checksum is to go: netif does not say, so the headers are looked at, where it is blank. Nothing
/// if there is no such place. `head`: a copy of the packet's first bytes, which `packet` was parsed from.
inline std::optional<VnetHeader> vnet_header(const Offload& offload, const Headers& packet, std::span<const std::byte> head) {
    VnetHeader header{};
    header.buffers = 1;
    if (!offload.csum_blank) {
        header.flags = offload.data_validated ? vnet_data_valid : std::uint8_t{0};
        return offload.gso_type == gso_none ? std::optional(header) : std::nullopt;
    }
    const auto place = checksum_place(packet);
    const auto payload = offload.gso_type == gso_none ? place : payload_place(packet, head);
    if (!place || !payload) {
        return std::nullopt;
    }
    header.flags = vnet_needs_csum;
    header.csum_start = static_cast<std::uint16_t>(packet.transport);
    header.csum_offset = static_cast<std::uint16_t>(*place - packet.transport);
    if (offload.gso_type != gso_none) {
        header.gso_type = offload.gso_type == gso_tcpv4 ? vnet_gso_tcpv4 : vnet_gso_tcpv6;
        header.gso_size = offload.gso_size;
        header.header_bytes = static_cast<std::uint16_t>(*payload);
    }
    return header;
}

}  // namespace hvd::netif
