// A blkif frontend, while the fuzzer is its backends: they answer what was asked, what was not, twice, late or never, write ring
// and pages at any time, die and come back.
//
// What must hold: each request completes once, with an error that there is, and with another than EIO only if it was in the ring
// and an answer to it was; a READ's memory is not touched once its completion
// was taken; nothing outside ring and pool is touched; and when all is over every page of the pool is free again (XSA-465).
#include <memory>
#include <optional>
#include <vector>

#include "../../../transport/native/blkfront.hpp"
#include "shared_memory.hpp"

namespace {

using namespace hvd;
using namespace hvd::blkif;
using fuzz::Input;

constexpr std::size_t slots = 8;
constexpr std::size_t pool_pages = 24;
constexpr std::uint64_t disk_sectors = 200;
constexpr std::int64_t timeout_ns = 1'000'000'000;
constexpr int steps_max = 200;

/// One backend's life: a ring of its own.
struct Backend {
    Backend() : memory(sizeof(RingHeader) + slots * request_size), ring(RingEnd::front, memory.bytes(), {request_size, response_size, request_size}) {
        ring.init();
    }

    /// The id that stands in a slot, of a request or of a response.
    std::uint64_t id_in(std::size_t slot, std::size_t offset) const {
        std::uint64_t id;
        std::memcpy(&id, memory.bytes().data() + sizeof(RingHeader) + slot * request_size + offset, sizeof id);
        return id;
    }

    std::uint32_t& word(std::size_t number) { return reinterpret_cast<std::uint32_t*>(memory.bytes().data())[number]; }

    void answer(const Response& response) {
        std::byte* slot = memory.bytes().data() + sizeof(RingHeader) + word(2) % slots * request_size;
        std::memcpy(slot, &response, sizeof response);
        ++word(2);
    }

    fuzz::SharedMemory memory;
    Ring ring;
};

struct Asked {
    std::uint64_t id;
    std::vector<std::byte> memory;  ///< of a READ; freed when its completion was taken
    bool sent = false;
    bool answered = false;
    bool taken = false;
};

class Trial {
public:
    explicit Trial(Input& input)
        : input_(input),
          pool_(pool_pages * hvd::page_size),
          channel_(sizeof(ChannelPage)),
          bell_(channel_.bytes().data(), channel_.bytes().size(), 0, -1, -1),
          front_(pool_.bytes(), 8, timeout_ns) {
        come();
    }

    void step() {
        switch (input_.below(14)) {
            case 0: backend_->memory.scribble(input_); break;
            case 1: pool_.scribble(input_); break;
            case 2: backend_->word(2) = input_.number<std::uint32_t>(); break;
            case 3: answer(true); break;
            case 4: answer(false); break;
            case 5: may_fail([&] { transfer(blkif::read); }); break;
            case 6: may_fail([&] { transfer(blkif::write); }); break;
            case 7: may_fail([&] { control(); }); break;
            case 8: may_fail([&] { collect(); }); break;
            case 9: front_.expire(input_.flag() ? never_ns : shared_info::system_time_ns()); break;
            case 10: take(); break;
            case 11: go(); break;
            case 12: may_fail([&] { lend(); }); break;
            default: may_fail([&] { take_back(); });
        }
        see_what_was_sent();
    }

    void finish() {
        front_.detach();
        front_.expire(never_ns);
        while (const auto completed = front_.take_any()) {
            note(*completed);
        }
        EXPECT(front_.in_flight() == 0);
        for (const Asked& asked : asked_) {
            EXPECT(asked.taken);
        }
        while (!lent_.empty()) {
            front_.take_back(lent_.back().first);
            lent_.pop_back();
        }
        EXPECT(front_.free_pages() == pool_pages);
    }

private:
    void come() {
        backend_ = std::make_unique<Backend>();
        front_.attach(backend_->ring, bell_, {"xvda", disk_sectors, static_cast<std::uint32_t>(input_.below(40))});
    }

    /// It is dead and fenced; with its ring all that could be written through it is gone.
    void go() {
        front_.detach();
        come();
    }

    void see_what_was_sent() {
        for (std::size_t slot = 0; slot < slots; ++slot) {
            for (Asked& asked : asked_) {
                asked.sent |= asked.id == backend_->id_in(slot, offsetof(Request, id));
            }
        }
    }

