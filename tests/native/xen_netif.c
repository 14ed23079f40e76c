/* Xen's own netif structs, filled and read field by field, for the differential tests against native/netif.hpp. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define xen_mb() __sync_synchronize()
#define xen_rmb() __sync_synchronize()
#define xen_wmb() __sync_synchronize()

#include <xen/xen.h>
#include <xen/io/netif.h>

int constant(int which) {
    static const int constants[] = {
        sizeof(netif_tx_request_t), sizeof(netif_tx_response_t), sizeof(netif_rx_request_t), sizeof(netif_rx_response_t),
        sizeof(netif_extra_info_t), XEN_NETIF_NR_SLOTS_MIN, XEN_NETIF_MAX_TX_SIZE,
        NETTXF_csum_blank, NETTXF_data_validated, NETTXF_more_data, NETTXF_extra_info,
        NETRXF_data_validated, NETRXF_csum_blank, NETRXF_more_data, NETRXF_extra_info,
        NETIF_RSP_DROPPED, NETIF_RSP_ERROR, NETIF_RSP_OKAY, NETIF_RSP_NULL,
        XEN_NETIF_EXTRA_TYPE_GSO, XEN_NETIF_EXTRA_TYPE_MCAST_ADD, XEN_NETIF_EXTRA_TYPE_MCAST_DEL, XEN_NETIF_EXTRA_TYPE_HASH,
        XEN_NETIF_EXTRA_FLAG_MORE, XEN_NETIF_GSO_TYPE_TCPV4, XEN_NETIF_GSO_TYPE_TCPV6,
        __CONST_RING_SIZE(netif_tx, 4096), __CONST_RING_SIZE(netif_rx, 4096)};
    return constants[which];
}

void write_tx_request(void *slot, uint32_t gref, uint16_t offset, uint16_t flags, uint16_t id, uint16_t size) {
    netif_tx_request_t request = {.gref = gref, .offset = offset, .flags = flags, .id = id, .size = size};
    memcpy(slot, &request, sizeof request);
}

void read_tx_request(const void *slot, uint64_t *out) {
    netif_tx_request_t request;
    memcpy(&request, slot, sizeof request);
    *out++ = request.gref, *out++ = request.offset, *out++ = request.flags, *out++ = request.id, *out++ = request.size;
}

void write_tx_response(void *slot, uint16_t id, int status) {
    netif_tx_response_t response = {.id = id, .status = (int16_t)status};
    memcpy(slot, &response, sizeof response);
}

void read_tx_response(const void *slot, int64_t *out) {
    netif_tx_response_t response;
    memcpy(&response, slot, sizeof response);
    *out++ = response.id, *out++ = response.status;
}

void write_rx_request(void *slot, uint16_t id, uint32_t gref) {
    netif_rx_request_t request = {.id = id, .gref = gref};
    memcpy(slot, &request, sizeof request);
}

void read_rx_request(const void *slot, uint64_t *out) {
    netif_rx_request_t request;
    memcpy(&request, slot, sizeof request);
    *out++ = request.id, *out++ = request.gref;
}

void write_rx_response(void *slot, uint16_t id, uint16_t offset, uint16_t flags, int status) {
    netif_rx_response_t response = {.id = id, .offset = offset, .flags = flags, .status = (int16_t)status};
    memcpy(slot, &response, sizeof response);
}

void read_rx_response(const void *slot, int64_t *out) {
    netif_rx_response_t response;
    memcpy(&response, slot, sizeof response);
    *out++ = response.id, *out++ = response.offset, *out++ = response.flags, *out++ = response.status;
}

void write_gso(void *slot, uint8_t flags, uint16_t size, uint8_t type, uint16_t features) {
    netif_extra_info_t extra = {.type = XEN_NETIF_EXTRA_TYPE_GSO, .flags = flags};
    extra.u.gso.size = size, extra.u.gso.type = type, extra.u.gso.features = features;
    memcpy(slot, &extra, sizeof extra);
}

void read_gso(const void *slot, uint64_t *out) {
    netif_extra_info_t extra;
    memcpy(&extra, slot, sizeof extra);
    *out++ = extra.type, *out++ = extra.flags, *out++ = extra.u.gso.size, *out++ = extra.u.gso.type, *out++ = extra.u.gso.features;
}

void write_group(void *slot, uint8_t type, uint8_t flags, const uint8_t *address) {
    netif_extra_info_t extra = {.type = type, .flags = flags};
    memcpy(extra.u.mcast.addr, address, 6);
    memcpy(slot, &extra, sizeof extra);
}

void read_group(const void *slot, uint64_t *out) {
    netif_extra_info_t extra;
    memcpy(&extra, slot, sizeof extra);
    *out++ = extra.type, *out++ = extra.flags;
    for (int i = 0; i < 6; i++) {
        *out++ = extra.u.mcast.addr[i];
    }
}
