// A record of what a block backend does to its image, in order: enough to make the image again as a power cut would leave it.
//
// A write's record is appended before the write itself, a sync's after fdatasync has returned, so that a prefix of the log never
// claims more than was done: a write that is in the log and not on the image is one that a power cut may drop anyway. What is
// written is a copy, since a guest may change its pages at any time, and log and image have to be the same.
#pragma once

#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>
#include <vector>

namespace hvd {

/// In front of every record; transport/write_log.py reads it.
struct WriteLogHeader {
    std::uint32_t magic;
    std::uint32_t kind;
    std::int64_t at_ns;  ///< CLOCK_MONOTONIC
    std::uint64_t offset;
    std::uint64_t length;    ///< of the range that is written or discarded, in bytes; a write's content follows
    std::uint32_t checksum;  ///< CRC-32 (that of zlib) of all fields above and the content
    std::uint32_t reserved;
};
static_assert(sizeof(WriteLogHeader) == 40 && std::has_unique_object_representations_v<WriteLogHeader>);

class WriteLog {
public:
    static constexpr std::uint32_t magic = 0x4c57'6468;  // "hdWL"
    static constexpr std::uint32_t write = 1;

    /// `fd` is open for appending, and is the caller's to close.
    explicit WriteLog(int fd) : fd_(fd) {}

    /// One record; 0 or an errno.
    int append(std::uint32_t kind, std::uint64_t offset, std::uint64_t length, std::span<const std::byte> content = {}) const {
        timespec now{};
        clock_gettime(CLOCK_MONOTONIC, &now);
        WriteLogHeader header{magic, kind, now.tv_sec * 1'000'000'000 + now.tv_nsec, offset, length, 0, 0};
        const auto* fields = reinterpret_cast<const std::byte*>(&header);
        header.checksum = ~crc(crc(~0U, {fields, offsetof(WriteLogHeader, checksum)}), content);
        const std::array<iovec, 2> parts{{{&header, sizeof header}, {const_cast<std::byte*>(content.data()), content.size()}}};
        const ssize_t result = ::writev(fd_, parts.data(), content.empty() ? 1 : 2);
        if (result < 0) {
            return errno;
        }
        return static_cast<std::size_t>(result) == sizeof header + content.size() ? 0 : ENOSPC;  // torn: its reader stops there
    }

    /// pwritev of a copy, which is in the log before it is on the image. What cannot be logged is not written.
    ssize_t carry(int image, const iovec* parts, int count, std::int64_t offset) {
        copy_.clear();
        for (const iovec& part : std::span(parts, static_cast<std::size_t>(count))) {
            const auto* from = static_cast<const std::byte*>(part.iov_base);
            copy_.insert(copy_.end(), from, from + part.iov_len);
        }
        if (const int error = append(write, static_cast<std::uint64_t>(offset), copy_.size(), copy_); error != 0) {
            errno = error;
            return -1;
        }
        return ::pwrite(image, copy_.data(), copy_.size(), offset);
    }

private:
    static std::uint32_t crc(std::uint32_t value, std::span<const std::byte> bytes) {
        for (const std::byte byte : bytes) {
            value = table[(value ^ static_cast<std::uint32_t>(byte)) & 0xff] ^ (value >> 8);
        }
        return value;
    }

    static constexpr std::array<std::uint32_t, 256> table = [] {
        std::array<std::uint32_t, 256> made{};
        for (std::uint32_t byte = 0; byte < 256; ++byte) {
            std::uint32_t value = byte;
            for (int bit = 0; bit < 8; ++bit) {
                value = (value & 1) != 0 ? 0xedb8'8320 ^ (value >> 1) : value >> 1;
            }
            made[byte] = value;
        }
        return made;
    }();

    int fd_;
    std::vector<std::byte> copy_;
};

}  // namespace hvd
