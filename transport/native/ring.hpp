// One end of a shared ring with the layout and notification rule of Xen's public/io/ring.h.
//
// Front and back are the same verbs over mirrored words: the front produces requests and consumes responses, the back
// the reverse. Cursors are private; only the producer and event words are shared, and each is read once per step.
//
// Why every raw access is in bounds: the constructor takes a span that holds the 64-byte header and `size` whole slots
// (size a power of two), and slots are addressed by `cursor & (size - 1)` of a private cursor. A value read from shared
// memory never becomes an address: it is compared with what the protocol allows at most, and a value beyond it is the
// peer's fault and closes the ring.
//
// An index that is wrong and possible would go unnoticed. Where both ends keep checks, the producer writes the complement
// of its index ahead of it, so that what the consumer reads behind the index is as new, or newer: an index that has been
// raised is ahead of its check. And each end looks whether its own index is still what it has published.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>

#include "faults.hpp"
#include "layouts.hpp"
#include "trace.hpp"

namespace hvd {

enum class RingEnd { front, back };

/// Sizes in bytes; a slot is C's union of request and response, so its padding is the caller's knowledge.
struct RingShape {
    std::size_t request_size;
    std::size_t response_size;
    std::size_t slot_size;
};

namespace detail {

struct __attribute__((packed, may_alias)) UnalignedWord {
    std::uint64_t value;
};

/// Copies out of memory that the peer may change meanwhile: each byte is read exactly once (hence volatile), so that
/// what is checked later is what was copied.
inline void copy_out_once(std::byte* to, const std::byte* from, std::size_t bytes) {
    std::size_t at = 0;
    for (; at + sizeof(std::uint64_t) <= bytes; at += sizeof(std::uint64_t)) {
        const std::uint64_t word = reinterpret_cast<const volatile UnalignedWord*>(from + at)->value;
        std::memcpy(to + at, &word, sizeof word);
    }
    for (; at < bytes; ++at) {
        to[at] = *reinterpret_cast<const volatile std::byte*>(from + at);
    }
}

}  // namespace detail

class Ring {
public:
    Ring(RingEnd end, std::span<std::byte> memory, const RingShape& shape, bool checked = false)
        : end_(end), checked_(checked), slot_size_(shape.slot_size), out_size_(shape.request_size), in_size_(shape.response_size) {
        if (shape.request_size == 0 || shape.response_size == 0 ||
            shape.slot_size < std::max(shape.request_size, shape.response_size)) {
            throw LocalError("a ring slot must hold a request and a response of at least one byte each");
        }
        if (reinterpret_cast<std::uintptr_t>(memory.data()) % alignof(RingHeader) != 0) {
            throw LocalError("ring memory must start on a 4-byte boundary");
        }
        if (memory.size() < sizeof(RingHeader) || memory.size() > (std::size_t{1} << 30) ||
            (memory.size() - sizeof(RingHeader)) / shape.slot_size == 0) {
            throw LocalError("ring memory of " + std::to_string(memory.size()) + " bytes holds no 64-byte header and slot of " +
                             std::to_string(shape.slot_size) + " bytes, or exceeds 1 GiB");
        }
        if (end == RingEnd::back) {
            std::swap(out_size_, in_size_);
        }
        size_ = std::bit_floor(static_cast<std::uint32_t>((memory.size() - sizeof(RingHeader)) / shape.slot_size));
        header_ = reinterpret_cast<RingHeader*>(memory.data());
        slots_ = memory.data() + sizeof(RingHeader);
    }

    Ring(const Ring&) = delete;
    Ring& operator=(const Ring&) = delete;

    /// SHARED_RING_INIT and FRONT_RING_INIT, with the slots zeroed. Only before the ring is shared: nothing here is ordered.
    void init() {
        check_usable();
        if (end_ == RingEnd::back) {
            throw LocalError("only the front initialises a ring; the back attaches to it");
        }
        std::memset(slots_, 0, size_ * slot_size_);
        const std::uint32_t check = checked_ ? ~0U : 0U;
        *header_ = RingHeader{0, 1, 0, 1, {}, check, check, {}};
        attach(0);
    }

