// Event channels and the wait on them, while the fuzzer is every peer: it writes any word of the pages, fills, empties and closes
// the pipes, between any two calls.
//
// What must hold: no call hangs although the peer lies about sleeping, pending and where it runs; nothing is raised but a
// LocalError or, of a ring, a PeerFault; what is ready is a port that is bound, once; nothing is touched outside the pages.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <memory>
#include <vector>

#include "../../../transport/native/waiter.hpp"
#include "shared_memory.hpp"

namespace {

using namespace hvd;
using fuzz::Input;

constexpr std::int64_t ports = 2;
constexpr int steps_max = 120;

/// One channel: our end, and what its peer holds.
class Channel {
public:
    explicit Channel(int side) : memory_(sizeof(ChannelPage)), ring_memory_(sizeof(RingHeader) + 4 * 16) {
        int to_us[2];
        int from_us[2];
        EXPECT(::pipe2(to_us, O_CLOEXEC | O_NONBLOCK) == 0 && ::pipe2(from_us, O_CLOEXEC | O_NONBLOCK) == 0);
        writes_ = to_us[1];
        reads_ = from_us[0];
        bell = std::make_unique<Doorbell>(memory_.bytes().data(), memory_.bytes().size(), side, to_us[0], from_us[1]);
        ring = std::make_unique<Ring>(RingEnd::front, ring_memory_.bytes(), RingShape{16, 16, 16});
        ring->init();
    }

    ~Channel() {
        hang_up();
        ::close(reads_);
    }

    void hang_up() {
        if (writes_ != -1) {
            ::close(writes_);
            writes_ = -1;
        }
    }

    /// The peer does something of its own.
    void interfere(Input& input) {
        switch (input.below(6)) {
            case 0: memory_.scribble(input); break;
            case 1: word(input) = input.number<std::uint32_t>(); break;
            case 2: fill(input.below(3) == 0 ? 70'000 : input.below(4)); break;
            case 3: ring_memory_.scribble(input); break;
            case 4: empty(); break;
            default: hang_up();
        }
    }

    std::unique_ptr<Doorbell> bell;
    std::unique_ptr<Ring> ring;

private:
    std::uint32_t& word(Input& input) {
        static constexpr std::size_t words[] = {0, 1, 2, 3, 32, 33, 34, 35};
        return reinterpret_cast<std::uint32_t*>(memory_.bytes().data())[words[input.below(std::size(words))]];
    }

    void fill(std::size_t bytes) const {
        const std::vector<char> junk(bytes, 1);
        if (writes_ != -1 && bell->rx_fd() != -1 && bytes != 0) {  // else it were the peer that got SIGPIPE
            static_cast<void>(!::write(writes_, junk.data(), junk.size()));
        }
    }

    void empty() const {
        char bytes[64];
        static_cast<void>(!::read(reads_, bytes, sizeof bytes));
    }

    fuzz::SharedMemory memory_;
    fuzz::SharedMemory ring_memory_;
    int writes_ = -1;
    int reads_ = -1;
};

class Trial {
public:
    explicit Trial(Input& input) : input_(input), channels_{Channel(0), Channel(1)} { waiter_.spin_ns = input.flag() ? 0 : 2'000; }

    void step() {
        Channel& channel = channels_[input_.below(channels_.size())];
        const std::int64_t port = 1 + static_cast<std::int64_t>(input_.below(ports + 1));
        try {
            act(channel, *channel.bell, port);
        } catch (const PeerFault&) {
        } catch (const LocalError&) {
        }
    }

private:
    void act(Channel& channel, Doorbell& bell, std::int64_t port) {
        switch (input_.below(18)) {
            case 0:
            case 1: channel.interfere(input_); break;
            case 2: bell.notify(); break;
            case 3: bell.kick(); break;
            case 4: EXPECT(!bell.take() || !bell.pending()); break;
            case 5: bell.peer_closed(); break;
            case 6: input_.flag() ? bell.peer_asleep() : bell.untaken(); break;
            case 7:
            case 8: wait(bell, input_.flag() ? 0 : 2'000); break;
            case 9: input_.flag() ? bell.mark_closed() : bell.mark_open(); break;
            case 10: close(bell); break;
            case 11: waiter_.add(port, bell); break;
            case 12: waiter_.remove(port); break;
            case 13: waiter_.attach_ring(port, *channel.ring); break;
            case 14: waiter_.mask(port); break;
            case 15: waiter_.unmask(port); break;
            case 16: input_.flag() ? waiter_.detach_rings(port) : waiter_.detach_ring(port, *channel.ring); break;
            default: wait();
        }
    }

    /// As Python has it: not while a waiter holds it.
    static void close(Doorbell& bell) {
        if (!bell.bound_to_waiter) {
            bell.close();
        }
    }

    /// Both halves of a wait, as Python makes them.
    static void wait(Doorbell& bell, std::int64_t spin_ns) {
        if (!bell.wait_briefly(spin_ns)) {
            bell.wait(now_ns(), spin_ns);
        }
    }

    void wait() {
        if (!waiter_.begin(input_.flag(), input_.flag())) {
            waiter_.block(now_ns());
        }
        std::vector<std::int64_t> ready = waiter_.ready();
        std::sort(ready.begin(), ready.end());
        EXPECT(std::adjacent_find(ready.begin(), ready.end()) == ready.end());
        EXPECT(std::all_of(ready.begin(), ready.end(), [](std::int64_t port) { return port >= 1 && port <= ports + 1; }));
    }

    Input& input_;
    std::array<Channel, ports> channels_;
    Waiter waiter_{2'000};
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
