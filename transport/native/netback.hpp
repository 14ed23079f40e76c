// A netif backend's end of one queue: packets off the Tx ring, checked, and packets into the buffers on the Rx ring.
//
// A frontend that breaks the protocol is a PeerFault, and nothing of the packet is used. What is not broken but not to be had now comes
// back as a value: a grant that is not mapped yet, no buffers.
//
// Why raw access is in bounds: a part of a packet lies in one page that GrantMap found whole inside a mapped run, and its offset and
// size, from our own copy of the slot, were found to lie in that page; a run is not unmapped while a packet of it is under way.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <utility>

#include "doorbell.hpp"
#include "faults.hpp"
#include "frame.hpp"
#include "frame_queue.hpp"
#include "grant_map.hpp"
#include "netif.hpp"
#include "ring.hpp"

namespace hvd::netif {

/// A multicast group that a frontend joins or leaves.
struct GroupChange {
    Address group;
    bool joins;
};

class BackQueue {
public:
    static constexpr std::uint32_t batch_slots_max = 64;
    static constexpr std::uint32_t extras_max = 4;  // one of each kind that there is

    /// `waiting_bytes_max`: of packets that there are no buffers for.
    BackQueue(Ring& tx, Ring& rx, Doorbell& tx_bell, Doorbell& rx_bell, const GrantMap& grants, std::size_t waiting_bytes_max)
        : waiting(waiting_bytes_max), tx_(tx), rx_(rx), tx_bell_(tx_bell), rx_bell_(rx_bell), grants_(grants) {
        const bool fits = tx.in_size() == tx_request_size && tx.out_size() == tx_response_size && rx.in_size() == rx_request_size &&
                          rx.out_size() == rx_response_size && tx.size() <= ring_slots && rx.size() <= ring_slots;
        if (!fits) {
            throw LocalError("a network backend needs the backs of a Tx ring of 12- and 4-byte slots and of an Rx ring of 8-byte slots, of 256 at most");
        }
    }

    BackQueue(const BackQueue&) = delete;
    BackQueue& operator=(const BackQueue&) = delete;

    // ---- from the frontend ---------------------------------------------------------------------------------------------------

    /// Takes a batch of slots off the ring, whole packets, unless some of the last one are left. False: there are none.
    bool refill() {
        if (next_ == taken_) {
            taken_ = tx_.pop_many(slots_.data(), batch_slots_max);
            next_ = 0;
            complete_last();
        }
        return next_ != taken_;
    }

    enum class Taken { packet, group, unmapped };

    /// The next packet of the batch, which is not empty. `unmapped`: `missing()` is to be mapped first, then it can be taken again.
    /// Each that was taken is to be answered before the next.
    Taken take(Frame& frame, GroupChange& change) {
        at_ = next_;
        const TxRequest first = slot<TxRequest>();
        answer_count_ = 0;
        remember(first.id);
        Offload offload{(first.flags & tx_csum_blank) != 0, (first.flags & (tx_csum_blank | tx_data_validated)) != 0, gso_none, 0};
        bool changes = false;
        if ((first.flags & tx_extra_info) != 0) {
            changes = take_extras(offload, change);
        }
        if (changes) {
            if ((first.flags & tx_more_data) != 0) {
                throw PeerFault("a change of multicast groups has more data");
            }
            return Taken::group;
        }
        return take_parts(first, offload, frame) ? Taken::packet : Taken::unmapped;
    }

    std::uint32_t missing() const { return missing_; }

    /// The packet that was taken is dealt with; its sender hears of that when answers are published.
    void answer() {
        for (const TxResponse& response : std::span(answers_).first(answer_count_)) {
            tx_.stage(&response, sizeof response);
        }
        next_ = at_;
        answered_ = true;
    }

    void publish_answers() {
        if (std::exchange(answered_, false) && tx_.publish()) {
            tx_bell_.notify();
        }
    }

    // ---- to the frontend -----------------------------------------------------------------------------------------------------

    enum class Put { done, no_buffers, unmapped };

