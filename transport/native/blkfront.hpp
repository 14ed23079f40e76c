// A blkif frontend's requests from submission to completion: their ids, pages and slots, across the deaths of backends.
//
// Each request completes exactly once: answered, or with EIO past its deadline. It stays in the table until its completion has
// been taken *and* no backend can touch its pages any more; only then is its place used again, under an id that was never used.
//
//   open   submitted, not completed     in `open_`, in the order of submission: of its deadline, of its id, of its way into the ring
//   done   completed, not taken         in `done_`, in the order of completion
//   taken  completed and taken          in no list: a backend that did not answer in time still has its pages
//
// An id is a sequence number above a place in the table, so what a backend answers is found without searching and an invented,
// late or second answer is recognised: the id that stands there is another, or is with no backend.
//
// Why raw access is in bounds: pages come from the pool, which has as many as the memory; an answer's id is masked with less than
// the table may hold and compared with its size before it becomes a place.
#pragma once

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "blkif.hpp"
#include "blkif_slots.hpp"
#include "doorbell.hpp"
#include "faults.hpp"
#include "page_pool.hpp"
#include "ring.hpp"
#include "shared_info.hpp"
#include "spin.hpp"

namespace hvd::blkif {

/// A disk as its present backend offers it.
struct Offer {
    std::string name;
    std::uint64_t sectors = 0;
    std::uint32_t segments_max = direct_segments_max;
};

struct Completed {
    std::uint64_t id;
    std::uint32_t place;  ///< in the table, free by now or as good as free
    int error;
};

class Front {
public:
    static constexpr std::uint32_t requests_max = 65'536;
    static constexpr unsigned place_bits = 16;
    static constexpr std::uint32_t lent_percent_max = 50;  ///< of the pool: the rest is for requests on other memory
    static_assert(requests_max == 1U << place_bits);

    /// `memory` is the pool that data moves through; its pages are granted as `first_ref`, `first_ref` + 1, ...
    Front(std::span<std::byte> memory, std::uint32_t first_ref, std::int64_t timeout_ns)
        : memory_(memory), first_ref_(first_ref), timeout_ns_(timeout_ns), pool_(static_cast<std::uint32_t>(memory.size() / page_size)) {
        if (pool_.pages() < 2) {
            throw LocalError("a pool has at least 2 pages, one of them for a table of segments");
        }
        table_.reserve(pool_.pages());
    }

    Front(const Front&) = delete;
    Front& operator=(const Front&) = delete;

    // ---- backends come and go ------------------------------------------------------------------------------------------------

    /// A backend serves this ring, which is empty: everything open goes into it, in order, as far as it has room.
    void attach(Ring& ring, Doorbell& bell, Offer offer) {
        if (ring.in_size() != response_size || ring.out_size() != request_size) {
            throw LocalError("a block frontend needs the front of a ring of 112-byte requests and 16-byte responses");
        }
        ring_ = &ring;
        bell_ = &bell;
        offer_ = std::move(offer);
        offer_.segments_max = std::clamp(offer_.segments_max, direct_segments_max, segments_per_page);
        pump();
    }

    /// The backend is dead and fenced: nobody uses any page, and what it did not answer is to be issued again.
    void detach() {
        ring_ = nullptr;
        bell_ = nullptr;
        for (std::uint32_t place = 0; place < table_.size(); ++place) {
            leave_backend(place);
        }
        unsent_ = open_.head;
    }

    bool attached() const { return ring_ != nullptr; }

    // ---- submitting ----------------------------------------------------------------------------------------------------------

    /// Sectors of the largest single transfer: one page of the pool is left for its table of segments.
    std::uint64_t transfer_sectors_max() const {
        return std::uint64_t{std::min(offer_.segments_max, pool_.pages() - 1)} * sectors_per_page;
    }

    /// Throws LocalError unless these are sectors of the disk, at least one and at most `most`.
    void check(std::int64_t sector, std::int64_t count, std::uint64_t most) const {
        if (count < 1 || static_cast<std::uint64_t>(count) > most) {
            throw LocalError("disk " + offer_.name + ": a request has 1 to " + std::to_string(most) + " sectors, not " + std::to_string(count));
        }
        const auto first = static_cast<std::uint64_t>(sector);  // a negative one is beyond every disk
        if (first > offer_.sectors || static_cast<std::uint64_t>(count) > offer_.sectors - first) {
            throw LocalError("disk " + offer_.name + ": " + std::to_string(count) + " sectors from " + std::to_string(sector) + " on, of " +
                             std::to_string(offer_.sectors));
        }
    }

