// A netif frontend's queue, while the fuzzer is its backends: they answer what was sent, what was not, twice, late or never, bring packets
// of any parts and extra infos, write rings and buffers at any time, die and come back.
//
// What must hold: what arrives lies in buffers of the guest's own, each in one packet at a time; a packet that was not answered is in the
// next backend's ring, whole, in its order and as it was sent, and no other is; and when all is over every page is free again.
#include <memory>
#include <set>
#include <vector>

#include "../../../transport/native/netfront.hpp"
#include "shared_memory.hpp"

namespace {

using namespace hvd;
using namespace hvd::netif;
using fuzz::Input;

constexpr std::uint32_t first_ref = 8;
constexpr int steps_max = 120;
constexpr RingShape tx_shape{tx_request_size, tx_response_size, tx_request_size};
constexpr RingShape rx_shape{rx_request_size, rx_response_size, rx_request_size};

/// One backend's life: rings of its own.
struct Backend {
    Backend() : tx_memory(page_size), rx_memory(page_size), tx(RingEnd::front, tx_memory.bytes(), tx_shape), rx(RingEnd::front, rx_memory.bytes(), rx_shape) {
        tx.init();
        rx.init();
    }

    static std::uint32_t& word(fuzz::SharedMemory& memory, std::size_t number) { return reinterpret_cast<std::uint32_t*>(memory.bytes().data())[number]; }

    static void answer(fuzz::SharedMemory& memory, const void* response, std::size_t bytes, std::size_t slot_bytes) {
        std::uint32_t& produced = word(memory, 2);
        std::memcpy(memory.bytes().data() + sizeof(RingHeader) + produced++ % ring_slots * slot_bytes, response, bytes);
    }

    fuzz::SharedMemory tx_memory;
    fuzz::SharedMemory rx_memory;
    Ring tx;
    Ring rx;
};

class Trial {
public:
    explicit Trial(Input& input)
        : input_(input),
          pool_(FrontQueue::pages * page_size),
          channel_(sizeof(ChannelPage)),
          bell_(channel_.bytes().data(), channel_.bytes().size(), 0, -1, -1),
          front_(pool_.bytes(), first_ref) {
        come();
    }

    void step() {
        switch (input_.below(14)) {
            case 0: (input_.flag() ? backend_->tx_memory : backend_->rx_memory).scribble(input_); break;
            case 1: input_.bytes(rx_half().subspan(input_.number<std::uint16_t>(), 16)); break;
            case 2: Backend::word(input_.flag() ? backend_->tx_memory : backend_->rx_memory, 2) = input_.number<std::uint32_t>(); break;
            case 3:
            case 4: answer(); break;
            case 5:
            case 6:
            case 7: bring(); break;
            case 8: bring_extra(); break;
            case 9:
            case 10: send(); break;
            case 11: front_.publish(); break;
            case 12: go(); break;
            default: may_fail([&] { front_.collect(); });
        }
        look(input_.below(4));
    }

    void finish() {
        go();
        look(ring_slots);
        front_.publish();
        for (std::uint32_t id = 0; id < ring_slots; ++id) {  // of each slot: what is not open is a fault, behind which it is enough
            const TxResponse response{static_cast<std::uint16_t>(id), okay};
            if (open_.contains(id)) {
                Backend::answer(backend_->tx_memory, &response, sizeof response, tx_request_size);
            }
        }
        front_.collect();
        EXPECT(front_.in_flight() == 0);
        EXPECT(front_.has_room(packet_bytes_max, true));
    }

private:
    std::span<std::byte> rx_half() const { return pool_.bytes().subspan(ring_slots * page_size); }

    void come() {
        backend_ = std::make_unique<Backend>();
        front_.attach(backend_->tx, backend_->rx, bell_, bell_);
        see_what_was_sent();
    }

    /// It is dead and fenced; with its rings all that could be written through them is gone.
    void go() {
        front_.detach();
        come();
    }

    /// All that is in a new backend's ring: numbers that grow, each packet full of its own.
    void see_what_was_sent() {
        open_.clear();
        const std::uint32_t produced = Backend::word(backend_->tx_memory, 0);
        std::uint32_t packets = 0;
        std::uint32_t last = 0;
        for (std::uint32_t at = 0; at < produced; ++packets) {
            const TxRequest first = request(at++);
            EXPECT((first.flags & tx_extra_info) == 0 || at < produced);
            at += (first.flags & tx_extra_info) != 0;
            std::uint32_t left = first.size;
            if (left != 0) {
                std::uint32_t number;
                std::memcpy(&number, page_of(first).data(), sizeof number);
                EXPECT(number > last);
                last = number;
            }
            for (TxRequest part = first;; part = request(at++)) {
                const std::uint32_t here = std::min<std::uint32_t>(left, page_size);
                for (const std::byte byte : page_of(part).first(here).subspan(part.id == first.id && here != 0 ? sizeof last : 0)) {
                    EXPECT(byte == std::byte{static_cast<std::uint8_t>(last)});
                }
                EXPECT(open_.insert(part.id).second);
                left -= here;
                if ((part.flags & tx_more_data) == 0) {
                    break;
                }
                EXPECT(at < produced);
            }
            EXPECT(left == 0);
        }
        EXPECT(packets == front_.in_flight());
    }

