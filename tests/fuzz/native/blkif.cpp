// The decoder of a frontend's request slots and of its tables of segments, over granted pages with guards around each grant.
//
// What must hold: a scatter list names only whole granted memory, writable where it is to be read into, as many bytes as the
// request has sectors, all of them on the disk; everything else is an error or a grant that is missing (XSA-423, XSA-448).
#include <array>
#include <memory>
#include <vector>

#include "../../../transport/native/blkif.hpp"
#include "shared_memory.hpp"

namespace {

using namespace hvd::blkif;
namespace blkif = hvd::blkif;
using fuzz::Input;

constexpr std::size_t runs_max = 3;
constexpr std::size_t run_pages_max = 3;
constexpr unsigned tables[] = {0, 11, 32, 513, indirect_pages_max * segments_per_page};

struct Grants {
    explicit Grants(Input& input) {
        for (std::size_t count = input.below(runs_max + 1); count != 0; --count) {
            add(input, static_cast<std::uint32_t>(8 + 4 * runs.size() + input.below(2)), input.flag());
        }
    }

    void add(Input& input, std::uint32_t ref, bool writable) {
        runs.push_back(std::make_unique<fuzz::SharedMemory>((1 + input.below(run_pages_max)) * page_size));
        writable_.push_back(writable);
        map.add(ref, runs.back()->bytes(), writable);
    }

    /// Where the memory lies whole inside one run, whether that can be written; else an abort.
    bool writable(const iovec& part) const {
        const auto* start = static_cast<const std::byte*>(part.iov_base);
        for (std::size_t i = 0; i < runs.size(); ++i) {
            const std::span<std::byte> run = runs[i]->bytes();
            if (start >= run.data() && start + part.iov_len <= run.data() + run.size()) {
                return writable_[i];
            }
        }
        std::fprintf(stderr, "memory of no grant\n");
        std::abort();
    }

    GrantMap map;
    std::vector<std::unique_ptr<fuzz::SharedMemory>> runs;

private:
    std::vector<bool> writable_;
};

/// Segments that mean something more often than random ones do.
void tame(std::span<std::byte> segments) {
    for (; segments.size() >= sizeof(Segment); segments = segments.subspan(sizeof(Segment))) {
        Segment one;
        std::memcpy(&one, segments.data(), sizeof one);
        one.ref = 8 + one.ref % 13;
        one.first_sector %= 9;
        one.last_sector %= 9;
        std::memcpy(segments.data(), &one, sizeof one);
    }
}

/// A page of the frontend's with segments in it.
void write_table(Input& input, const Grants& grants) {
    if (grants.runs.empty()) {
        return;
    }
    const std::span<std::byte> memory = grants.runs[input.below(grants.runs.size())]->bytes();
    const std::span<std::byte> table = memory.subspan(input.below(memory.size() / page_size) * page_size, page_size);
    std::byte pattern[64];
    input.bytes(pattern);
    for (std::size_t at = 0; at < table.size(); at += sizeof pattern) {
        std::memcpy(table.data() + at, pattern, sizeof pattern);
    }
    if (input.flag()) {
        tame(table);
    }
}

std::array<std::byte, request_size> slot_of(Input& input) {
    std::array<std::byte, request_size> slot{};
    const bool tamed = input.flag();
    input.bytes(std::span(slot).first(24 + 8 * input.below(12)));
    if (tamed) {
        slot[0] = static_cast<std::byte>(std::to_integer<unsigned>(slot[0]) % 8);
        if (slot[0] == std::byte{indirect}) {
            slot[1] = static_cast<std::byte>(std::to_integer<unsigned>(slot[1]) % 2);
            for (std::size_t i = 0; i < indirect_pages_max; ++i) {
                const auto ref = static_cast<std::uint32_t>(8 + std::to_integer<unsigned>(slot[28 + 4 * i]) % 13);
                std::memcpy(slot.data() + offsetof(Indirect, refs) + 4 * i, &ref, sizeof ref);
            }
        } else {
            tame(std::span(slot).subspan(24));
        }
    }
    return slot;
}

void check(const Checked& checked, const Disk& disk, const Grants& grants) {
    if (checked.status != okay || checked.missing) {
        return;
    }
    if (checked.operation == flush) {
        return;
    }
    EXPECT(checked.sectors != 0 && checked.sector <= disk.sectors && checked.sectors <= disk.sectors - checked.sector);
    EXPECT(checked.operation == blkif::read || !disk.readonly);
    if (checked.operation == discard) {
        return;
    }
    EXPECT(checked.operation == blkif::read || checked.operation == blkif::write);
    std::size_t bytes = 0;
    for (const iovec& part : checked.memory) {
        EXPECT(grants.writable(part) || checked.operation == blkif::write);
        for (std::byte& byte : std::span(static_cast<std::byte*>(part.iov_base), part.iov_len)) {
            byte ^= std::byte{1};
        }
        bytes += part.iov_len;
    }
    EXPECT(bytes == checked.sectors * sector_size);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Input input(data, size);
    const Disk disk{input.number<std::uint16_t>(), input.flag(), tables[input.below(std::size(tables))]};
    Grants grants(input);
    Decoder decoder(disk, grants.map);
    Checked checked;
    for (int steps = 0; input.more() && steps < 64; ++steps) {
        if (input.below(3) == 0) {
            write_table(input, grants);
        }
        decoder.decode(slot_of(input), checked);
        if (checked.missing && input.flag() && grants.runs.size() < 6) {  // Python maps what is missing, and it is decoded again
            grants.add(input, *checked.missing, input.flag());
        }
        check(checked, disk, grants);
    }
    return 0;
}
