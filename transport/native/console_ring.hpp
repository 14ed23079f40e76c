// One end of Xen's console ring (public/io/console.h): two byte streams in one page, each with two free-running indices.
//
// `in` carries what is typed to the domain, `out` what it prints. Front and back are the same verbs over mirrored
// streams. The cursors that an end owns are private; they begin where the page says they stand, so that a restarted back
// goes on where its predecessor stopped.
//
// Why every raw access is in bounds: the constructor takes a span that holds a whole ConsoleInterface, and a byte is
// addressed by `cursor & (size - 1)` of a private cursor within the array of its stream, whose size is a power of two. An
// index of the peer's is compared with what the protocol allows at most, and never becomes an address.
//
// An index that is wrong and possible would go unnoticed: Xen's page has no room for checks that the other end would know
// of. But nobody else writes our two, so each is read again before it is relied on, and before it is written anew.
//
// The page's last word, behind Xen's structure, is our own: a front that ends and has waited for its back long enough
// says there that it writes down by itself what is in the ring. A back that comes later shows it, and writes nothing down.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>

#include "faults.hpp"
#include "layouts.hpp"
#include "ring.hpp"

namespace hvd {

/// struct xencons_interface.
struct ConsoleInterface {
    std::byte in[1024];
    std::byte out[2048];
    std::uint32_t in_cons;
    std::uint32_t in_prod;
    std::uint32_t out_cons;
    std::uint32_t out_prod;
};
static_assert(sizeof(ConsoleInterface) == 3088 && sizeof(ConsoleInterface) <= page_size);
static_assert(offsetof(ConsoleInterface, out) == 1024 && offsetof(ConsoleInterface, in_cons) == 3072);
static_assert(offsetof(ConsoleInterface, in_prod) == 3076 && offsetof(ConsoleInterface, out_cons) == 3080);
static_assert(offsetof(ConsoleInterface, out_prod) == 3084);

inline constexpr std::size_t written_down_at = page_size - sizeof(std::uint32_t);
/// Not 1: no bit that flips makes it.
inline constexpr std::uint32_t written_down_mark = 0x7764726e;

/// One direction: its bytes and its two shared indices.
struct ByteStream {
    std::byte* bytes;
    std::uint32_t size;
    std::uint32_t* cons;
    std::uint32_t* prod;
};

class ConsoleRing {
public:
    ConsoleRing(RingEnd end, std::span<std::byte> memory) : end_(end) {
        if (memory.size() < sizeof(ConsoleInterface) ||
            reinterpret_cast<std::uintptr_t>(memory.data()) % alignof(ConsoleInterface) != 0) {
            throw LocalError("a console ring lives in at least " + std::to_string(sizeof(ConsoleInterface)) +
                             " bytes that start on a 4-byte boundary");
        }
        auto* page = reinterpret_cast<ConsoleInterface*>(memory.data());
        to_peer_ = {page->out, sizeof page->out, &page->out_cons, &page->out_prod};
        from_peer_ = {page->in, sizeof page->in, &page->in_cons, &page->in_prod};
        if (end == RingEnd::back) {
            std::swap(to_peer_, from_peer_);
        }
        if (memory.size() >= page_size) {
            written_down_ = reinterpret_cast<std::uint32_t*>(memory.data() + written_down_at);
        }
        produced_ = load_acquire(*to_peer_.prod);
        consumed_ = load_acquire(*from_peer_.cons);
    }

    ConsoleRing(const ConsoleRing&) = delete;
    ConsoleRing& operator=(const ConsoleRing&) = delete;

    /// Bytes written that the peer has not taken.
    std::uint32_t in_flight() {
        check_usable();
        check_own(*to_peer_.prod, produced_, "produced");
        const std::uint32_t untrusted_cons = untrusted_cons_seen_ = load_acquire(*to_peer_.cons);
        return checked(produced_ - untrusted_cons, to_peer_.size, "consumed", untrusted_cons);
    }

    std::uint32_t free() { return to_peer_.size - in_flight(); }

    /// Bytes of the peer not yet consumed.
    std::uint32_t unconsumed() {
        check_usable();
        check_own(*from_peer_.cons, consumed_, "consumed");
        const std::uint32_t untrusted_prod = untrusted_prod_seen_ = load_acquire(*from_peer_.prod);
        return seen_ = checked(untrusted_prod - consumed_, from_peer_.size, "produced", untrusted_prod);
    }

    /// Looks at all four indices, though nothing is to be moved.
    void check() {
        in_flight();
        unconsumed();
    }