    /// Copies a packet into the frontend's buffers, which hears of it when responses are published.
    Put put(const Frame& frame) {
        const bool extra = frame.offload.gso_type != gso_none;
        const std::uint32_t parts = (frame.size() + std::uint32_t{page_size} - 1) / std::uint32_t{page_size};
        if (!have_buffers(parts + (extra ? 1 : 0))) {
            return Put::no_buffers;
        }
        std::array<std::byte*, packet_bytes_max / page_size + 1> pages;
        for (std::uint32_t part = 0; part < parts; ++part) {
            // Behind the first buffer is the one whose slot the extra info takes.
            std::byte* const page = buffer_page(buffer(part == 0 || !extra ? part : part + 1).ref);
            if (page == nullptr) {
                return Put::unmapped;
            }
            pages[part] = page;
        }
        Frame::Reader reader(frame);
        std::uint32_t left = frame.size();
        for (std::uint32_t part = 0; part < parts; ++part) {
            const std::uint32_t bytes = std::min<std::uint32_t>(left, page_size);
            reader.copy(pages[part], bytes);
            left -= bytes;
            const auto flags = static_cast<std::uint16_t>(when(left != 0, rx_more_data) | (part == 0 ? first_flags(frame.offload) : 0));
            respond(RxResponse{use_buffer().id, 0, flags, static_cast<std::int16_t>(bytes)});
            if (part == 0 && extra) {
                use_buffer();
                ExtraInfo info{extra_gso, 0, {}};
                info.gso = {frame.offload.gso_size, frame.offload.gso_type, 0, 0};
                respond(info);
            }
        }
        return Put::done;
    }

    void publish_responses() {
        if (std::exchange(responded_, false) && rx_.publish()) {
            rx_bell_.notify();
        }
    }

    FrameQueue waiting;  ///< what there were no buffers for, in order

private:
    // ---- requests ------------------------------------------------------------------------------------------------------------

    template <class Slot>
    Slot slot() {
        if (at_ == taken_) {
            throw PeerFault("a packet ends before its last slot");
        }
        Slot copy;
        std::memcpy(&copy, slots_.data() + at_++ * tx_request_size, sizeof copy);
        return copy;
    }

    /// A frontend publishes whole packets, but our batch may end within one: the slots that this one lacks are taken too.
    void complete_last() {
        bool open = false;
        bool in_extras = false;
        std::uint16_t flags = 0;
        for (std::uint32_t index = 0; index < taken_; ++index) {
            const std::byte* at = slots_.data() + index * tx_request_size;
            if (in_extras) {
                in_extras = (static_cast<std::uint8_t>(at[1]) & extra_flag_more) != 0;
            } else {
                TxRequest request;
                std::memcpy(&request, at, sizeof request);
                flags = request.flags;
                in_extras = (flags & tx_extra_info) != 0;
            }
            open = in_extras || (flags & tx_more_data) != 0;
            if (index + 1 == taken_ && open && taken_ < slots_max) {
                taken_ += tx_.pop_many(slots_.data() + taken_ * tx_request_size, 1);
            }
        }
    }

    /// True: the packet is none, but a change of groups.
    bool take_extras(Offload& offload, GroupChange& change) {
        bool changes = false;
        for (std::uint32_t count = 1;; ++count) {
            const auto extra = slot<ExtraInfo>();
            answers_[answer_count_++] = {0, null};
            switch (extra.type) {
                case extra_gso:
                    take_gso(extra.gso, offload);
                    break;
                case extra_mcast_add:
                case extra_mcast_del:
                    change = {extra.group, extra.type == extra_mcast_add};
                    changes = true;
                    break;
                case extra_hash:
                    break;
                default:
                    throw PeerFault("an extra info is of type " + std::to_string(extra.type) + ", which there is not");
            }
            if ((extra.flags & extra_flag_more) == 0) {
                return changes;
            }
            if (count == extras_max) {
                throw PeerFault("a packet has more than " + std::to_string(extras_max) + " extra infos");
            }
        }
    }

    static void take_gso(const Gso& gso, Offload& offload) {
        if (gso.size == 0 || (gso.type != gso_tcpv4 && gso.type != gso_tcpv6)) {
            throw PeerFault("a packet is to be cut up by type " + std::to_string(gso.type) + " into " + std::to_string(gso.size) + " bytes each");
        }
        offload.gso_type = static_cast<GsoType>(gso.type);
        offload.gso_size = gso.size;
    }