    TxRequest request(std::uint32_t at) const {
        TxRequest copy;
        std::memcpy(&copy, backend_->tx_memory.bytes().data() + sizeof(RingHeader) + at % ring_slots * tx_request_size, sizeof copy);
        return copy;
    }

    std::span<std::byte> page_of(const TxRequest& request) const {
        EXPECT(request.id < ring_slots && request.ref == first_ref + request.id && request.offset == 0);
        return pool_.bytes().subspan(request.id * page_size, page_size);
    }

    void send() {
        if (input_.below(8) == 0) {
            if (front_.has_room(0, true)) {
                front_.change_group({1, 0, 0x5e, 0, 0, 1}, input_.flag());
            }
            return;
        }
        Offload offload;
        offload.csum_blank = input_.flag();
        offload.gso_type = input_.flag() ? gso_tcpv4 : gso_none;
        const std::uint32_t bytes = input_.flag() ? 4u + input_.number<std::uint8_t>() : std::max<std::uint32_t>(4, input_.number<std::uint16_t>());
        if (front_.has_room(bytes, offload.gso_type != gso_none)) {
            ++sent_;
            std::vector<std::byte> packet(bytes, std::byte{static_cast<std::uint8_t>(sent_)});
            std::memcpy(packet.data(), &sent_, sizeof sent_);
            front_.send(packet, offload);
        }
    }

    void answer() {
        static constexpr std::int16_t statuses[] = {okay, error, dropped, null, 7};
        const TxResponse response{input_.flag() ? request(input_.number<std::uint8_t>()).id : input_.number<std::uint16_t>(), statuses[input_.below(5)]};
        Backend::answer(backend_->tx_memory, &response, sizeof response, tx_request_size);
    }

    void bring() {
        const auto offset = static_cast<std::uint16_t>(input_.flag() ? 0 : input_.number<std::uint16_t>());
        const auto status = static_cast<std::int16_t>(input_.flag() ? input_.number<std::uint8_t>() : input_.number<std::uint16_t>());
        const RxResponse response{input_.number<std::uint8_t>(), offset, static_cast<std::uint16_t>(input_.below(16)), status};
        Backend::answer(backend_->rx_memory, &response, sizeof response, rx_request_size);
    }

    void bring_extra() {
        ExtraInfo extra{static_cast<std::uint8_t>(input_.below(6)), static_cast<std::uint8_t>(input_.below(2)), {}};
        extra.gso = {input_.number<std::uint16_t>(), static_cast<std::uint8_t>(input_.below(4)), 0, 0};
        Backend::answer(backend_->rx_memory, &extra, sizeof extra, rx_request_size);
    }

    /// As the guest does, which leaves some where they are.
    void look(std::size_t packets) {
        FrontQueue::Arrived packet;
        for (; packets-- > 0 && front_.next(packet); front_.release()) {
            EXPECT(packet.count >= 1 && packet.count <= slots_per_packet_max);
            std::set<std::size_t> buffers;
            std::uint32_t bytes = 0;
            for (const iovec& part : std::span(packet.parts).first(packet.count)) {
                const auto at = static_cast<std::size_t>(static_cast<const std::byte*>(part.iov_base) - rx_half().data());
                EXPECT(at % page_size + part.iov_len <= page_size && at + part.iov_len <= rx_half().size());
                EXPECT(buffers.insert(at / page_size).second);
                bytes += static_cast<std::uint32_t>(part.iov_len);
            }
            EXPECT(bytes == packet.bytes);
        }
        front_.post();
    }

    /// A backend that broke its rings is closed, and another one comes.
    template <class Call>
    void may_fail(Call&& call) {
        try {
            call();
        } catch (const PeerFault&) {
            go();
        }
    }

    Input& input_;
    fuzz::SharedMemory pool_;
    fuzz::SharedMemory channel_;
    Doorbell bell_;
    std::unique_ptr<Backend> backend_;
    FrontQueue front_;
    std::set<std::uint32_t> open_;
    std::uint32_t sent_ = 0;
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