    void collect() {
        for (std::size_t slot = 0; slot < slots; ++slot) {
            for (Asked& asked : asked_) {
                asked.answered |= asked.id == backend_->id_in(slot, offsetof(Response, id));
            }
        }
        front_.collect();
    }

    void answer(bool known) {
        static constexpr std::int16_t statuses[] = {okay, error, unsupported, 7};
        const std::uint64_t id = known && !asked_.empty() ? asked_[input_.below(asked_.size())].id : input_.number<std::uint64_t>();
        backend_->answer({id, input_.number<std::uint8_t>(), 0, statuses[input_.below(std::size(statuses))], 0});
    }

    void transfer(Operation operation) {
        const auto sectors = static_cast<std::int64_t>(input_.number<std::uint16_t>() % 260);
        const auto sector = static_cast<std::int64_t>(input_.below(220));
        front_.check(sector, sectors, front_.transfer_sectors_max());
        const std::size_t bytes = static_cast<std::size_t>(sectors) * sector_size;
        std::vector<std::byte> memory;
        std::span<std::byte> where;
        if (!lent_.empty() && input_.flag()) {
            const auto& [offset, pages] = lent_[input_.below(lent_.size())];
            where = pool_.bytes().subspan(offset, pages * hvd::page_size).subspan(input_.below(8 * pages) * sector_size);
            where = where.first(std::min(bytes, where.size()));
        } else {
            memory.resize(bytes, std::byte{0x11});
            where = memory;
        }
        if (const auto place = front_.transfer(operation, static_cast<std::uint64_t>(sector), where)) {
            asked_.push_back({front_.id_at(*place), operation == blkif::read ? std::move(memory) : std::vector<std::byte>()});
            front_.pump();
        }
    }

    void control() {
        const bool is_flush = input_.flag();
        const auto sector = static_cast<std::int64_t>(input_.below(220));
        if (!is_flush) {
            front_.check(sector, 1 + static_cast<std::int64_t>(input_.below(8)), disk_sectors);
        }
        const std::uint32_t place = front_.control(is_flush ? blkif::flush : blkif::discard, static_cast<std::uint64_t>(sector), is_flush ? 0 : 1);
        asked_.push_back({front_.id_at(place), {}});
        front_.pump();
    }

    void take() {
        const auto completed = asked_.empty() || input_.flag() ? front_.take_any() : front_.take(asked_[input_.below(asked_.size())].id);
        if (completed) {
            note(*completed);
        }
    }

    void note(const Completed& completed) {
        EXPECT(completed.error == 0 || completed.error == EIO || completed.error == EOPNOTSUPP);
        for (Asked& asked : asked_) {
            if (asked.id == completed.id) {
                EXPECT(!asked.taken && (completed.error == EIO || (asked.sent && asked.answered)));
                asked.taken = true;
                asked.memory = {};
                return;
            }
        }
        std::fprintf(stderr, "a completion of what was never asked\n");
        std::abort();
    }

    void lend() {
        const auto pages = static_cast<std::uint32_t>(input_.below(14));
        if (const auto offset = front_.lend(pages)) {
            lent_.emplace_back(*offset, pages);
        }
    }

    void take_back() {
        const std::size_t offset = !lent_.empty() && input_.flag() ? lent_[input_.below(lent_.size())].first : input_.number<std::uint16_t>();
        front_.take_back(offset);
        std::erase_if(lent_, [offset](const auto& run) { return run.first == offset; });
    }

    /// A backend that broke its ring is closed, and another one comes.
    template <class Call>
    void may_fail(Call&& call) {
        try {
            call();
        } catch (const PeerFault&) {
            go();
        } catch (const LocalError&) {
        }
    }

    Input& input_;
    fuzz::SharedMemory pool_;
    fuzz::SharedMemory channel_;
    Doorbell bell_;
    std::unique_ptr<Backend> backend_;
    Front front_;
    std::vector<Asked> asked_;
    std::vector<std::pair<std::size_t, std::uint32_t>> lent_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Input input(data, size);
    Trial trial(input);
    for (int steps = 0; input.more() && steps < steps_max; ++steps) {
        trial.step();
    }
    trial.finish();
    return 0;
}