    std::uint64_t sectors() const { return offer_.sectors; }

    /// Lends pages of the pool: what is read into them or written from them is not copied. The offset in the pool, or nothing
    /// while no such run is free. LocalError past what may be lent.
    std::optional<std::size_t> lend(std::uint32_t pages) {
        const std::uint32_t most = pool_.pages() * lent_percent_max / 100;
        if (pages == 0 || lent_pages() + pages > most) {
            throw LocalError("disk " + offer_.name + ": buffers have 1 to " + std::to_string(most - lent_pages()) + " pages by now, not " + std::to_string(pages));
        }
        const Run run = pool_.take(pages);
        if (run.count == 0) {
            return std::nullopt;
        }
        lent_.push_back(run);
        return std::size_t{run.first} * page_size;
    }

    /// Takes the buffer at this offset back. LocalError while a request or a backend has it, or when it is none.
    void take_back(std::size_t offset) {
        const auto found = std::find_if(lent_.begin(), lent_.end(), [offset](const Run& run) { return std::size_t{run.first} * page_size == offset; });
        if (found == lent_.end()) {
            throw LocalError("disk " + offer_.name + ": that is no buffer of this disk, or was given back");
        }
        const bool used = std::any_of(table_.begin(), table_.end(), [&](const Entry& request) {
            return request.lent && (request.state == State::open || request.at_backend) && run_holds(*found, request.data);
        });
        if (used) {
            throw LocalError("disk " + offer_.name + ": a request still uses that buffer");
        }
        pool_.give_back(*found);
        lent_.erase(found);
    }

    /// A READ into or WRITE from whole sectors of memory, checked by the caller; where it has been noted, or nothing while the pool
    /// has no room for it. A WRITE's data is copied now; a READ's memory is written when it completes with 0, and never after that.
    /// Not so in memory that is lent, from a page's beginning on: it is the backend's until the request has left it.
    std::optional<std::uint32_t> transfer(Operation operation, std::uint64_t sector, std::span<std::byte> memory) {
        const auto pages = static_cast<std::uint32_t>((memory.size() + page_size - 1) / page_size);
        const Run own = lent(memory, pages);
        const Run data = own.count != 0 ? own : pool_.take(pages);
        const Run table = data.count > direct_segments_max ? pool_.take(1) : Run{};
        if (data.count == 0 || (data.count > direct_segments_max && table.count == 0)) {
            pool_.give_back(own.count != 0 ? Run{} : data);
            return std::nullopt;
        }
        const std::uint32_t place = note(operation, sector, memory.size() / sector_size);
        Entry& request = table_[place];
        request.data = data;
        request.table = table;
        request.lent = own.count != 0;
        if (request.lent) {
            return place;
        }
        if (operation == write) {
            std::memcpy(pages_of(data), memory.data(), memory.size());
        } else {
            request.into = memory.data();
        }
        return place;
    }

    /// A FLUSH, or a DISCARD of checked sectors.
    std::uint32_t control(Operation operation, std::uint64_t sector, std::uint64_t sectors) { return note(operation, sector, sectors); }

    /// Puts what is not sent into the ring as far as it has room, and rings the bell if the backend asked for that.
    void pump() {
        if (ring_ == nullptr || unsent_ == none) {
            return;
        }
        std::uint32_t staged = 0;
        for (std::uint32_t room = ring_->free(); room != 0 && unsent_ != none; --room, ++staged) {
            Entry& request = table_[unsent_];
            stage(request);
            request.at_backend = true;
            unsent_ = request.next;
        }
        if (staged != 0 && ring_->publish()) {
            bell_->notify();
        }
    }

    // ---- completing ----------------------------------------------------------------------------------------------------------

