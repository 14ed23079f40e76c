// blkif (Xen public/io/blkif.h, 64-bit layout): untrusted request slots to checked scatter lists, without Python and without I/O.
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "faults.hpp"
#include "grant_map.hpp"
#include "layouts.hpp"

namespace hvd::blkif {

using hvd::GrantMap;
using hvd::page_size;

enum Operation : std::uint8_t { read = 0, write = 1, write_barrier = 2, flush = 3, discard = 5, indirect = 6 };
enum Status : std::int16_t { okay = 0, error = -1, unsupported = -2 };

inline constexpr std::size_t request_size = 112;
inline constexpr std::size_t response_size = 16;
inline constexpr unsigned direct_segments_max = 11;
inline constexpr unsigned indirect_pages_max = 8;
inline constexpr unsigned segments_per_page = 512;
inline constexpr std::size_t sector_size = 512;
inline constexpr unsigned sectors_per_page = 8;

struct Segment {
    std::uint32_t ref;
    std::uint8_t first_sector;
    std::uint8_t last_sector;
    std::uint16_t pad;
};
static_assert(sizeof(Segment) == 8);

struct Request {
    std::uint8_t operation;
    std::uint8_t segments;
    std::uint16_t handle;
    std::uint32_t pad;
    std::uint64_t id;
    std::uint64_t sector;
    std::array<Segment, direct_segments_max> segment;
};
static_assert(sizeof(Request) == request_size && offsetof(Request, id) == 8 && offsetof(Request, segment) == 24);

struct Discard {
    std::uint8_t operation;
    std::uint8_t flag;
    std::uint16_t handle;
    std::uint32_t pad;
    std::uint64_t id;
    std::uint64_t sector;
    std::uint64_t sectors;
};
static_assert(sizeof(Discard) == 32 && offsetof(Discard, sectors) == 24);

struct Indirect {
    std::uint8_t operation;
    std::uint8_t indirect_operation;
    std::uint16_t segments;
    std::uint32_t pad;
    std::uint64_t id;
    std::uint64_t sector;
    std::uint16_t handle;
    std::uint16_t pad2;
    std::array<std::uint32_t, indirect_pages_max> refs;
    std::uint32_t pad3;
};
static_assert(sizeof(Indirect) == 64 && offsetof(Indirect, refs) == 28);

struct Response {
    std::uint64_t id;
    std::uint8_t operation;
    std::uint8_t pad;
    std::int16_t status;
    std::uint32_t pad2;
};
static_assert(sizeof(Response) == response_size && offsetof(Response, status) == 10);

/// A request as the backend may carry it out; `status` other than okay: answer that and do nothing.
struct Checked {
    std::uint64_t id = 0;
    std::uint8_t operation = 0;
    Status status = okay;
    std::uint64_t sector = 0;
    std::uint64_t sectors = 0;
    std::vector<iovec> memory;             ///< of granted pages, adjacent ones joined
    std::optional<std::uint32_t> missing;  ///< a ref that is not mapped yet: map it and decode again
};

struct Disk {
    std::uint64_t sectors;
    bool readonly;
    unsigned indirect_segments_max;
};

class Decoder {
public:
    Decoder(const Disk& disk, const GrantMap& grants) : disk_(disk), grants_(grants), table_(disk.indirect_segments_max) {
        if (disk.indirect_segments_max > indirect_pages_max * segments_per_page) {
            throw LocalError("an indirect request names at most " + std::to_string(indirect_pages_max * segments_per_page) + " segments");
        }
    }

    /// `slot` is our own copy of one request; `out` is used again and again, so that nothing is allocated.
    void decode(std::span<const std::byte, request_size> slot, Checked& out) {
        Request request;
        std::memcpy(&request, slot.data(), sizeof request);
        out.id = request.id;
        out.operation = request.operation;
        out.status = okay;
        out.sector = request.sector;
        out.sectors = 0;
        out.memory.clear();
        out.missing.reset();
        switch (request.operation) {
            case read:
            case write:
                transfer(out, request.operation, std::span(request.segment).first(std::min<std::size_t>(request.segments, direct_segments_max)),
                         request.segments);
                break;
            case flush:
                break;
            case discard:
                decode_discard(out, slot);
                break;
            case indirect:
                decode_indirect(out, slot);
                break;
            default:
                out.status = unsupported;
        }
    }

private:
    void decode_discard(Checked& out, std::span<const std::byte, request_size> slot) const {
        Discard request;
        std::memcpy(&request, slot.data(), sizeof request);
        out.sectors = request.sectors;
        check_range(out);
        if (disk_.readonly) {
            out.status = error;
        }
    }

    void decode_indirect(Checked& out, std::span<const std::byte, request_size> slot) {
        Indirect request;
        std::memcpy(&request, slot.data(), sizeof request);
        out.id = request.id;
        out.operation = request.indirect_operation;
        out.sector = request.sector;
        if ((request.indirect_operation != read && request.indirect_operation != write) || request.segments > disk_.indirect_segments_max) {
            out.status = error;
            return;
        }
        const std::span<Segment> segments = std::span(table_).first(request.segments);
        for (std::size_t done = 0; done < segments.size(); done += segments_per_page) {
            bool forbidden = false;
            const std::uint32_t ref = request.refs[done / segments_per_page];
            const auto page = grants_.page(ref, false, forbidden);
            if (!page) {
                out.missing = ref;
                return;
            }
            const std::size_t count = std::min<std::size_t>(segments_per_page, segments.size() - done);
            std::memcpy(&segments[done], *page, count * sizeof(Segment));  // copied once: what is checked is what is used
        }
        transfer(out, request.indirect_operation, segments, request.segments);
    }

    void transfer(Checked& out, std::uint8_t operation, std::span<const Segment> segments, std::size_t claimed) const {
        if (claimed == 0 || claimed != segments.size() || (operation == write && disk_.readonly)) {
            out.status = error;
            return;
        }
        for (const Segment& segment : segments) {
            if (segment.first_sector > segment.last_sector || segment.last_sector >= sectors_per_page) {
                out.status = error;
                return;
            }
            bool forbidden = false;
            const auto page = grants_.page(segment.ref, operation == read, forbidden);
            if (!page) {
                out.missing = segment.ref;
                return;
            }
            if (forbidden) {
                out.status = error;
                return;
            }
            const unsigned count = static_cast<unsigned>(segment.last_sector - segment.first_sector) + 1U;
            append(out.memory, *page + segment.first_sector * sector_size, count * sector_size);
            out.sectors += count;
        }
        check_range(out);
    }

    void check_range(Checked& out) const {
        if (out.sectors == 0 || out.sector > disk_.sectors || out.sectors > disk_.sectors - out.sector) {
            out.status = error;
        }
    }

    static void append(std::vector<iovec>& memory, std::byte* start, std::size_t length) {
        if (!memory.empty() && static_cast<std::byte*>(memory.back().iov_base) + memory.back().iov_len == start) {
            memory.back().iov_len += length;
        } else {
            memory.push_back({start, length});
        }
    }

    Disk disk_;
    const GrantMap& grants_;
    std::vector<Segment> table_;  // an indirect request's segments, copied out of the frontend's pages
};

}  // namespace hvd::blkif
