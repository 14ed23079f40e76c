// A packet on its way between two domains: its first bytes in memory of our own, the rest where its sender has it.
//
// What is decided about a packet is decided by the first bytes, which were copied once; they are also what its receiver gets. The rest
// is copied straight from the sender's pages to the receiver's. A sender that changes it meanwhile changes nothing but its own data.
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "netif.hpp"

namespace hvd::netif {

class Frame {
public:
    static constexpr std::size_t head_max = 256;

    /// Forgets what it was; `add` follows for each part of the packet, then `seal`.
    void begin(const Offload& about) {
        offload = about;
        count_ = 0;
        size_ = 0;
    }

    /// At most one for each slot of a packet.
    void add(std::span<const std::byte> part) {
        parts_[count_++] = part;
        size_ += static_cast<std::uint32_t>(part.size());
    }

    /// Copies the first bytes, once.
    void seal() {
        head_ = storage_.data() + tag_bytes;
        head_size_ = 0;
        first_ = 0;
        for (; first_ < count_ && head_size_ < head_max; ++first_) {
            std::span<const std::byte>& part = parts_[first_];
            const std::size_t taken = std::min(part.size(), head_max - head_size_);
            std::memcpy(head_ + head_size_, part.data(), taken);
            head_size_ += taken;
            if (taken < part.size()) {
                part = part.subspan(taken);
                break;
            }
        }
    }

    std::span<std::byte> head() { return {head_, head_size_}; }
    std::span<const std::byte> head() const { return {head_, head_size_}; }
    std::uint32_t size() const { return size_; }

    /// Takes the four bytes behind the addresses away: they are a VLAN tag.
    void remove_tag() {
        std::memmove(head_ + tag_bytes, head_, addresses_bytes);
        move_head(tag_bytes);
    }

    /// Puts a VLAN tag behind the addresses; only of a frame that had one removed, or none yet.
    void insert_tag(std::uint16_t control) {
        move_head(-static_cast<std::ptrdiff_t>(tag_bytes));
        std::memmove(head_, head_ + tag_bytes, addresses_bytes);
        const std::uint8_t tag[tag_bytes] = {0x81, 0x00, static_cast<std::uint8_t>(control >> 8), static_cast<std::uint8_t>(control & 0xff)};
        std::memcpy(head_ + addresses_bytes, tag, sizeof tag);
    }

    /// The packet as it lies there: the head, and what is left of each part; how many.
    std::size_t pieces(std::span<iovec, slots_per_packet_max + 1> to) const {
        std::size_t count = 0;
        to[count++] = {head_, head_size_};
        for (std::size_t part = first_; part < count_; ++part) {
            // iovec has no const; nobody writes there.
            to[count++] = {const_cast<std::byte*>(parts_[part].data()), parts_[part].size()};
        }
        return count;
    }

    /// Copies the whole packet, piece by piece, in order.
    class Reader {
    public:
        explicit Reader(const Frame& frame) : frame_(frame), now_(frame.head()), next_(frame.first_) {}

        /// The next `bytes`, of which there are so many.
        void copy(std::byte* to, std::size_t bytes) {
            while (bytes != 0) {
                while (now_.empty()) {
                    now_ = frame_.parts_[next_++];
                }
                const std::size_t taken = std::min(bytes, now_.size());
                std::memmove(to, now_.data(), taken);  // a frontend may name one page for both
                now_ = now_.subspan(taken);
                to += taken;
                bytes -= taken;
            }
        }

    private:
        const Frame& frame_;
        std::span<const std::byte> now_;
        std::size_t next_;
    };

    Offload offload;

private:
    static constexpr std::size_t tag_bytes = 4;
    static constexpr std::size_t addresses_bytes = 12;

    void move_head(std::ptrdiff_t by) {
        head_ += by;
        head_size_ -= static_cast<std::size_t>(by);
        size_ -= static_cast<std::uint32_t>(by);
    }

    std::array<std::byte, tag_bytes + head_max> storage_;
    std::byte* head_ = nullptr;
    std::size_t head_size_ = 0;
    std::array<std::span<const std::byte>, slots_per_packet_max> parts_;
    std::size_t count_ = 0;
    std::size_t first_ = 0;  // the first part that is not wholly in the head
    std::uint32_t size_ = 0;
};

}  // namespace hvd::netif
