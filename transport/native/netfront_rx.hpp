// The receiving half of a netif frontend's queue: buffers into the Rx ring, and what arrives in them.
//
// A buffer that arrived is the guest's until it gives it back. Its slot tells which one it is, as Linux' frontends have it, since an extra
// info in a slot leaves no room for an id.
//
// Why raw access is in bounds: buffers are numbers of our own; a response's offset and size are compared with the page's before they are
// used, and both come from our own copy of the slot.
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "doorbell.hpp"
#include "faults.hpp"
#include "netif.hpp"
#include "ring.hpp"

namespace hvd::netif {

class Receiver {
public:
    /// `memory`: a page for each buffer, granted as `first_ref`, `first_ref` + 1, ...
    Receiver(std::span<std::byte> memory, std::uint32_t first_ref) : memory_(memory), first_ref_(first_ref) {
        free_every_buffer();
    }

    /// A packet that arrived. Its bytes lie in pages that the backend may write: copy what must not change while it is looked at.
    struct Arrived {
        std::array<iovec, slots_per_packet_max> parts;
        std::uint32_t count = 0;
        std::uint32_t bytes = 0;
        Offload offload;
    };

    /// The oldest one; false: there is none. `release` gives its buffers back.
    bool next(Arrived& out) const {
        if (arrived_count_ == 0) {
            return false;
        }
        out.count = 0;
        out.bytes = 0;
        out.offload = at(0).offload;
        for (std::uint32_t index = 0;; ++index) {
            const Part& part = at(index);
            out.parts[out.count++] = {rx_page(part.page) + part.offset, part.bytes};
            out.bytes += part.bytes;
            if (part.last) {
                return true;
            }
        }
    }

    /// The oldest packet was dealt with.
    void release() {
        for (bool last = false; !last;) {
            const Part& part = at(0);
            last = part.last;
            free_buffers_.push_back(part.page);
            arrived_first_ = (arrived_first_ + 1) % ring_slots;
            --arrived_count_;
        }
    }

    /// Posts every free buffer, and tells the backend, if it waits for one.
    void post() {
        if (rx_ == nullptr || free_buffers_.empty()) {
            return;
        }
        for (; !free_buffers_.empty(); free_buffers_.pop_back()) {
            const std::uint16_t buffer = free_buffers_.back();
            const RxRequest request{buffer, 0, first_ref_ + buffer};
            rx_->stage(&request, sizeof request);
            buffer_at_[posted_++ % ring_slots] = buffer;
        }
        if (rx_->publish()) {
            rx_bell_->notify();
        }
    }

protected:
    Receiver(const Receiver&) = delete;
    Receiver& operator=(const Receiver&) = delete;
    ~Receiver() = default;

    void attach_rx(Ring& ring, Doorbell& bell) {
        rx_ = &ring;
        rx_bell_ = &bell;
        posted_ = consumed_ = 0;
        post();
    }

    void detach_rx() {
        rx_ = nullptr;
        rx_bell_ = nullptr;
        free_every_buffer();
    }

    /// A backend publishes whole packets.
    void collect_packets() {
        const std::uint32_t count = rx_->pop_many(untrusted_responses_.data(), ring_slots);
        for (std::uint32_t index = 0; index < count;) {
            index += take_in(std::span(untrusted_responses_).subspan(index, count - index));
        }
    }

private:
    /// A part of what arrived.
    struct Part {
        std::uint16_t page;
        std::uint16_t offset;
        std::uint16_t bytes;
        bool last;
        Offload offload;
    };

    std::byte* rx_page(std::uint16_t buffer) const { return memory_.data() + buffer * page_size; }
    const Part& at(std::uint32_t index) const { return arrived_[(arrived_first_ + index) % ring_slots]; }

    /// Every one that is not the guest's.
    void free_every_buffer() {
        std::array<bool, ring_slots> taken{};
        for (std::uint32_t index = 0; index < arrived_count_; ++index) {
            taken[at(index).page] = true;
        }
        free_buffers_.clear();
        for (std::uint16_t buffer = 0; buffer < ring_slots; ++buffer) {
            if (!taken[buffer]) {
                free_buffers_.push_back(buffer);
            }
        }
    }

