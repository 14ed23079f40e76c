// native/netif.hpp's structs behind the same functions as xen_netif.c has for Xen's.
#include <cstring>

#include "../../transport/native/netif.hpp"

using namespace hvd::netif;

namespace {

template <class Slot>
void put(void* slot, const Slot& value) {
    std::memcpy(slot, &value, sizeof value);
}

template <class Slot>
Slot get(const void* slot) {
    Slot value;
    std::memcpy(&value, slot, sizeof value);
    return value;
}

}  // namespace

extern "C" {

int constant(int which) {
    static const int constants[] = {
        sizeof(TxRequest), sizeof(TxResponse), sizeof(RxRequest), sizeof(RxResponse), sizeof(ExtraInfo), slots_per_packet_max, packet_bytes_max,
        tx_csum_blank, tx_data_validated, tx_more_data, tx_extra_info, rx_data_validated, rx_csum_blank, rx_more_data, rx_extra_info,
        dropped, error, okay, null, extra_gso, extra_mcast_add, extra_mcast_del, extra_hash, extra_flag_more, gso_tcpv4, gso_tcpv6,
        ring_slots, ring_slots};
    return constants[which];
}

void write_tx_request(void* slot, std::uint32_t ref, std::uint16_t offset, std::uint16_t flags, std::uint16_t id, std::uint16_t size) {
    put(slot, TxRequest{ref, offset, flags, id, size});
}

void read_tx_request(const void* slot, std::uint64_t* out) {
    const auto request = get<TxRequest>(slot);
    *out++ = request.ref, *out++ = request.offset, *out++ = request.flags, *out++ = request.id, *out++ = request.size;
}

void write_tx_response(void* slot, std::uint16_t id, int status) { put(slot, TxResponse{id, static_cast<std::int16_t>(status)}); }

void read_tx_response(const void* slot, std::int64_t* out) {
    const auto response = get<TxResponse>(slot);
    *out++ = response.id, *out++ = response.status;
}

void write_rx_request(void* slot, std::uint16_t id, std::uint32_t ref) { put(slot, RxRequest{id, 0, ref}); }

void read_rx_request(const void* slot, std::uint64_t* out) {
    const auto request = get<RxRequest>(slot);
    *out++ = request.id, *out++ = request.ref;
}

void write_rx_response(void* slot, std::uint16_t id, std::uint16_t offset, std::uint16_t flags, int status) {
    put(slot, RxResponse{id, offset, flags, static_cast<std::int16_t>(status)});
}

void read_rx_response(const void* slot, std::int64_t* out) {
    const auto response = get<RxResponse>(slot);
    *out++ = response.id, *out++ = response.offset, *out++ = response.flags, *out++ = response.status;
}

void write_gso(void* slot, std::uint8_t flags, std::uint16_t size, std::uint8_t type, std::uint16_t features) {
    ExtraInfo extra{extra_gso, flags, {}};
    extra.gso = {size, type, 0, features};
    put(slot, extra);
}

void read_gso(const void* slot, std::uint64_t* out) {
    const auto extra = get<ExtraInfo>(slot);
    *out++ = extra.type, *out++ = extra.flags, *out++ = extra.gso.size, *out++ = extra.gso.type, *out++ = extra.gso.features;
}

void write_group(void* slot, std::uint8_t type, std::uint8_t flags, const std::uint8_t* address) {
    ExtraInfo extra{type, flags, {}};
    std::memcpy(extra.group.data(), address, extra.group.size());
    put(slot, extra);
}

void read_group(const void* slot, std::uint64_t* out) {
    const auto extra = get<ExtraInfo>(slot);
    *out++ = extra.type, *out++ = extra.flags;
    for (const std::uint8_t byte : extra.group) {
        *out++ = byte;
    }
}

}  // extern "C"
