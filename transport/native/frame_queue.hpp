// Packets that wait for a receiver's buffers: copies, in order, in an amount of memory that the first of them takes and nothing exceeds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <optional>
#include <span>

#include "frame.hpp"

namespace hvd::netif {

class FrameQueue {
public:
    /// As much as a Linux guest's TCP has under way (the most of its tcp_wmem): one stream to whoever is not scheduled for a while
    /// loses nothing.
    static constexpr std::size_t queue_bytes_max = 4'194'304;

    explicit FrameQueue(std::size_t bytes_max = queue_bytes_max) : bytes_max_(bytes_max) {}

    bool empty() const { return first_ == last_ && !wrapped_; }

    /// Copies the frame behind the others; false when there is no room, or no memory.
    bool push(const Frame& frame) {
        const std::size_t needed = record_bytes(frame.size());
        const std::optional<std::size_t> at = place(needed);
        if (!at || !has_memory()) {
            return false;
        }
        const Head head{frame.size(), frame.offload};
        std::memcpy(memory_.get() + *at, &head, sizeof head);
        Frame::Reader(frame).copy(memory_.get() + *at + sizeof head, frame.size());
        last_ = *at + needed;
        return true;
    }

    /// The first one, as a frame of one part.
    void front(Frame& out) const {
        const Head head = head_at(first_);
        out.begin(head.offload);
        out.add({memory_.get() + first_ + sizeof head, head.size});
        out.seal();
    }

    void pop() {
        first_ += record_bytes(head_at(first_).size);
        if (wrapped_ && first_ == end_) {
            first_ = 0;
            wrapped_ = false;
        }
        if (empty()) {
            first_ = last_ = 0;
        }
    }

private:
    struct Head {
        std::uint32_t size;
        Offload offload;
    };
    static constexpr std::size_t record_bytes(std::size_t size) { return (sizeof(Head) + size + alignof(Head) - 1) / alignof(Head) * alignof(Head); }

    Head head_at(std::size_t at) const {
        Head head;
        std::memcpy(&head, memory_.get() + at, sizeof head);
        return head;
    }

    /// Where a record of so many bytes goes: behind the last, or, if that is too near to the end, at the beginning.
    std::optional<std::size_t> place(std::size_t needed) {
        if (wrapped_) {
            return needed <= first_ - last_ ? std::optional(last_) : std::nullopt;
        }
        if (needed <= bytes_max_ - last_) {
            return last_;
        }
        if (needed > first_) {
            return std::nullopt;
        }
        end_ = last_;
        wrapped_ = true;
        return 0;
    }

    /// Most vifs never need any.
    bool has_memory() {
        if (memory_ == nullptr) {
            memory_.reset(new (std::nothrow) std::byte[bytes_max_]);
        }
        return memory_ != nullptr;
    }

    std::size_t bytes_max_;
    std::unique_ptr<std::byte[]> memory_;
    std::size_t first_ = 0;
    std::size_t last_ = 0;
    std::size_t end_ = 0;  // while it is wrapped: behind the last record before the wrap
    bool wrapped_ = false;
};

}  // namespace hvd::netif
