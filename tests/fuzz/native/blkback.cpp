// A blkif backend's batches, while the fuzzer is the frontend: it writes ring, indices and granted pages between any two steps,
// and the image reads and writes less than it was asked for, or fails.
//
// What must hold: each request taken is answered once, in order, with its own id; a transfer lies on the disk and in granted
// memory; nothing outside ring and grants is touched; a frontend that breaks the ring closes it and nothing else.
#include <array>
#include <deque>
#include <memory>
#include <vector>

#include "../../../transport/native/blkback.hpp"
#include "shared_memory.hpp"

namespace {

using namespace hvd;
using namespace hvd::blkif;
using fuzz::Input;

constexpr std::size_t slots = 8;
constexpr std::size_t pages = 4;
constexpr std::uint32_t first_ref = 8;
constexpr std::uint64_t disk_sectors = 64;
constexpr int steps_max = 200;

class Trial {
public:
    explicit Trial(Input& input)
        : input_(input),
          ring_memory_(sizeof(RingHeader) + slots * request_size),
          channel_(sizeof(ChannelPage)),
          granted_(pages * hvd::page_size),
          image_(disk_sectors * sector_size),
          ring_(RingEnd::back, ring_memory_.bytes(), {request_size, response_size, request_size}),
          bell_(channel_.bytes().data(), channel_.bytes().size(), 0, -1, -1),
          readonly_(input.flag()),
          back_(ring_, bell_, {disk_sectors, readonly_, 256}, input.flag()) {}

    void step() {
        switch (input_.below(8)) {
            case 0: ring_memory_.scribble(input_); break;
            case 1: granted_.scribble(input_); break;
            case 2: header(0) = input_.number<std::uint32_t>(); break;
            case 3:
            case 4: ask(); break;
            case 5: write_table(); break;
            case 6: may_fail([&] { serve(); }); break;
            default: may_fail([&] { go_on(); });
        }
    }

private:
    auto io() {
        return [this](std::uint8_t operation, const iovec* parts, int count, std::int64_t offset, std::uint64_t) -> ssize_t {
            EXPECT(count > 0 && offset >= 0 && (operation == blkif::read || !readonly_));
            if (input_.below(8) == 0) {
                errno = input_.flag() ? EINTR : ENOSPC;
                return -1;
            }
            std::size_t done = 0;
            for (int i = 0; i < count && (i == 0 || input_.below(4) != 0); ++i) {
                EXPECT(static_cast<std::size_t>(offset) + done + parts[i].iov_len <= image_.size());
                std::byte* at = image_.data() + static_cast<std::size_t>(offset) + done;
                std::memcpy(operation == blkif::read ? parts[i].iov_base : at, operation == blkif::read ? at : parts[i].iov_base, parts[i].iov_len);
                done += parts[i].iov_len;
            }
            return static_cast<ssize_t>(done);
        };
    }

    std::uint32_t& header(std::size_t word) { return reinterpret_cast<std::uint32_t*>(ring_memory_.bytes().data())[word]; }
    std::byte* slot(std::uint32_t cursor) { return ring_memory_.bytes().data() + sizeof(RingHeader) + cursor % slots * request_size; }

    /// A request that is nearly right, behind those that were asked before.
    void ask() {
        const std::uint32_t at = header(0);
        std::array<std::byte, request_size> bytes{};
        bytes[0] = static_cast<std::byte>(input_.below(7));
        bytes[1] = static_cast<std::byte>(input_.below(bytes[0] == std::byte{indirect} ? 2 : 13));
        const std::uint64_t id = input_.number<std::uint16_t>(), sector = input_.below(disk_sectors + 2);
        std::memcpy(bytes.data() + 8, &id, sizeof id);
        std::memcpy(bytes.data() + 16, &sector, sizeof sector);
        if (bytes[0] == std::byte{indirect}) {
            bytes[2] = static_cast<std::byte>(input_.number<std::uint8_t>());
            bytes[offsetof(Indirect, refs)] = static_cast<std::byte>(first_ref + input_.below(pages + 1));
        } else {
            for (std::size_t i = 0; i < std::to_integer<std::size_t>(bytes[1]) && i < direct_segments_max; ++i) {
                write_segment(bytes.data() + 24 + 8 * i);
            }
        }
        std::memcpy(slot(at), bytes.data(), bytes.size());
        header(0) = at + 1;
    }

    void write_segment(std::byte* to) {
        const Segment segment{static_cast<std::uint32_t>(first_ref + input_.below(pages + 1)), static_cast<std::uint8_t>(input_.below(8)),
                              static_cast<std::uint8_t>(input_.below(9)), 0};
        std::memcpy(to, &segment, sizeof segment);
    }

    void write_table() {
        std::byte* page = granted_.bytes().data() + input_.below(pages) * hvd::page_size;
        for (std::size_t i = input_.below(24); i-- > 0;) {
            write_segment(page + 8 * i);
        }
    }

    void serve() {
        const std::uint32_t taken_before = requests_;
        const auto limit = static_cast<std::uint32_t>(input_.below(slots + 2));
        if (held_.need == Need::nothing) {  // what serve copies is what the slots hold now
            const std::uint32_t ready = std::min({limit, ring_.unconsumed(), Back::batch_max});
            for (std::uint32_t i = 0; i < ready; ++i) {
                Request request;
                std::memcpy(&request, slot(taken_before + i), sizeof request);
                ids_.push_back(request.id);
            }
            requests_ += ready;
        }
        held_ = back_.serve(limit, io());
        count_answers();
    }

    void go_on() {
        static constexpr Status statuses[] = {okay, error, unsupported};
        if (held_.need == Need::map && input_.flag()) {
            const std::size_t page = held_.missing % pages;
            back_.add(held_.missing, granted_.bytes().subspan(page * hvd::page_size, hvd::page_size), input_.flag());
            held_ = back_.resume(io());
        } else {
            held_ = back_.answer(statuses[input_.below(std::size(statuses))], io());
        }
        if (held_.need == Need::nothing && input_.flag()) {
            back_.clear();
        }
        count_answers();
    }

    /// Requests taken and not answered stay in order; their answers have their ids and no byte of anything else.
    void count_answers() {
        for (const std::uint32_t answered = requests_ - ring_.free(); answers_ != answered; ++answers_) {
            EXPECT(!ids_.empty());
            Response response;
            std::memcpy(&response, slot(answers_), sizeof response);
            EXPECT(response.id == ids_.front() && response.pad == 0 && response.pad2 == 0);
            ids_.pop_front();
        }
        EXPECT((held_.need == Need::nothing) == ids_.empty());
    }

    template <class Call>
    void may_fail(Call&& call) {
        try {
            call();
        } catch (const PeerFault&) {
        } catch (const LocalError&) {
        }
    }

    Input& input_;
    fuzz::SharedMemory ring_memory_;
    fuzz::SharedMemory channel_;
    fuzz::SharedMemory granted_;
    std::vector<std::byte> image_;
    Ring ring_;
    Doorbell bell_;
    bool readonly_;
    Back back_;
    Held held_{};
    std::deque<std::uint64_t> ids_;
    std::uint32_t requests_ = 0;
    std::uint32_t answers_ = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Input input(data, size);
    Trial trial(input);
    for (int steps = 0; input.more() && steps < steps_max; ++steps) {
        trial.step();
    }
    return 0;
}
