// A netif frontend's end of one queue: packets into the Tx ring, and what arrives in the buffers on the Rx ring, across the deaths of
// backends.
//
// Every page belongs to one Tx id or is one Rx buffer, and never anything else. A packet keeps its pages until the backend has answered
// all of its parts; what was not answered when a backend died is put into the next one's ring, in the order in which it was sent. A
// buffer that arrived is the guest's until it gives it back; its slot tells which one it is, as Linux' frontends have it, since an extra
// info in a slot leaves no room for an id.
//
// Why raw access is in bounds: pages are indexed by ids of our own; a response's id is compared with the table's size, its offset and
// size with the page's, before they are used, and both come from our own copy of the slot.
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "doorbell.hpp"
#include "faults.hpp"
#include "netif.hpp"
#include "ring.hpp"

namespace hvd::netif {

class FrontQueue {
public:
    static constexpr std::uint32_t pages = 2 * ring_slots;
    static constexpr std::uint32_t parts_max = packet_bytes_max / page_size + 1;

    /// `memory`: the pages of all Tx ids, then all Rx buffers, granted as `first_ref`, `first_ref` + 1, ...
    FrontQueue(std::span<std::byte> memory, std::uint32_t first_ref) : memory_(memory), first_ref_(first_ref) {
        if (memory.size() != pages * page_size) {
            throw LocalError("a network queue has " + std::to_string(pages) + " pages");
        }
        for (std::uint16_t page = ring_slots; page-- > 0;) {
            free_ids_.push_back(page);
            free_buffers_.push_back(page);
        }
    }

    FrontQueue(const FrontQueue&) = delete;
    FrontQueue& operator=(const FrontQueue&) = delete;

    // ---- backends come and go ------------------------------------------------------------------------------------------------

    /// A backend serves these rings, which are empty: what was not answered goes into the one, every free buffer into the other.
    void attach(Ring& tx, Ring& rx, Doorbell& tx_bell, Doorbell& rx_bell) {
        const bool fits = tx.out_size() == tx_request_size && tx.in_size() == tx_response_size && rx.out_size() == rx_request_size &&
                          rx.in_size() == rx_response_size && tx.size() == ring_slots && rx.size() == ring_slots;
        if (!fits) {
            throw LocalError("a network frontend needs the fronts of rings of one page, with 12- and 4-byte slots and with 8-byte slots");
        }
        tx_ = &tx;
        rx_ = &rx;
        tx_bell_ = &tx_bell;
        rx_bell_ = &rx_bell;
        posted_ = consumed_ = 0;
        send_again();
        post();
    }