    /// Takes in every answer there is; PeerFault when the backend broke the ring.
    void collect() {
        if (ring_ == nullptr) {
            return;
        }
        std::array<Response, 32> untrusted;
        while (const std::uint32_t count = ring_->pop_many(untrusted.data(), untrusted.size())) {
            for (const Response& response : std::span(untrusted).first(count)) {
                answered(response);
            }
        }
        pump();
    }

    /// Completes with EIO what is past its deadline at this system time. Pages that a backend may still use stay taken.
    void expire(std::int64_t now) {
        while (open_.head != none && table_[open_.head].deadline_ns <= now) {
            const std::uint32_t place = open_.head;
            if (unsent_ == place) {
                unsent_ = table_[place].next;
            }
            complete(place, EIO);
        }
    }

    /// The earliest deadline of what is open, in system time; `never_ns` when nothing is.
    std::int64_t deadline_ns() const { return open_.head == none ? never_ns : table_[open_.head].deadline_ns; }

    /// Requests submitted and not completed.
    std::uint32_t in_flight() const { return open_.length; }

    /// The completion of this request, once; nothing while it is open.
    std::optional<Completed> take(std::uint64_t id) {
        const std::uint32_t place = place_of(id);
        return place == none || table_[place].state != State::done ? std::nullopt : std::optional(take_at(place));
    }

    /// The oldest completion that nobody took.
    std::optional<Completed> take_any() { return done_.head == none ? std::nullopt : std::optional(take_at(done_.head)); }

    std::uint64_t id_at(std::uint32_t place) const { return table_[place].id; }
    std::uint32_t free_pages() const { return pool_.free(); }

private:
    static constexpr std::uint32_t none = ~std::uint32_t{0};
    enum class State : std::uint8_t { free, open, done, taken };

    struct Entry {
        std::uint64_t id = 0;
        std::uint64_t sector = 0;
        std::uint64_t sectors = 0;
        std::int64_t deadline_ns = 0;
        std::byte* into = nullptr;  ///< where a READ's data goes, while it is open
        Run data;
        Run table;
        std::uint32_t previous = none;
        std::uint32_t next = none;
        int error = 0;
        Operation operation = read;
        State state = State::free;
        bool lent = false;        ///< `data` is the caller's buffer
        bool at_backend = false;  ///< it went into the ring and was not answered: a backend may use its pages
    };

    /// Requests linked through the table.
    struct List {
        std::uint32_t head = none;
        std::uint32_t tail = none;
        std::uint32_t length = 0;
    };

    void append(List& list, std::uint32_t place) {
        Entry& request = table_[place];
        request.previous = list.tail;
        request.next = none;
        (list.tail == none ? list.head : table_[list.tail].next) = place;
        list.tail = place;
        ++list.length;
    }

    void unlink(List& list, std::uint32_t place) {
        const Entry& request = table_[place];
        (request.previous == none ? list.head : table_[request.previous].next) = request.next;
        (request.next == none ? list.tail : table_[request.next].previous) = request.previous;
        --list.length;
    }

    static bool run_holds(const Run& run, const Run& part) {
        return part.first >= run.first && part.first + part.count <= run.first + run.count;
    }

    /// The lent pages that this memory is, if it is so many of them.
    Run lent(std::span<std::byte> memory, std::uint32_t pages) const {
        const auto offset = reinterpret_cast<std::uintptr_t>(memory.data()) - reinterpret_cast<std::uintptr_t>(memory_.data());
        if (lent_.empty() || offset >= memory_.size() || offset % page_size != 0) {
            return {};
        }
        const Run part{static_cast<std::uint32_t>(offset / page_size), pages};
        return std::any_of(lent_.begin(), lent_.end(), [&](const Run& run) { return run_holds(run, part); }) ? part : Run{};
    }

    std::uint32_t lent_pages() const {
        std::uint32_t sum = 0;
        for (const Run& run : lent_) {
            sum += run.count;
        }
        return sum;
    }

    /// A new request at the end of everything open.
    std::uint32_t note(Operation operation, std::uint64_t sector, std::uint64_t sectors) {
        const std::uint32_t place = free_place();
        Entry& request = table_[place];
        request = Entry{};
        request.id = (++sequence_ << place_bits) | place;
        request.operation = operation;
        request.sector = sector;
        request.sectors = sectors;
        request.deadline_ns = shared_info::system_time_ns() + timeout_ns_;
        request.state = State::open;
        append(open_, place);
        if (unsent_ == none) {
            unsent_ = place;
        }
        return place;
    }