    /// Whether the peer has moved an index since we looked at it last: once for each time.
    bool has_news() noexcept {
        const std::uint32_t untrusted_cons = load_acquire(*to_peer_.cons);
        const std::uint32_t untrusted_prod = load_acquire(*from_peer_.prod);
        const bool moved = untrusted_cons != untrusted_cons_seen_ || untrusted_prod != untrusted_prod_seen_;
        untrusted_cons_seen_ = untrusted_cons;
        untrusted_prod_seen_ = untrusted_prod;
        return usable_ && moved;
    }

    /// Publishes as many of `count` bytes as there is room for; returns how many.
    std::uint32_t write(const std::byte* bytes, std::size_t count) {
        const auto fits = static_cast<std::uint32_t>(std::min<std::size_t>(count, free()));
        if (fits == 0) {
            return 0;  // an empty buffer may have no address, which memcpy may not be given
        }
        const std::uint32_t at = produced_ & (to_peer_.size - 1);
        const std::uint32_t first = std::min(fits, to_peer_.size - at);
        std::memcpy(to_peer_.bytes + at, bytes, first);
        std::memcpy(to_peer_.bytes, bytes + first, fits - first);
        produced_ += fits;
        store_fenced(*to_peer_.prod, produced_);
        return fits;
    }

    /// Copies the next `count` bytes, at most what `unconsumed` said, and leaves them in the ring.
    void peek(std::byte* to, std::uint32_t count) const { copy_out(to, from_peer_, consumed_, count); }

    /// Gives the room of `count` bytes back to the peer; at most what `unconsumed` said, whatever the page says by now.
    void consume(std::uint32_t count) {
        check_usable();
        check_own(*from_peer_.cons, consumed_, "consumed");
        if (count > seen_) {
            throw LocalError(name() + ": " + std::to_string(count) + " bytes cannot be consumed, " + std::to_string(seen_) +
                             " were seen");
        }
        seen_ -= count;
        consumed_ += count;
        store_fenced(*from_peer_.cons, consumed_);
    }

    /// Of a front that ends: what the back has not taken by now is written down without it.
    void write_down() {
        check_usable();
        if (written_down_ != nullptr) {
            store_fenced(*written_down_, written_down_mark);
        }
    }

    /// Whether the front has said so.
    bool written_down() const noexcept { return written_down_ != nullptr && load_acquire(*written_down_) == written_down_mark; }

    /// Copies the last `count` bytes written: with `in_flight` as count, those the peer has not taken.
    void copy_in_flight(std::byte* to, std::uint32_t count) const { copy_out(to, to_peer_, produced_ - count, count); }

    void close() {
        usable_ = false;
        fault_.clear();
    }

private:
    static void copy_out(std::byte* to, const ByteStream& stream, std::uint32_t cursor, std::uint32_t count) {
        const std::uint32_t at = cursor & (stream.size - 1);
        const std::uint32_t first = std::min(count, stream.size - at);
        detail::copy_out_once(to, stream.bytes + at, first);
        detail::copy_out_once(to + first, stream.bytes, count - first);
    }

    std::string name() const { return end_ == RingEnd::front ? "console front" : "console back"; }

    void check_usable() const {
        if (!usable_) [[unlikely]] {
            if (fault_.empty()) {
                throw LocalError(name() + " is closed");
            }
            throw PeerFault(fault_);
        }
    }

    std::uint32_t checked(std::uint32_t bytes, std::uint32_t size, const char* verb, std::uint32_t untrusted_index) {
        if (bytes > size) [[unlikely]] {
            break_ring("it says it has " + std::string(verb) + " up to index " + std::to_string(untrusted_index) +
                       ", which makes " + std::to_string(bytes) + " bytes in a ring of " + std::to_string(size));
        }
        return bytes;
    }

    void check_own(std::uint32_t& shared, std::uint32_t ours, const char* verb) {
        const std::uint32_t untrusted_own = load_relaxed(shared);
        if (untrusted_own != ours) [[unlikely]] {
            break_ring("that we have " + std::string(verb) + " up to index " + std::to_string(ours) + " was changed into " +
                       std::to_string(untrusted_own));
        }
    }

    [[noreturn, gnu::noinline, gnu::cold]] void break_ring(const std::string& why) {
        fault_ = name() + " closed by the peer's fault: " + why;
        usable_ = false;
        throw PeerFault(fault_);
    }

    RingEnd end_;
    bool usable_ = true;
    ByteStream to_peer_{};
    ByteStream from_peer_{};
    std::uint32_t* written_down_ = nullptr;
    std::uint32_t produced_;
    std::uint32_t consumed_;
    std::uint32_t seen_ = 0;
    std::uint32_t untrusted_cons_seen_ = 0, untrusted_prod_seen_ = 0;
    std::string fault_;
};

}  // namespace hvd
