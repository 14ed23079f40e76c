// One end of a ring, while the fuzzer is the other: between any two calls it writes any word and any byte of the memory.
//
// What must hold: nothing is touched outside the memory; whatever is raised is one of the three errors; a front is never given
// more responses than it asked for, a back never more requests than the ring has slots; what is published has no byte of an
// older message in it (XSA-216); and an end that found a fault stays closed (XSA-39, XSA-86).
#include <array>
#include <vector>

#include "../../../transport/native/ring.hpp"
#include "shared_memory.hpp"

namespace {

using namespace hvd;
using fuzz::Input;

constexpr std::array shapes{RingShape{112, 16, 112}, RingShape{8, 8, 8}, RingShape{3, 1, 5}, RingShape{24, 40, 64}};
constexpr int steps_max = 400;

/// Records are written while the switch is on, into memory that the fuzzer has too.
fuzz::SharedMemory& trace_memory() {
    static fuzz::SharedMemory memory(trace::buffer_bytes);
    static trace::Buffer buffer(memory.bytes().data(), memory.bytes().size());
    trace::own_buffer = &buffer;
    return memory;
}

class Trial {
public:
    explicit Trial(Input& input)
        : input_(input),
          shape_(shapes[input.below(shapes.size())]),
          end_(input.flag() ? RingEnd::front : RingEnd::back),
          memory_(sizeof(RingHeader) + (1 + input.below(40)) * shape_.slot_size),
          ring_(end_, memory_.bytes(), shape_, input.flag()),
          trace_memory_(trace_memory()) {
        if (end_ == RingEnd::front) {
            ring_.init();
        }
        store_relaxed(trace::switch_word(), input.flag() ? std::uint32_t{trace::monotonic} : std::uint32_t{trace::off});
    }

    void step() {
        switch (input_.below(14)) {
            case 0: word(input_.below(4)) = input_.number<std::uint32_t>(); break;
            case 1: peer_prod() += static_cast<std::uint32_t>(input_.below(8)); break;
            case 2: memory_.scribble(input_); break;
            case 3: may_fail([&] { push(); }); break;
            case 4: may_fail([&] { push_many(); }); break;
            case 5: may_fail([&] { pop(); }); break;
            case 6: may_fail([&] { ring_.final_check(); }); break;
            case 7: ring_.arm(); break;
            case 8: ring_.has_work(); break;
            case 9: may_fail([&] { attach(); }); break;
            case 10: name_messages(); break;
            case 11: trace_memory_.scribble(input_); break;
            case 12: may_fail([&] { ring_.untrusted_header(); }); break;
            default: may_fail([&] { EXPECT(ring_.unconsumed() <= due_at_most()); });
        }
    }

    void close() {
        ring_.close();
        expect_throw<LocalError>([&] { ring_.unconsumed(); }, "a closed ring");
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

    void push() {
        std::vector<std::byte> message(input_.below(ring_.out_size() + 2));
        input_.bytes(message);
        ring_.push(message.data(), message.size());
        std::vector<std::byte> expected(message);
        expected.resize(ring_.out_size());
        EXPECT(std::memcmp(slot(produced_), expected.data(), expected.size()) == 0);
        ++produced_;
    }

    void push_many() {
        const std::size_t count = input_.below(48);
        std::vector<std::byte> messages(count * ring_.out_size(), std::byte{0x5a});
        const Ring::Pushed pushed = ring_.push_many(messages.data(), count);
        EXPECT(pushed.count <= count && pushed.count <= ring_.size());
        produced_ += pushed.count;
    }

    void pop() {
        const auto limit = static_cast<std::uint32_t>(input_.below(48));
        const std::uint32_t due = due_at_most();
        std::vector<std::byte> messages(limit * ring_.in_size());
        const std::uint32_t count = ring_.pop_many(messages.data(), limit);
        EXPECT(count <= limit && count <= due);
        consumed_ += count;
    }

    /// Our own affair, for a ring in any state.
    void name_messages() {
        try {
            ring_.name_messages_by(input_.below(130), input_.below(130));
        } catch (const LocalError&) {
        }
    }

    void attach() {
        const auto index = input_.number<std::uint32_t>();
        ring_.attach(index);
        produced_ = consumed_ = index;
    }

    std::uint32_t due_at_most() const { return end_ == RingEnd::front ? produced_ - consumed_ : ring_.size() - (consumed_ - produced_); }
    std::uint32_t& word(std::size_t number) { return reinterpret_cast<std::uint32_t*>(memory_.bytes().data())[number]; }
    std::uint32_t& peer_prod() { return word(end_ == RingEnd::front ? 2 : 0); }

    const std::byte* slot(std::uint32_t cursor) const {
        return memory_.bytes().data() + sizeof(RingHeader) + (cursor & (ring_.size() - 1)) * shape_.slot_size;
    }

    Input& input_;
    RingShape shape_;
    RingEnd end_;
    fuzz::SharedMemory memory_;
    Ring ring_;
    fuzz::SharedMemory& trace_memory_;
    std::uint32_t produced_ = 0;
    std::uint32_t consumed_ = 0;
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
