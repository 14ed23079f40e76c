// netif (Xen public/io/netif.h): what lies in the slots of its two rings, and what its flags mean.
//
// A packet to transmit is a tx request whose size is the whole packet's, extra infos if its flags say so, and a request for each
// further part with that part's size; the first part's own size is what is left. A packet received is the same in rx responses, but
// that every part has its own size. An extra info lies in a slot of either ring, and is answered, if at all, without an id.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "layouts.hpp"

namespace hvd::netif {

using hvd::page_size;
inline constexpr std::size_t tx_request_size = 12;
inline constexpr std::size_t tx_response_size = 4;
inline constexpr std::size_t rx_request_size = 8;
inline constexpr std::size_t rx_response_size = 8;
inline constexpr std::uint32_t ring_slots = 256;   // of either ring, in its one page
inline constexpr std::uint32_t slots_per_packet_max = 18;  // XEN_NETIF_NR_SLOTS_MIN: what every backend takes, and no frontend exceeds
inline constexpr std::uint32_t packet_bytes_max = 0xffff;  // XEN_NETIF_MAX_TX_SIZE

inline constexpr std::uint16_t tx_csum_blank = 1, tx_data_validated = 2, tx_more_data = 4, tx_extra_info = 8;
/// The first two are the other way round than in a request.
inline constexpr std::uint16_t rx_data_validated = 1, rx_csum_blank = 2, rx_more_data = 4, rx_extra_info = 8;
/// The flag, if it is to be set.
constexpr std::uint16_t when(bool set, std::uint16_t flag) { return set ? flag : std::uint16_t{0}; }
enum Status : std::int16_t { dropped = -2, error = -1, okay = 0, null = 1 };
enum ExtraType : std::uint8_t { extra_none = 0, extra_gso = 1, extra_mcast_add = 2, extra_mcast_del = 3, extra_hash = 4 };
inline constexpr std::uint8_t extra_flag_more = 1;
enum GsoType : std::uint8_t { gso_none = 0, gso_tcpv4 = 1, gso_tcpv6 = 2 };

struct TxRequest {
    std::uint32_t ref;
    std::uint16_t offset;
    std::uint16_t flags;
    std::uint16_t id;
    std::uint16_t size;
};
static_assert(sizeof(TxRequest) == tx_request_size);

struct TxResponse {
    std::uint16_t id;
    std::int16_t status;
};
static_assert(sizeof(TxResponse) == tx_response_size);

struct RxRequest {
    std::uint16_t id;
    std::uint16_t pad;
    std::uint32_t ref;
};
static_assert(sizeof(RxRequest) == rx_request_size);

/// `status`: bytes of this part, or a negative Status.
struct RxResponse {
    std::uint16_t id;
    std::uint16_t offset;
    std::uint16_t flags;
    std::int16_t status;
};
static_assert(sizeof(RxResponse) == rx_response_size);

/// What TCP's payload is cut into: `size` bytes at most.
struct Gso {
    std::uint16_t size;
    std::uint8_t type;
    std::uint8_t pad;
    std::uint16_t features;
};

using Address = std::array<std::uint8_t, 6>;

struct ExtraInfo {
    std::uint8_t type;
    std::uint8_t flags;
    union {
        Gso gso;
        Address group;
    };
};
static_assert(sizeof(ExtraInfo) == 8 && offsetof(ExtraInfo, gso) == 2 && offsetof(ExtraInfo, group) == 2);

/// What a packet says of itself beside its bytes.
struct Offload {
    bool csum_blank = false;      ///< TCP's or UDP's checksum holds the pseudo header's sum alone
    bool data_validated = false;  ///< the checksums need not be looked at
    GsoType gso_type = gso_none;
    std::uint16_t gso_size = 0;
};

}  // namespace hvd::netif
