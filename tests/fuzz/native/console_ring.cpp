// One end of a console ring, while the fuzzer is the other: between any two calls it writes any index and any byte of the page.
//
// What must hold: nothing is touched outside the page; what is raised is a LocalError or a PeerFault; no more is read than the
// peer can have written, no more is written than there is room for; and an end that found a fault stays closed.
#include <vector>

#include "../../../transport/native/console_ring.hpp"
#include "shared_memory.hpp"

namespace {

using namespace hvd;
using fuzz::Input;

constexpr int steps_max = 400;

class Trial {
public:
    explicit Trial(Input& input) : input_(input), end_(input.flag() ? RingEnd::front : RingEnd::back), memory_(sizeof(ConsoleInterface)) {
        for (std::size_t number = 0; number < 4 && input.flag(); ++number) {
            index(number) = input.number<std::uint32_t>();  // a back goes on where the page says that its predecessor stopped
        }
        ring_.emplace(end_, memory_.bytes());
    }

    void step() {
        switch (input_.below(9)) {
            case 0: index(input_.below(4)) = input_.number<std::uint32_t>(); break;
            case 1: index(input_.below(4)) += input_.number<std::uint16_t>() % 3000; break;
            case 2: memory_.scribble(input_); break;
            case 3: may_fail([&] { write(); }); break;
            case 4: may_fail([&] { read(); }); break;
            case 5: may_fail([&] { ring_->consume(input_.number<std::uint16_t>()); }); break;
            case 6: may_fail([&] { copy_in_flight(); }); break;
            case 7: may_fail([&] { EXPECT(ring_->free() <= room()); }); break;
            default: may_fail([&] { EXPECT(ring_->unconsumed() <= sizeof(ConsoleInterface) - room()); });
        }
    }

    void close() {
        ring_->close();
        expect_throw<LocalError>([&] { ring_->unconsumed(); }, "a closed ring");
    }

private:
    template <class Call>
    void may_fail(Call&& call) {
        try {
            call();
            EXPECT(!broken_);
        } catch (const PeerFault&) {
            broken_ = true;
        } catch (const LocalError&) {
        }
    }

    void write() {
        std::vector<std::byte> typed(input_.number<std::uint16_t>() % 2100, std::byte{0x5a});
        const std::uint32_t written = ring_->write(typed.data(), typed.size());
        EXPECT(written <= typed.size() && written <= room());
    }

    /// As Python reads: everything there is, of which the peer may change the indices meanwhile.
    void read() {
        const std::uint32_t count = ring_->unconsumed();
        std::vector<std::byte> bytes(count);
        index(input_.below(4)) = input_.number<std::uint32_t>();
        ring_->peek(bytes.data(), count);
        ring_->consume(static_cast<std::uint32_t>(std::min<std::size_t>(count, input_.number<std::uint16_t>())));
    }

    void copy_in_flight() {
        const std::uint32_t count = ring_->in_flight();
        EXPECT(count <= room());
        std::vector<std::byte> bytes(count);
        index(input_.below(4)) = input_.number<std::uint32_t>();
        ring_->copy_in_flight(bytes.data(), count);
    }

    std::size_t room() const { return end_ == RingEnd::front ? sizeof(ConsoleInterface::out) : sizeof(ConsoleInterface::in); }
    std::uint32_t& index(std::size_t number) { return reinterpret_cast<std::uint32_t*>(memory_.bytes().data() + 3072)[number]; }

    Input& input_;
    RingEnd end_;
    fuzz::SharedMemory memory_;
    std::optional<ConsoleRing> ring_;
    bool broken_ = false;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Input input(data, size);
    Trial trial(input);
    for (int steps = 0; input.more() && steps < steps_max; ++steps) {
        trial.step();
    }
    trial.close();
    return 0;
}