    /// False: one of its pages is not mapped.
    bool take_parts(const TxRequest& first, const Offload& offload, Frame& frame) {
        std::array<TxRequest, slots_per_packet_max> parts;
        parts[0] = first;
        std::uint32_t count = 1;
        while ((parts[count - 1].flags & tx_more_data) != 0) {
            if (count == slots_per_packet_max) {
                throw PeerFault("a packet has more than " + std::to_string(slots_per_packet_max) + " parts");
            }
            const auto part = slot<TxRequest>();
            if (part.size > parts[0].size) {
                throw PeerFault("the parts of a packet of " + std::to_string(first.size) + " bytes are more than that");
            }
            parts[0].size = static_cast<std::uint16_t>(parts[0].size - part.size);
            remember(part.id);
            parts[count++] = part;
        }
        if (first.size < frame_bytes_min) {
            throw PeerFault("a packet has " + std::to_string(first.size) + " bytes, which is less than its addresses and type");
        }
        frame.begin(offload);
        for (const TxRequest& part : std::span(parts).first(count)) {
            if (std::uint32_t{part.offset} + part.size > page_size) {
                throw PeerFault("a part of a packet of " + std::to_string(part.size) + " bytes from " + std::to_string(part.offset) + " on crosses its page");
            }
            bool forbidden = false;
            const auto page = grants_.page(part.ref, false, forbidden);
            if (!page) {
                missing_ = part.ref;
                return false;
            }
            frame.add({*page + part.offset, part.size});
        }
        frame.seal();
        return true;
    }

    void remember(std::uint16_t id) { answers_[answer_count_++] = {id, okay}; }

    // ---- buffers -------------------------------------------------------------------------------------------------------------

    bool have_buffers(std::uint32_t count) {
        if (stock_count_ < count) {
            const std::uint32_t popped = rx_.pop_many(untrusted_requests_.data(), ring_slots - stock_count_);
            for (const RxRequest& request : std::span(untrusted_requests_).first(popped)) {
                stock_[(stock_first_ + stock_count_++) % ring_slots] = request;
            }
        }
        return stock_count_ >= count;
    }

    const RxRequest& buffer(std::uint32_t index) const { return stock_[(stock_first_ + index) % ring_slots]; }

    RxRequest use_buffer() {
        const RxRequest used = buffer(0);
        stock_first_ = (stock_first_ + 1) % ring_slots;
        --stock_count_;
        return used;
    }

    std::byte* buffer_page(std::uint32_t ref) {
        bool forbidden = false;
        const auto page = grants_.page(ref, true, forbidden);
        if (forbidden) {
            throw PeerFault("a buffer names ref " + std::to_string(ref) + ", which may only be read");
        }
        if (!page) {
            missing_ = ref;
            return nullptr;
        }
        return *page;
    }

    static std::uint16_t first_flags(const Offload& offload) {
        return static_cast<std::uint16_t>(when(offload.data_validated, rx_data_validated) | when(offload.csum_blank, rx_csum_blank) |
                                          when(offload.gso_type != gso_none, rx_extra_info));
    }

    template <class Slot>
    void respond(const Slot& response) {
        static_assert(sizeof response == rx_response_size);
        rx_.stage(&response, sizeof response);
        responded_ = true;
    }

    static constexpr std::uint32_t frame_bytes_min = 14;
    static constexpr std::uint32_t slots_max = batch_slots_max + slots_per_packet_max + extras_max;

    Ring& tx_;
    Ring& rx_;
    Doorbell& tx_bell_;
    Doorbell& rx_bell_;
    const GrantMap& grants_;
    std::array<std::byte, slots_max * tx_request_size> slots_{};  // our own copies
    std::uint32_t taken_ = 0;
    std::uint32_t next_ = 0;
    std::uint32_t at_ = 0;  // behind the packet that was taken
    std::array<TxResponse, slots_per_packet_max + extras_max> answers_{};
    std::uint32_t answer_count_ = 0;
    bool answered_ = false;
    std::array<RxRequest, ring_slots> untrusted_requests_{};
    std::array<RxRequest, ring_slots> stock_{};  // buffers that were offered: our own copies, in order
    std::uint32_t stock_first_ = 0;
    std::uint32_t stock_count_ = 0;
    bool responded_ = false;
    std::uint32_t missing_ = 0;
};

}  // namespace hvd::netif
