/* Xen's own ring macros behind plain functions, for the differential test: one family of functions a shape. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define __XEN_TOOLS__ 1
#define xen_mb() __sync_synchronize()
#define xen_rmb() __sync_synchronize()
#define xen_wmb() __sync_synchronize()

#include <xen/xen.h>
#include <xen/io/ring.h>
#include <xen/io/blkif.h>
#include <xen/io/netif.h>

struct cache_line_message { uint8_t bytes[64]; };
DEFINE_RING_TYPES(lines, struct cache_line_message, struct cache_line_message);

struct odd_request { uint8_t bytes[7]; };
struct odd_response { uint8_t bytes[13]; };
DEFINE_RING_TYPES(odd, struct odd_request, struct odd_response);

/* An end keeps its private variables in a buffer of the caller's; `messages` are whole and adjacent, and the caller
 * respects RING_FREE_REQUESTS and the number of open requests, as the macros leave it to him. */
#define FAMILY(tag, request_t, response_t)                                                                          \
    size_t tag##_request_size(void) { return sizeof(request_t); }                                                   \
    size_t tag##_response_size(void) { return sizeof(response_t); }                                                 \
    size_t tag##_slot_size(void) { return sizeof(union tag##_sring_entry); }                                        \
    size_t tag##_front_state_size(void) { return sizeof(tag##_front_ring_t); }                                      \
    size_t tag##_back_state_size(void) { return sizeof(tag##_back_ring_t); }                                        \
    void tag##_front_init(tag##_front_ring_t *r, void *page, size_t bytes) {                                        \
        tag##_sring_t *s = page;                                                                                    \
        XEN_FRONT_RING_INIT(r, s, bytes);                                                                           \
    }                                                                                                               \
    void tag##_front_attach(tag##_front_ring_t *r, void *page, uint32_t index, size_t bytes) {                      \
        tag##_sring_t *s = page;                                                                                    \
        FRONT_RING_ATTACH(r, s, index, bytes);                                                                      \
    }                                                                                                               \
    void tag##_back_attach(tag##_back_ring_t *r, void *page, uint32_t index, size_t bytes) {                        \
        tag##_sring_t *s = page;                                                                                    \
        BACK_RING_ATTACH(r, s, index, bytes);                                                                       \
    }                                                                                                               \
    unsigned tag##_front_size(tag##_front_ring_t *r) { return RING_SIZE(r); }                                       \
    unsigned tag##_back_size(tag##_back_ring_t *r) { return RING_SIZE(r); }                                         \
    unsigned tag##_front_free(tag##_front_ring_t *r) { return RING_FREE_REQUESTS(r); }                              \
    unsigned tag##_front_unconsumed(tag##_front_ring_t *r) { return RING_HAS_UNCONSUMED_RESPONSES(r); }             \
    unsigned tag##_back_unconsumed(tag##_back_ring_t *r) { return RING_HAS_UNCONSUMED_REQUESTS(r); }                \
    int tag##_front_push(tag##_front_ring_t *r, const request_t *messages, unsigned count) {                        \
        int notify;                                                                                                 \
        for (unsigned i = 0; i < count; i++)                                                                        \
            memcpy(RING_GET_REQUEST(r, r->req_prod_pvt++), &messages[i], sizeof(request_t));                        \
        RING_PUSH_REQUESTS_AND_CHECK_NOTIFY(r, notify);                                                             \
        return notify;                                                                                              \
    }                                                                                                               \
    int tag##_back_push(tag##_back_ring_t *r, const response_t *messages, unsigned count) {                         \
        int notify;                                                                                                 \
        for (unsigned i = 0; i < count; i++)                                                                        \
            memcpy(RING_GET_RESPONSE(r, r->rsp_prod_pvt++), &messages[i], sizeof(response_t));                      \
        RING_PUSH_RESPONSES_AND_CHECK_NOTIFY(r, notify);                                                            \
        return notify;                                                                                              \
    }                                                                                                               \
    void tag##_front_pop(tag##_front_ring_t *r, response_t *messages, unsigned count) {                             \
        xen_rmb();                                                                                                  \
        for (unsigned i = 0; i < count; i++)                                                                        \
            RING_COPY_RESPONSE(r, r->rsp_cons++, &messages[i]);                                                     \
    }                                                                                                               \
    void tag##_back_pop(tag##_back_ring_t *r, request_t *messages, unsigned count) {                                \
        xen_rmb();                                                                                                  \
        for (unsigned i = 0; i < count; i++)                                                                        \
            RING_COPY_REQUEST(r, r->req_cons++, &messages[i]);                                                      \
    }                                                                                                               \
    int tag##_front_final_check(tag##_front_ring_t *r) {                                                            \
        int work;                                                                                                   \
        RING_FINAL_CHECK_FOR_RESPONSES(r, work);                                                                    \
        return work != 0;                                                                                           \
    }                                                                                                               \
    int tag##_back_final_check(tag##_back_ring_t *r) {                                                              \
        int work;                                                                                                   \
        RING_FINAL_CHECK_FOR_REQUESTS(r, work);                                                                     \
        return work != 0;                                                                                           \
    }                                                                                                               \
    int tag##_back_refuses(tag##_back_ring_t *r) { return RING_REQUEST_PROD_OVERFLOW(r, r->sring->req_prod); }      \
    int tag##_front_refuses(tag##_front_ring_t *r) { return RING_RESPONSE_PROD_OVERFLOW(r, r->sring->rsp_prod); }

FAMILY(blkif, blkif_request_t, blkif_response_t)
FAMILY(netif_tx, netif_tx_request_t, netif_tx_response_t)
FAMILY(lines, struct cache_line_message, struct cache_line_message)
FAMILY(odd, struct odd_request, struct odd_response)
