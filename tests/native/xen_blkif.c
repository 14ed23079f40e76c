/* Xen's own blkif structs, filled and read field by field, for the differential test against protocols/block.py. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define xen_mb() __sync_synchronize()
#define xen_rmb() __sync_synchronize()
#define xen_wmb() __sync_synchronize()

#include <xen/xen.h>
#include <xen/io/blkif.h>

unsigned request_size(void) { return sizeof(blkif_request_t); }
unsigned response_size(void) { return offsetof(blkif_response_t, status) + sizeof(int16_t); }
unsigned segments_max(void) { return BLKIF_MAX_SEGMENTS_PER_REQUEST; }
int constant(int which) {
    static const int constants[] = {BLKIF_OP_READ,     BLKIF_OP_WRITE,  BLKIF_OP_FLUSH_DISKCACHE, BLKIF_OP_DISCARD,
                                    BLKIF_OP_INDIRECT, BLKIF_RSP_OKAY,  BLKIF_RSP_ERROR,          BLKIF_RSP_EOPNOTSUPP,
                                    VDISK_READONLY};
    return constants[which];
}

/* What a slot says, as 64-bit words: operation, count, id, sector, then (ref, first, last) of each segment. */
void read_transfer(const void *slot, uint64_t *out) {
    blkif_request_t request;
    memcpy(&request, slot, sizeof request);
    *out++ = request.operation, *out++ = request.nr_segments, *out++ = request.id, *out++ = request.sector_number;
    for (unsigned i = 0; i < request.nr_segments && i < BLKIF_MAX_SEGMENTS_PER_REQUEST; i++) {
        *out++ = request.seg[i].gref, *out++ = request.seg[i].first_sect, *out++ = request.seg[i].last_sect;
    }
}

void read_indirect(const void *slot, uint64_t *out) {
    blkif_request_indirect_t request;
    memcpy(&request, slot, sizeof request);
    *out++ = request.operation, *out++ = request.indirect_op, *out++ = request.nr_segments, *out++ = request.id;
    *out++ = request.sector_number, *out++ = request.indirect_grefs[0];
}

void read_discard(const void *slot, uint64_t *out) {
    blkif_request_discard_t request;
    memcpy(&request, slot, sizeof request);
    *out++ = request.operation, *out++ = request.id, *out++ = request.sector_number, *out++ = request.nr_sectors;
}

void write_transfer(void *slot, int operation, uint64_t id, uint64_t sector, unsigned count, const uint32_t *refs,
                    const uint8_t *first, const uint8_t *last) {
    blkif_request_t request = {.operation = (uint8_t)operation, .nr_segments = (uint8_t)count, .id = id,
                               .sector_number = sector};
    for (unsigned i = 0; i < count; i++) {
        request.seg[i].gref = refs[i], request.seg[i].first_sect = first[i], request.seg[i].last_sect = last[i];
    }
    memcpy(slot, &request, sizeof request);
}

void write_discard(void *slot, uint64_t id, uint64_t sector, uint64_t sectors) {
    blkif_request_discard_t request = {.operation = BLKIF_OP_DISCARD, .id = id, .sector_number = sector,
                                       .nr_sectors = sectors};
    memcpy(slot, &request, sizeof request);
}

void write_indirect(void *slot, int operation, uint64_t id, uint64_t sector, unsigned count, uint32_t ref) {
    blkif_request_indirect_t request = {.operation = BLKIF_OP_INDIRECT, .indirect_op = (uint8_t)operation,
                                        .nr_segments = (uint16_t)count, .id = id, .sector_number = sector,
                                        .indirect_grefs = {ref}};
    memcpy(slot, &request, sizeof request);
}

void write_response(void *slot, uint64_t id, int operation, int status) {
    blkif_response_t response = {.id = id, .operation = (uint8_t)operation, .status = (int16_t)status};
    memcpy(slot, &response, sizeof response);
}
