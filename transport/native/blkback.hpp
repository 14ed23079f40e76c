// A blkif backend's way of one batch: requests off the ring, checked, carried straight between granted pages and an image, answered.
//
// What it cannot decide (a grant that is not mapped, a failed transfer, everything but READ and WRITE) it holds and hands to
// its caller, who says how to go on. It has no policy, and makes no system call but the transfer itself.
//
// Why raw access is in bounds: a scatter list holds only memory that `Decoder` found whole inside a mapped run, and is used
// before that run can be unmapped (`clear` is refused while a batch is under way in another thread).
#pragma once

#include <limits.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <span>

#include "blkif.hpp"
#include "doorbell.hpp"
#include "faults.hpp"
#include "ring.hpp"

namespace hvd::blkif {

/// Carries a whole scatter list from or to a byte offset; 0 or an errno. A file that ends too early is EIO.
/// `call(parts, count, offset)` is preadv or pwritev: it may do less than it was asked for, and may be interrupted.
template <class Call>
int transfer(std::span<iovec> parts, std::int64_t offset, Call&& call) {
    while (!parts.empty()) {
        const ssize_t result = call(parts.data(), static_cast<int>(std::min<std::size_t>(parts.size(), IOV_MAX)), offset);
        if (result < 0 && errno == EINTR) {
            continue;
        }
        if (result <= 0) {
            return result < 0 ? errno : EIO;
        }
        offset += result;
        auto done = static_cast<std::size_t>(result);
        while (!parts.empty() && done >= parts.front().iov_len) {
            done -= parts.front().iov_len;
            parts = parts.subspan(1);
        }
        if (done != 0) {
            parts.front().iov_base = static_cast<std::byte*>(parts.front().iov_base) + done;
            parts.front().iov_len -= done;
        }
    }
    return 0;
}

/// What a held request waits for.
enum class Need : std::uint8_t {
    nothing,  ///< none is held: the batch is done
    map,      ///< `missing` is not mapped: map it and `resume`, or `answer`
    control,  ///< neither READ nor WRITE: carry it out and `answer`
    failed,   ///< the transfer failed with `error`: `answer`
    release,  ///< as good as answered with `status`: let go of its grants and `answer`
};

struct Held {
    Need need = Need::nothing;
    std::uint8_t operation = 0;
    Status status = okay;
    int error = 0;
    std::uint32_t missing = 0;
    std::uint64_t sector = 0;
    std::uint64_t sectors = 0;
};

class Back {
public:
    static constexpr std::uint32_t batch_max = 32;

    /// Not `persistent`: the frontend ends its grants when it has the answer, so every request is held for their release.
    Back(Ring& ring, Doorbell& bell, const Disk& disk, bool persistent)
        : ring_(ring), bell_(bell), decoder_(disk, grants_), persistent_(persistent) {
        if (ring.in_size() != request_size || ring.out_size() != response_size) {
            throw LocalError("a block backend needs the back of a ring of 112-byte requests and 16-byte responses");
        }
    }

    Back(const Back&) = delete;
    Back& operator=(const Back&) = delete;

    void add(std::uint32_t ref, std::span<std::byte> memory, bool writable) { grants_.add(ref, memory, writable); }
    void clear() { grants_.clear(); }

    /// Takes up to `limit` requests off the ring and carries them out until one has to be held.
    /// `io(operation, parts, count, offset, bytes)`: preadv or pwritev, part of a request of so many bytes.
    template <class Io>
    Held serve(std::uint32_t limit, Io&& io) {
        if (next_ != taken_) {
            throw LocalError("a request of this batch is held: answer it first");
        }
        taken_ = ring_.pop_many(slots_.data(), std::min(limit, batch_max));
        next_ = 0;
        return resume(io);
    }

    /// Goes on with the held request, whose grant has been mapped.
    template <class Io>
    Held resume(Io&& io) {
        for (; next_ < taken_; ++next_) {
            const Held held = carry_out(io);
            if (held.need != Need::nothing) {
                return held;
            }
        }
        return {};
    }

    /// Answers the held request and goes on with the next.
    template <class Io>
    Held answer(Status status, Io&& io) {
        if (next_ == taken_) {
            throw LocalError("no request is held");
        }
        respond(status);
        ++next_;
        return resume(io);
    }

private:
    template <class Io>
    Held carry_out(Io& io) {
        decoder_.decode(slot(next_), request_);
        if (request_.missing) {
            return held(Need::map);
        }
        if (request_.status == okay && request_.operation != read && request_.operation != write) {
            return held(Need::control);
        }
        if (request_.status == okay) {
            const auto offset = static_cast<std::int64_t>(request_.sector * sector_size);
            const std::uint64_t bytes = request_.sectors * sector_size;
            const int error = transfer(request_.memory, offset, [&](const iovec* parts, int count, std::int64_t at) {
                return io(request_.operation, parts, count, at, bytes);
            });
            if (error != 0) {
                return held(Need::failed, error);
            }
        }
        if (!persistent_) {
            return held(Need::release);
        }
        respond(request_.status);
        return {};
    }

    Held held(Need need, int error = 0) const {
        return {need, request_.operation, request_.status, error, request_.missing.value_or(0), request_.sector, request_.sectors};
    }

    /// Each answer is published at once: what a frontend waits for is never behind another request's I/O.
    void respond(Status status) {
        const Response response{request_.id, request_.operation, 0, status, 0};
        if (ring_.push(&response, sizeof response)) {
            bell_.notify();
        }
    }

    std::span<const std::byte, request_size> slot(std::uint32_t index) const {
        return std::span<const std::byte, request_size>(slots_.data() + index * request_size, request_size);
    }

    Ring& ring_;
    Doorbell& bell_;
    GrantMap grants_;
    Decoder decoder_;
    bool persistent_;
    std::array<std::byte, batch_max * request_size> slots_{};  // our own copies
    std::uint32_t taken_ = 0;
    std::uint32_t next_ = 0;
    Checked request_;
};

}  // namespace hvd::blkif