    /// The backend is dead and fenced: nobody uses any page. Every buffer that is not the guest's is free.
    void detach() {
        tx_ = rx_ = nullptr;
        tx_bell_ = rx_bell_ = nullptr;
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

    bool attached() const { return tx_ != nullptr; }

    // ---- to the backend ------------------------------------------------------------------------------------------------------

    /// Whether a packet of so many bytes can be sent now, whole.
    bool has_room(std::uint32_t bytes, bool gso) const {
        const std::uint32_t parts = std::max<std::uint32_t>(1, (bytes + std::uint32_t{page_size} - 1) / std::uint32_t{page_size});
        const std::uint32_t slots = parts + (gso ? 1 : 0);
        return free_ids_.size() >= parts && used_slots_ + slots <= ring_slots && (tx_ == nullptr || tx_->free() >= slots);
    }

    /// Copies a packet there was room for; the backend hears of it with `publish`.
    void send(std::span<const std::byte> packet, const Offload& offload) {
        const auto bytes = static_cast<std::uint32_t>(packet.size());
        iovec parts[parts_max];
        const std::uint32_t count = lend(parts, bytes);
        for (const iovec& part : std::span(parts).first(count)) {
            std::memcpy(part.iov_base, packet.data(), part.iov_len);
            packet = packet.subspan(part.iov_len);
        }
        send_lent(bytes, offload);
    }

    /// Where a packet of at most so many bytes, for which there is room, may be written; `send_lent` follows, or nothing.
    std::uint32_t lend(iovec* parts, std::uint32_t bytes) const {
        std::uint32_t count = 0;
        for (; bytes != 0; ++count) {
            const std::uint32_t here = std::min<std::uint32_t>(bytes, page_size);
            parts[count] = {tx_page(free_ids_[free_ids_.size() - 1 - count]), here};
            bytes -= here;
        }
        return count;
    }

    /// Sends what was written where `lend` said.
    void send_lent(std::uint32_t bytes, const Offload& offload) {
        const std::uint16_t first = note(bytes, offload.gso_type != gso_none ? 1 : 0);
        sent_[first].offload = offload;
        put(first);
    }

    /// Joins or leaves a multicast group: a packet of no bytes, for which there is room.
    void change_group(const Address& group, bool joins) {
        const std::uint16_t first = note(0, 1);
        sent_[first].group = group;
        sent_[first].kind = joins ? extra_mcast_add : extra_mcast_del;
        put(first);
    }

    /// Tells the backend of what was sent, if it asked for that.
    void publish() {
        if (std::exchange(staged_, false) && tx_ != nullptr && tx_->publish()) {
            tx_bell_->notify();
        }
    }

    /// Packets that were sent and not answered.
    std::uint32_t in_flight() const { return in_flight_; }

    // ---- from the backend ----------------------------------------------------------------------------------------------------

    /// Takes in every answer and every packet there is; PeerFault when the backend broke the protocol.
    void collect() {
        if (tx_ == nullptr) {
            return;
        }
        collect_answers();
        collect_packets();
    }

    /// Answers alone: for who needs room.
    void collect_answers() {
        std::array<TxResponse, 64> untrusted{};
        while (const std::uint32_t count = tx_ == nullptr ? 0 : tx_->pop_many(untrusted.data(), untrusted.size())) {
            for (const TxResponse& response : std::span(untrusted).first(count)) {
                answered(response);
            }
        }
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
            const RxRequest request{buffer, 0, first_ref_ + ring_slots + buffer};
            rx_->stage(&request, sizeof request);
            buffer_at_[posted_++ % ring_slots] = buffer;
        }
        if (rx_->publish()) {
            rx_bell_->notify();
        }
    }

private:
    static constexpr std::uint16_t none = 0xffff;

    /// What was sent under an id; beside `open` and `next`, of the packet that the id is the first of.
    struct Sent {
        std::uint64_t sequence = 0;  ///< 0: it is no packet's first
        std::uint32_t bytes = 0;
        std::uint16_t first = none;
        std::uint16_t next = none;
        std::uint16_t parts_open = 0;
        bool open = false;  ///< it is in the ring, and was not answered
        std::uint8_t extras = 0;
        ExtraType kind = extra_none;
        Offload offload;
        Address group{};
    };

    /// A part of what arrived.
    struct Part {
        std::uint16_t page;
        std::uint16_t offset;
        std::uint16_t bytes;
        bool last;
        Offload offload;
    };

    std::byte* tx_page(std::uint16_t id) const { return memory_.data() + id * page_size; }
    std::byte* rx_page(std::uint16_t buffer) const { return memory_.data() + (ring_slots + buffer) * page_size; }
    const Part& at(std::uint32_t index) const { return arrived_[(arrived_first_ + index) % ring_slots]; }

    // ---- sending -------------------------------------------------------------------------------------------------------------

    /// A new packet in the ids that `lend` named.
    std::uint16_t note(std::uint32_t bytes, std::uint8_t extras) {
        const std::uint32_t parts = std::max<std::uint32_t>(1, (bytes + std::uint32_t{page_size} - 1) / std::uint32_t{page_size});
        const std::uint16_t first = free_ids_.back();
        std::uint16_t previous = none;
        for (std::uint32_t part = 0; part < parts; ++part) {
            const std::uint16_t id = free_ids_.back();
            free_ids_.pop_back();
            sent_[id] = Sent{};
            sent_[id].first = first;
            if (previous != none) {
                sent_[previous].next = id;
            }
            previous = id;
        }
        Sent& packet = sent_[first];
        packet.sequence = ++sequence_;
        packet.bytes = bytes;
        packet.parts_open = static_cast<std::uint16_t>(parts);
        packet.extras = extras;
        used_slots_ += parts + extras;
        ++in_flight_;
        return first;
    }