    /// FRONT_RING_ATTACH / BACK_RING_ATTACH: go on from an index of the shared ring.
    void attach(std::uint32_t index) {
        check_usable();
        produced_ = published_ = consumed_ = index;
    }

    std::uint32_t size() const { return size_; }
    std::size_t out_size() const { return out_size_; }
    std::size_t in_size() const { return in_size_; }

    /// Slots that may be produced into: free ones at the front, requests taken but not answered at the back.
    std::uint32_t free() const {
        check_usable();
        return end_ == RingEnd::front ? size_ - (produced_ - consumed_) : consumed_ - produced_;
    }

    /// Writes one message into the next slot without publishing it; what `bytes` leaves of the message is zeroed, so that
    /// nothing of an older message and no padding leaks (XSA-216).
    void stage(const void* message, std::size_t bytes) {
        if (bytes > out_size_) {
            throw LocalError(name() + ": a message of " + std::to_string(bytes) + " bytes exceeds the slot's " +
                             std::to_string(out_size_));
        }
        if (free() == 0) {
            throw RingFull(end_ == RingEnd::front ? "front ring: no free slot; pop responses first"
                                                  : "back ring: no request is open; pop one before answering");
        }
        std::byte* slot = slot_at(produced_);
        if (bytes != 0) {  // an empty buffer may have no address, which memcpy may not be given
            std::memcpy(slot, message, bytes);
        }
        std::memset(slot + bytes, 0, out_size_ - bytes);
        ++produced_;
    }

    /// Makes staged messages visible; true: the peer armed its event for one of them and must be notified.
    /// The previous index is our own copy, not the shared word, which the peer may have changed.
    bool publish() {
        check_usable();
        if (trace::on()) [[unlikely]] {
            trace_out(published_);
        }
        check_own();
        const std::uint32_t old = published_;
        published_ = produced_;
        if (checked_) {
            store_relaxed(out_check(), ~produced_);
        }
        store_fenced(out_prod(), produced_);
        const std::uint32_t event = load_fenced(out_event());
        return produced_ - event < produced_ - old;
    }

    bool push(const void* message, std::size_t bytes) {
        stage(message, bytes);
        return publish();
    }

    struct Pushed {
        std::uint32_t count;
        bool must_notify;
    };

    /// Pushes as many of `count` adjacent whole messages as fit, with one publication.
    Pushed push_many(const void* messages, std::size_t count) {
        const auto fits = static_cast<std::uint32_t>(std::min<std::size_t>(count, free()));
        for (std::uint32_t i = 0; i < fits; ++i) {
            stage(static_cast<const std::byte*>(messages) + i * out_size_, out_size_);
        }
        return {fits, fits != 0 && publish()};
    }

    /// Messages of the peer not yet consumed; raises PeerFault if it claims more than can be, or an index fails its check.
    std::uint32_t unconsumed() {
        check_usable();
        const std::uint32_t untrusted_prod = load_acquire(in_prod());
        const std::uint32_t ready = untrusted_prod - consumed_;
        if (ready > due_at_most()) {
            break_ahead(untrusted_prod);
        }
        if (checked_) {
            check(untrusted_prod, ready);
        }
        return ready;
    }

    /// Copies up to `limit` messages into `to` (limit * in_size() bytes) and frees their slots; returns how many.
    std::uint32_t pop_many(void* to, std::uint32_t limit) {
        const std::uint32_t count = std::min(limit, unconsumed());
        for (std::uint32_t i = 0; i < count; ++i) {
            detail::copy_out_once(static_cast<std::byte*>(to) + i * in_size_, slot_at(consumed_), in_size_);
            ++consumed_;
        }
        if (trace::on()) [[unlikely]] {
            trace_in(static_cast<const std::byte*>(to), count);
        }
        return count;
    }