    std::uint32_t free_place() {
        if (!free_.empty()) {
            const std::uint32_t place = free_.back();
            free_.pop_back();
            return place;
        }
        if (table_.size() == requests_max) {
            throw LocalError("disk " + offer_.name + ": " + std::to_string(requests_max) + " requests are open or not taken: take completions");
        }
        table_.emplace_back();
        free_.reserve(table_.capacity());
        return static_cast<std::uint32_t>(table_.size() - 1);
    }

    std::uint32_t place_of(std::uint64_t untrusted_id) const {
        const auto place = static_cast<std::uint32_t>(untrusted_id & (requests_max - 1));
        return place < table_.size() && table_[place].id == untrusted_id && table_[place].state != State::free ? place : none;
    }

    std::byte* pages_of(const Run& run) const { return memory_.data() + std::size_t{run.first} * page_size; }

    // ---- into the ring -------------------------------------------------------------------------------------------------------

    void stage(const Entry& request) {
        const Transfer transfer{request.operation, request.id, request.sector, request.sectors, first_ref_ + request.data.first, request.data.count};
        if (request.operation == discard) {
            stage_slot(discard_slot(request.id, request.sector, request.sectors));
        } else if (request.table.count == 0) {
            stage_slot(direct_slot(transfer));
        } else {  // the table is written anew each time: a backend before this one may have changed it
            write_segments(transfer, pages_of(request.table));
            stage_slot(indirect_slot(transfer, first_ref_ + request.table.first));
        }
    }

    template <class Slot>
    void stage_slot(const Slot& slot) {
        ring_->stage(&slot, sizeof slot);
    }

    // ---- out of it -----------------------------------------------------------------------------------------------------------

    void answered(const Response& untrusted) {
        const std::uint32_t place = place_of(untrusted.id);
        if (place == none || !table_[place].at_backend) {
            return;
        }
        Entry& request = table_[place];
        if (request.state == State::open) {
            const int error = untrusted.status == okay ? 0 : untrusted.status == unsupported ? EOPNOTSUPP : EIO;
            if (request.into != nullptr && error == 0) {
                std::memcpy(request.into, pages_of(request.data), request.sectors * sector_size);
            }
            complete(place, error);
        }
        leave_backend(place);
    }

    void complete(std::uint32_t place, int error) {
        Entry& request = table_[place];
        unlink(open_, place);
        request.state = State::done;
        request.error = error;
        if (!request.at_backend) {
            give_back_pages(request);
        }
        append(done_, place);
    }

    /// No backend can touch the request's pages any more.
    void leave_backend(std::uint32_t place) {
        Entry& request = table_[place];
        if (!std::exchange(request.at_backend, false) || request.state == State::open) {
            return;
        }
        give_back_pages(request);
        if (request.state == State::taken) {
            give_back_place(place);
        }
    }

    Completed take_at(std::uint32_t place) {
        Entry& request = table_[place];
        unlink(done_, place);
        request.state = State::taken;
        if (!request.at_backend) {
            give_back_place(place);
        }
        return {request.id, place, request.error};
    }

    void give_back_pages(Entry& request) {
        const Run data = std::exchange(request.data, Run{});
        pool_.give_back(request.lent ? Run{} : data);
        pool_.give_back(std::exchange(request.table, Run{}));
    }

    void give_back_place(std::uint32_t place) {
        table_[place].state = State::free;
        free_.push_back(place);
    }

    std::span<std::byte> memory_;
    std::uint32_t first_ref_;
    std::int64_t timeout_ns_;
    PagePool pool_;
    Ring* ring_ = nullptr;
    Doorbell* bell_ = nullptr;
    Offer offer_;
    std::uint64_t sequence_ = 0;
    std::vector<Entry> table_;
    std::vector<std::uint32_t> free_;
    std::vector<Run> lent_;
    List open_;
    List done_;
    std::uint32_t unsent_ = none;  // the first of `open_` that is not in the ring: those behind it are not either
};

}  // namespace hvd::blkif
