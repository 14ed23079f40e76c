// The sending half of a netif frontend's queue: packets into the Tx ring, and into the next backend's when one died.
//
// Every page belongs to one Tx id. A packet keeps its pages until the backend has answered all of its parts; what was not answered when a
// backend died is put into the next one's ring, in the order in which it was sent.
//
// Why raw access is in bounds: pages are indexed by ids of our own; an answer's id is compared with the table's size before it is used.
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

class Transmitter {
public:
    static constexpr std::uint32_t parts_max = packet_bytes_max / page_size + 1;

    /// `memory`: a page for each Tx id, granted as `first_ref`, `first_ref` + 1, ...
    Transmitter(std::span<std::byte> memory, std::uint32_t first_ref) : memory_(memory), first_ref_(first_ref) {
        for (std::uint16_t id = ring_slots; id-- > 0;) {
            free_ids_.push_back(id);
        }
    }

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

    /// Answers alone: for who needs room.
    void collect_answers() {
        std::array<TxResponse, 64> untrusted{};
        while (const std::uint32_t count = tx_ == nullptr ? 0 : tx_->pop_many(untrusted.data(), untrusted.size())) {
            for (const TxResponse& response : std::span(untrusted).first(count)) {
                answered(response);
            }
        }
    }

protected:
    Transmitter(const Transmitter&) = delete;
    Transmitter& operator=(const Transmitter&) = delete;
    ~Transmitter() = default;

    void attach_tx(Ring& ring, Doorbell& bell) {
        tx_ = &ring;
        tx_bell_ = &bell;
        send_again();
    }

    void detach_tx() {
        tx_ = nullptr;
        tx_bell_ = nullptr;
    }

    bool has_tx() const { return tx_ != nullptr; }

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

    std::byte* tx_page(std::uint16_t id) const { return memory_.data() + id * page_size; }

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

    std::span<std::byte> memory_;
    std::uint32_t first_ref_;
    Ring* tx_ = nullptr;
    Doorbell* tx_bell_ = nullptr;
    std::array<Sent, ring_slots> sent_{};
    std::vector<std::uint16_t> free_ids_;  // the one used last first: its page is warm
    std::uint64_t sequence_ = 0;
    std::uint32_t used_slots_ = 0;  // of packets that were not answered: they fit into an empty ring
    std::uint32_t in_flight_ = 0;
    bool staged_ = false;
};

}  // namespace hvd::netif