    /// RING_FINAL_CHECK_FOR_*: true if there is work; otherwise the peer's next message will ask it to notify us.
    bool final_check() {
        if (unconsumed() != 0) {
            return true;
        }
        arm();
        return unconsumed() != 0;
    }

    /// Asks for a notification at the next message. A closed or broken ring asks for nothing.
    void arm() noexcept {
        if (usable_) {
            store_fenced(in_event(), consumed_ + 1);
        }
    }

    /// Whether a pop would return something or raise: cheap enough to be polled.
    bool has_work() noexcept {
        return usable_ && (load_fenced(in_prod()) != consumed_ || (checked_ && load_relaxed(out_prod()) != published_));
    }

    /// Where messages carry an id of eight bytes: with one, responses may come in any order and records still tell which
    /// request each answers; without, they are told apart by their index in the ring.
    void name_messages_by(std::size_t id_in_request, std::size_t id_in_response) {
        const bool front = end_ == RingEnd::front;
        if (id_in_request + sizeof(std::uint64_t) > (front ? out_size_ : in_size_) ||
            id_in_response + sizeof(std::uint64_t) > (front ? in_size_ : out_size_)) {
            throw LocalError(name() + ": an id of 8 bytes does not lie within its message");
        }
        id_out_ = front ? id_in_request : id_in_response;
        id_in_ = front ? id_in_response : id_in_request;
    }

    /// The four shared words as they are now: req_prod, req_event, rsp_prod, rsp_event. A peer may have written anything.
    RingHeader untrusted_header() {
        check_usable();
        return {load_acquire(header_->req_prod),  load_acquire(header_->req_event), load_acquire(header_->rsp_prod),
                load_acquire(header_->rsp_event), {}, 0, 0, {}};
    }

    /// Forgets the memory; every later use is a LocalError.
    void close() {
        usable_ = false;
        fault_.clear();
    }

    bool attached_to_waiter = false;
    /// What records call it; 0: nobody attached it to a port.
    std::uint32_t trace_port = 0;

private:
    /// Before what was staged from `first` on is published: nobody can have taken it in earlier.
    [[gnu::noinline]] void trace_out(std::uint32_t first) {
        const auto kind = end_ == RingEnd::front ? trace::Kind::request_out : trace::Kind::response_out;
        if (!id_out_) {
            trace::record_run(kind, trace_port, first, produced_ - first);
            return;
        }
        for (std::uint32_t cursor = first; cursor != produced_; ++cursor) {
            record_id(kind, slot_at(cursor) + *id_out_);
        }
    }

    /// Behind the copy: `count` messages, the last of them at the cursor.
    [[gnu::noinline]] void trace_in(const std::byte* messages, std::uint32_t count) const {
        const auto kind = end_ == RingEnd::front ? trace::Kind::response_in : trace::Kind::request_in;
        if (!id_in_) {
            trace::record_run(kind, trace_port, consumed_ - count, count);
            return;
        }
        for (std::uint32_t i = 0; i < count; ++i) {
            record_id(kind, messages + i * in_size_ + *id_in_);
        }
    }

    void record_id(trace::Kind kind, const std::byte* at) const {
        std::uint64_t id;
        detail::copy_out_once(reinterpret_cast<std::byte*>(&id), at, sizeof id);
        trace::record(kind, trace_port, id, 0);
    }