    /// Into the ring, if there is one; else when there is.
    void put(std::uint16_t first) {
        if (tx_ == nullptr) {
            return;
        }
        const Sent& packet = sent_[first];
        std::uint32_t left = packet.bytes;
        for (std::uint16_t id = first; id != none; id = sent_[id].next) {
            const bool more = sent_[id].next != none;
            const std::uint32_t here = std::min<std::uint32_t>(left, page_size);
            left -= here;
            const auto flags = static_cast<std::uint16_t>(when(more, tx_more_data) | (id == first ? first_flags(packet) : 0));
            const auto size = static_cast<std::uint16_t>(id == first ? packet.bytes : here);
            const TxRequest request{first_ref_ + id, 0, flags, id, size};
            tx_->stage(&request, sizeof request);
            sent_[id].open = true;
            if (id == first && packet.extras != 0) {
                put_extra(packet);
            }
        }
        staged_ = true;
    }

    static std::uint16_t first_flags(const Sent& packet) {
        const Offload& about = packet.offload;
        return static_cast<std::uint16_t>(when(packet.extras != 0, tx_extra_info) | when(about.csum_blank, tx_csum_blank) |
                                          when(about.data_validated, tx_data_validated));
    }

    void put_extra(const Sent& packet) {
        ExtraInfo extra{packet.kind == extra_none ? extra_gso : packet.kind, 0, {}};
        if (packet.kind == extra_none) {
            extra.gso = {packet.offload.gso_size, packet.offload.gso_type, 0, 0};
        } else {
            extra.group = packet.group;
        }
        tx_->stage(&extra, sizeof extra);
    }

    /// What the last backend did not answer whole goes to this one whole.
    void send_again() {
        std::vector<std::uint16_t> open;
        for (std::uint16_t id = 0; id < ring_slots; ++id) {
            if (sent_[id].sequence != 0) {
                open.push_back(id);
            }
        }
        std::sort(open.begin(), open.end(), [this](std::uint16_t a, std::uint16_t b) { return sent_[a].sequence < sent_[b].sequence; });
        for (const std::uint16_t first : open) {
            std::uint16_t parts = 0;
            for (std::uint16_t id = first; id != none; id = sent_[id].next) {
                ++parts;
            }
            sent_[first].parts_open = parts;
            put(first);
        }
        publish();
    }

    void answered(const TxResponse& untrusted) {
        if (untrusted.status == null) {
            return;  // of an extra info
        }
        if (untrusted.id >= ring_slots || !sent_[untrusted.id].open) {
            throw PeerFault("an answer is to Tx id " + std::to_string(untrusted.id) + ", which is not open");
        }
        sent_[untrusted.id].open = false;
        const std::uint16_t first = sent_[untrusted.id].first;
        if (--sent_[first].parts_open == 0) {
            give_back(first);
        }
    }

    void give_back(std::uint16_t first) {
        --in_flight_;
        used_slots_ -= sent_[first].extras;
        sent_[first].sequence = 0;
        for (std::uint16_t id = first; id != none; id = sent_[id].next) {
            free_ids_.push_back(id);
            --used_slots_;
        }
    }

    // ---- receiving -----------------------------------------------------------------------------------------------------------

    /// A backend publishes whole packets.
    void collect_packets() {
        const std::uint32_t count = rx_->pop_many(untrusted_responses_.data(), ring_slots);
        for (std::uint32_t index = 0; index < count;) {
            index += take_in(std::span(untrusted_responses_).subspan(index, count - index));
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
    Ring* tx_ = nullptr;
    Ring* rx_ = nullptr;
    Doorbell* tx_bell_ = nullptr;
    Doorbell* rx_bell_ = nullptr;
    std::array<Sent, ring_slots> sent_{};
    std::vector<std::uint16_t> free_ids_;      // the one used last first: its page is warm
    std::vector<std::uint16_t> free_buffers_;  // not in the ring, and not the guest's
    std::uint64_t sequence_ = 0;
    std::uint32_t used_slots_ = 0;  // of packets that were not answered: they fit into an empty ring
    std::uint32_t in_flight_ = 0;
    bool staged_ = false;
    std::array<std::uint16_t, ring_slots> buffer_at_{};  // by slot
    std::uint32_t posted_ = 0;
    std::uint32_t consumed_ = 0;
    std::array<RxResponse, ring_slots> untrusted_responses_{};  // our own copies
    std::array<Part, ring_slots> arrived_{};
    std::uint32_t arrived_first_ = 0;
    std::uint32_t arrived_count_ = 0;
};

}  // namespace hvd::netif
