// What a blkif frontend writes: request slots, and the table of an indirect one.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "blkif.hpp"

namespace hvd::blkif {

/// A READ or WRITE of sectors that fill whole pages from `first_ref` on, the last one as far as needed; a FLUSH has no pages.
struct Transfer {
    Operation operation;
    std::uint64_t id;
    std::uint64_t sector;
    std::uint64_t sectors;
    std::uint32_t first_ref;
    std::uint32_t pages;
};

inline Segment segment(const Transfer& transfer, std::uint32_t page) {
    const std::uint64_t left = transfer.sectors - std::uint64_t{page} * sectors_per_page;
    const auto last = static_cast<std::uint8_t>(std::min<std::uint64_t>(left, sectors_per_page) - 1);
    return {transfer.first_ref + page, 0, last, 0};
}

/// At most `direct_segments_max` pages.
inline Request direct_slot(const Transfer& transfer) {
    Request slot{transfer.operation, static_cast<std::uint8_t>(transfer.pages), 0, 0, transfer.id, transfer.sector, {}};
    for (std::uint32_t page = 0; page < transfer.pages; ++page) {
        slot.segment[page] = segment(transfer, page);
    }
    return slot;
}

/// Fills a page with the segments of at most `segments_per_page` pages.
inline void write_segments(const Transfer& transfer, std::byte* table) {
    for (std::uint32_t page = 0; page < transfer.pages; ++page) {
        const Segment one = segment(transfer, page);
        std::memcpy(table + page * sizeof one, &one, sizeof one);
    }
}

inline Indirect indirect_slot(const Transfer& transfer, std::uint32_t table_ref) {
    return {indirect, transfer.operation, static_cast<std::uint16_t>(transfer.pages), 0, transfer.id, transfer.sector, 0, 0, {table_ref}, 0};
}

inline Discard discard_slot(std::uint64_t id, std::uint64_t sector, std::uint64_t sectors) {
    return {discard, 0, 0, 0, id, sector, sectors};
}

}  // namespace hvd::blkif