    /// The packet that begins here; how many slots it has.
    std::uint32_t take_in(std::span<const RxResponse> slots) {
        Offload offload;
        std::uint32_t used = 0;
        std::uint32_t parts = 0;
        bool failed = false;
        for (bool more = true; more; ++parts) {
            const RxResponse response = slot<RxResponse>(slots, used);
            const std::uint16_t page = use_buffer(used);
            more = (response.flags & rx_more_data) != 0;
            if (parts == 0) {
                offload = {(response.flags & rx_csum_blank) != 0, (response.flags & (rx_csum_blank | rx_data_validated)) != 0, gso_none, 0};
            }
            if (parts == slots_per_packet_max) {
                throw PeerFault("a packet has more than " + std::to_string(slots_per_packet_max) + " parts");
            }
            failed |= response.status <= 0;
            const auto bytes = static_cast<std::uint16_t>(std::max<std::int16_t>(response.status, 0));
            if (std::uint32_t{response.offset} + bytes > page_size) {
                throw PeerFault("a part of " + std::to_string(bytes) + " bytes from " + std::to_string(response.offset) + " on crosses its page");
            }
            arrived_[(arrived_first_ + arrived_count_ + parts) % ring_slots] = {page, response.offset, bytes, !more, {}};
            if (parts == 0 && (response.flags & rx_extra_info) != 0) {
                take_extras(slots, used, offload);
            }
        }
        at_end(parts, offload, failed);
        return used;
    }

    template <class Slot>
    static Slot slot(std::span<const RxResponse> slots, std::uint32_t index) {
        if (index == slots.size()) {
            throw PeerFault("a packet ends before its last slot");
        }
        Slot copy;
        std::memcpy(&copy, &slots[index], sizeof copy);
        return copy;
    }

    /// The buffer of the slot, which is used up.
    std::uint16_t use_buffer(std::uint32_t& used) {
        ++used;
        return buffer_at_[consumed_++ % ring_slots];
    }

    void take_extras(std::span<const RxResponse> slots, std::uint32_t& used, Offload& offload) {
        for (bool more = true; more;) {
            const auto extra = slot<ExtraInfo>(slots, used);
            free_buffers_.push_back(use_buffer(used));
            more = (extra.flags & extra_flag_more) != 0;
            if (extra.type == extra_gso) {
                if (extra.gso.size == 0 || (extra.gso.type != gso_tcpv4 && extra.gso.type != gso_tcpv6)) {
                    throw PeerFault("a packet is to be cut up by type " + std::to_string(extra.gso.type));
                }
                offload.gso_type = static_cast<GsoType>(extra.gso.type);
                offload.gso_size = extra.gso.size;
            } else if (extra.type != extra_hash) {
                throw PeerFault("an extra info is of type " + std::to_string(extra.type));
            }
        }
    }

    /// What the backend could not bring whole gives its buffers back.
    void at_end(std::uint32_t parts, const Offload& offload, bool failed) {
        arrived_[(arrived_first_ + arrived_count_) % ring_slots].offload = offload;
        if (!failed) {
            arrived_count_ += parts;
            return;
        }
        for (std::uint32_t part = 0; part < parts; ++part) {
            free_buffers_.push_back(arrived_[(arrived_first_ + arrived_count_ + part) % ring_slots].page);
        }
    }

    std::span<std::byte> memory_;
    std::uint32_t first_ref_;
    Ring* rx_ = nullptr;
    Doorbell* rx_bell_ = nullptr;
    std::vector<std::uint16_t> free_buffers_;  // not in the ring, and not the guest's
    std::array<std::uint16_t, ring_slots> buffer_at_{};  // by slot
    std::uint32_t posted_ = 0;
    std::uint32_t consumed_ = 0;
    std::array<RxResponse, ring_slots> untrusted_responses_{};  // our own copies
    std::array<Part, ring_slots> arrived_{};
    std::uint32_t arrived_first_ = 0;
    std::uint32_t arrived_count_ = 0;
};

}  // namespace hvd::netif