    std::uint32_t& out_prod() { return end_ == RingEnd::front ? header_->req_prod : header_->rsp_prod; }
    std::uint32_t& out_event() { return end_ == RingEnd::front ? header_->req_event : header_->rsp_event; }
    std::uint32_t& in_prod() { return end_ == RingEnd::front ? header_->rsp_prod : header_->req_prod; }
    std::uint32_t& out_check() { return end_ == RingEnd::front ? header_->req_check : header_->rsp_check; }
    std::uint32_t& in_check() { return end_ == RingEnd::front ? header_->rsp_check : header_->req_check; }
    std::uint32_t& in_event() { return end_ == RingEnd::front ? header_->rsp_event : header_->req_event; }
    std::byte* slot_at(std::uint32_t cursor) { return slots_ + (cursor & (size_ - 1)) * slot_size_; }
    std::string name() const { return end_ == RingEnd::front ? "front ring" : "back ring"; }
    std::string in_name() const { return end_ == RingEnd::front ? "rsp_prod" : "req_prod"; }
    std::string out_name() const { return end_ == RingEnd::front ? "req_prod" : "rsp_prod"; }

    /// The front can be owed only what it asked for; the back only what fits beside its unanswered requests.
    std::uint32_t due_at_most() const {
        return end_ == RingEnd::front ? published_ - consumed_ : size_ - (consumed_ - produced_);
    }

    void check_usable() const {
        if (!usable_) [[unlikely]] {
            if (fault_.empty()) {
                throw LocalError(name() + " is closed");
            }
            throw PeerFault(fault_);
        }
    }

    /// What is ready must agree with its check; when nothing is, before a wait, our own index is looked at.
    void check(std::uint32_t untrusted_prod, std::uint32_t ready) {
        if (ready == 0) {
            check_own();
            return;
        }
        const std::uint32_t untrusted_check = ~load_relaxed(in_check()) - consumed_;
        if (untrusted_check < ready || untrusted_check > due_at_most()) [[unlikely]] {
            break_unlike(untrusted_prod, untrusted_check + consumed_);
        }
    }

    /// Nobody else writes our index: one that is not as published has been changed behind our back.
    void check_own() {
        if (checked_) {
            const std::uint32_t untrusted_own = load_relaxed(out_prod());
            if (untrusted_own != published_) [[unlikely]] {
                break_changed(untrusted_own);
            }
        }
    }

    [[noreturn, gnu::noinline, gnu::cold]] void break_changed(std::uint32_t untrusted_own) {
        break_ring(out_name() + " is " + std::to_string(untrusted_own) + ", but was published as " + std::to_string(published_));
    }

    [[noreturn, gnu::noinline, gnu::cold]] void break_ahead(std::uint32_t untrusted_prod) {
        const bool front = end_ == RingEnd::front;
        break_ring(in_name() + " " + std::to_string(untrusted_prod) + " is " + std::to_string(untrusted_prod - consumed_) +
                   " ahead of " + (front ? "rsp_cons " : "req_cons ") + std::to_string(consumed_) + ", but at most " +
                   std::to_string(due_at_most()) + (front ? " responses are due" : " requests fit"));
    }

    [[noreturn, gnu::noinline, gnu::cold]] void break_unlike(std::uint32_t untrusted_prod, std::uint32_t untrusted_check) {
        break_ring(in_name() + " " + std::to_string(untrusted_prod) + " and its check, " + std::to_string(untrusted_check) +
                   ", do not agree");
    }

    [[noreturn, gnu::noinline, gnu::cold]] void break_ring(const std::string& why) {
        fault_ = name() + " closed by the peer's fault: " + why;
        usable_ = false;
        throw PeerFault(fault_);
    }

    RingEnd end_;
    bool checked_;
    bool usable_ = true;
    std::uint32_t size_ = 0;
    std::uint32_t produced_ = 0;
    std::uint32_t published_ = 0;
    std::uint32_t consumed_ = 0;
    std::size_t slot_size_;
    std::size_t out_size_;
    std::size_t in_size_;
    std::optional<std::size_t> id_out_;
    std::optional<std::size_t> id_in_;
    RingHeader* header_ = nullptr;
    std::byte* slots_ = nullptr;
    std::string fault_;
};

}  // namespace hvd
