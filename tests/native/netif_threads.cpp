// Two guests' vifs and the switch between them in three threads under the sanitizers: packets of every size, both ways, a driver domain
// that dies after each so many turns, and frontends' slots that are anything. What arrives is what was sent; nothing is touched that was
// not granted.
#include <sys/mman.h>

#include <atomic>
#include <cstring>
#include <deque>
#include <random>
#include <thread>

#include "../../transport/native/net_switch.hpp"
#include "../../transport/native/net_tap.hpp"
#include "../../transport/native/netfront.hpp"
#include "expect.hpp"

using namespace hvd;
using namespace hvd::netif;

namespace {

constexpr std::uint32_t first_ref = 100;
constexpr int lives = 40;
constexpr std::size_t pool_bytes = FrontQueue::pages * page_size;
constexpr RingShape tx_shape{tx_request_size, tx_response_size, tx_request_size};
constexpr RingShape rx_shape{rx_request_size, rx_response_size, rx_request_size};

std::byte* pages(std::size_t count) {
    void* at = ::mmap(nullptr, count * page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(at != MAP_FAILED);
    return static_cast<std::byte*>(at);
}

struct Wire {
    std::byte* tx = pages(1);
    std::byte* rx = pages(1);
    std::byte* pool = pages(FrontQueue::pages);
    std::byte* channel = pages(1);
};

/// A backend's end of a wire, for one life.
struct BackEnd {
    explicit BackEnd(Wire& wire)
        : tx(RingEnd::back, {wire.tx, page_size}, tx_shape), rx(RingEnd::back, {wire.rx, page_size}, rx_shape), bell(wire.channel, page_size, 1, -1, -1) {}
    Ring tx;
    Ring rx;
    Doorbell bell;
};

Address mac_of(std::uint8_t number) { return {0, 0x16, 0x3e, 0, 0, number}; }

PortConfig config_of(std::uint8_t number) {
    PortConfig config;
    config.mac = mac_of(number);
    config.mtu = 9000;
    config.party = number;
    return config;
}

/// One life of the driver domain: so many turns in which there was something to do.
void live(Wire* wires, std::uint64_t turns) {
    Switch bridge;
    const RuleTable rules({}, true);
    BackEnd ends[2]{BackEnd(wires[0]), BackEnd(wires[1])};
    std::unique_ptr<Port> ports[2];
    for (std::uint8_t at = 0; at < 2; ++at) {
        ports[at] = std::make_unique<Port>(config_of(at), &rules, Accepts{true, true, true, true, true, false});
        ports[at]->add_queue(ends[at].tx, ends[at].rx, ends[at].bell, ends[at].bell);
        ports[at]->grants.add(first_ref, {wires[at].pool, pool_bytes}, true);
        bridge.add(*ports[at]);
    }
    while (turns != 0) {
        const std::uint64_t before = ports[0]->counters.received + ports[1]->counters.received;
        for (const auto& port : ports) {
            bridge.serve(*port, *port->queues.front());
            bridge.drain(*port);
        }
        turns -= ports[0]->counters.received + ports[1]->counters.received != before ? 1 : 0;
        std::this_thread::yield();
    }
}

/// A guest: sends packets with their number and length in them, and checks those it gets.
class Guest {
public:
    Guest(Wire& wire, std::uint8_t number) : wire_(wire), number_(number), queue_({wire.pool, pool_bytes}, first_ref), source_(number) {}

    void attach() {
        tx_ = std::make_unique<Ring>(RingEnd::front, std::span(wire_.tx, page_size), tx_shape);
        rx_ = std::make_unique<Ring>(RingEnd::front, std::span(wire_.rx, page_size), rx_shape);
        bell_ = std::make_unique<Doorbell>(wire_.channel, page_size, 0, -1, -1);
        tx_->init();
        rx_->init();
        queue_.attach(*tx_, *rx_, *bell_, *bell_);
    }

    void lose_backend() {
        queue_.collect();
        queue_.detach();
    }

    void act() {
        if (queue_.attached()) {
            queue_.collect();
        }
        const auto size = static_cast<std::uint32_t>(source_() % 3 == 0 ? 20 + source_() % 8000 : 20 + source_() % 200);
        if (queue_.has_room(size, false)) {
            send(size);
        }
        FrontQueue::Arrived packet;
        while (queue_.next(packet)) {
            check(packet);
            queue_.release();
        }
        queue_.post();
    }

    std::uint64_t received() const { return received_; }

private:
    void send(std::uint32_t size) {
        std::vector<std::byte> packet(size);
        const Address to = mac_of(number_ == 0 ? 1 : 0);
        const Address from = mac_of(number_);
        std::memcpy(packet.data(), to.data(), 6);
        std::memcpy(&packet[6], from.data(), 6);
        packet[12] = std::byte{0x88};
        packet[13] = std::byte{0xb5};
        std::memcpy(&packet[14], &size, sizeof size);
        for (std::size_t at = 18; at < size; ++at) {
            packet[at] = static_cast<std::byte>(size + at);
        }
        queue_.send(packet, {});
        queue_.publish();
    }

    void check(const FrontQueue::Arrived& packet) {
        std::vector<std::byte> bytes;
        for (std::uint32_t part = 0; part < packet.count; ++part) {
            const auto* at = static_cast<const std::byte*>(packet.parts[part].iov_base);
            bytes.insert(bytes.end(), at, at + packet.parts[part].iov_len);
        }
        std::uint32_t size = 0;
        std::memcpy(&size, &bytes[14], sizeof size);
        EXPECT(size == bytes.size() && size == packet.bytes);
        for (std::size_t at = 18; at < size; ++at) {
            EXPECT(bytes[at] == static_cast<std::byte>(size + at));
        }
        ++received_;
    }

    Wire& wire_;
    std::uint8_t number_;
    FrontQueue queue_;
    std::mt19937_64 source_;
    std::unique_ptr<Ring> tx_;
    std::unique_ptr<Ring> rx_;
    std::unique_ptr<Doorbell> bell_;
    std::uint64_t received_ = 0;
};

/// Deaths are told to both guests when the driver domain is certainly gone, as the hypervisor does.
void packets_outlive_driver_domains() {
    Wire wires[2];
    Guest one(wires[0], 0);
    Guest two(wires[1], 1);
    std::mt19937_64 source(3);
    for (int life = 0; life < lives; ++life) {
        one.attach();
        two.attach();
        std::atomic<bool> over = false;
        std::thread driver([&, turns = 20 + source() % 100] {
            live(wires, turns);
            over = true;
        });
        std::thread other([&] {
            while (!over) {
                two.act();
                std::this_thread::yield();
            }
        });
        while (!over) {
            one.act();
            std::this_thread::yield();
        }
        driver.join();
        other.join();
        one.lose_backend();
        two.lose_backend();
    }
    EXPECT(one.received() > 100 && two.received() > 100);
}

/// Slots that are anything, or nearly right, from a frontend that shares three pages; every byte that is delivered is looked at.
void take_anything() {
    constexpr std::size_t granted = 3;
    std::mt19937_64 source(5);
    unsigned delivered = 0;
    for (int round = 0; round < 3000; ++round) {
        Wire wire;
        const auto memory = std::make_unique<std::byte[]>(granted * page_size);  // red zones on either side
        Switch bridge;
        BackEnd liar(wire);
        Wire good;
        BackEnd honest(good);
        Port ports[2]{Port(config_of(0), nullptr, {}), Port(config_of(1), nullptr, {true, source() % 2 == 0, false, source() % 2 == 0, false, false})};
        ports[0].add_queue(liar.tx, liar.rx, liar.bell, liar.bell);
        ports[0].grants.add(first_ref, {memory.get(), granted * page_size}, true);
        ports[1].add_queue(honest.tx, honest.rx, honest.bell, honest.bell);
        ports[1].grants.add(first_ref, {good.pool, pool_bytes}, true);
        bridge.add(ports[0]);
        bridge.add(ports[1]);
        Ring tx(RingEnd::front, {wire.tx, page_size}, tx_shape);
        tx.init();
        Ring rx(RingEnd::front, {good.rx, page_size}, rx_shape);
        rx.init();
        FrontQueue queue({good.pool, pool_bytes}, first_ref);
        Ring good_tx(RingEnd::front, {good.tx, page_size}, tx_shape);
        good_tx.init();
        queue.attach(good_tx, rx, honest.bell, honest.bell);
        for (std::size_t at = 0; at < granted * page_size; ++at) {
            memory[at] = static_cast<std::byte>(source() % 4 == 0 ? source() : at % 64 == 12 ? 0x08 : at % 64 == 14 ? 0x45 : at % 64 == 23 ? 6 : 0);
        }
        for (int slot = 0; slot < 8; ++slot) {
            TxRequest request{first_ref + static_cast<std::uint32_t>(source() % (granted + 1)), static_cast<std::uint16_t>(source() % 5000),
                              static_cast<std::uint16_t>(source() % 16), 1, static_cast<std::uint16_t>(source() % 300)};
            if (source() % 3 == 0) {
                ExtraInfo extra{static_cast<std::uint8_t>(source() % 6), static_cast<std::uint8_t>(source() % 2), {}};
                extra.gso = {static_cast<std::uint16_t>(source() % 200), static_cast<std::uint8_t>(source() % 3), 0, 0};
                tx.push(&extra, sizeof extra);
            } else {
                tx.push(&request, sizeof request);
            }
        }
        try {
            while (bridge.serve(ports[0], *ports[0].queues.front()).end == Turn::End::more) {
            }
        } catch (const PeerFault&) {
        }
        queue.collect();
        FrontQueue::Arrived packet;
        for (; queue.next(packet); queue.release(), ++delivered) {
            for (std::uint32_t part = 0; part < packet.count; ++part) {
                EXPECT(packet.parts[part].iov_len != 0);
            }
        }
        for (Wire* each : {&wire, &good}) {
            ::munmap(each->tx, page_size), ::munmap(each->rx, page_size), ::munmap(each->channel, page_size);
            ::munmap(each->pool, pool_bytes);
        }
    }
    EXPECT(delivered > 100);
}

/// A backend that answers anything: the frontend ends with a fault, or goes on, and every buffer is still some buffer.
void believe_nothing() {
    std::mt19937_64 source(9);
    for (int round = 0; round < 3000; ++round) {
        Wire wire;
        FrontQueue queue({wire.pool, pool_bytes}, first_ref);
        for (int life = 0; life < 3; ++life) {
            Ring tx(RingEnd::front, {wire.tx, page_size}, tx_shape);
            Ring rx(RingEnd::front, {wire.rx, page_size}, rx_shape);
            tx.init();
            rx.init();
            BackEnd liar(wire);
            queue.attach(tx, rx, liar.bell, liar.bell);
            std::byte packet[100]{};
            for (int count = 0; count < 5 && queue.has_room(sizeof packet, false); ++count) {
                queue.send(packet, {});
            }
            queue.publish();
            std::byte request[tx_request_size * 8];
            const std::uint32_t taken = liar.tx.pop_many(request, 8);
            for (std::uint32_t count = 0; count < taken && round % 2 == 0; ++count) {
                const TxResponse answer{static_cast<std::uint16_t>(source() % 260), static_cast<std::int16_t>(static_cast<int>(source() % 4) - 2)};
                liar.tx.push(&answer, sizeof answer);
            }
            std::byte buffers[rx_request_size * 6];
            const std::uint32_t posted = liar.rx.pop_many(buffers, 6);
            for (std::uint32_t count = 0; count < posted; ++count) {
                const RxResponse answer{0, static_cast<std::uint16_t>(source() % 5000), static_cast<std::uint16_t>(source() % 16),
                                        static_cast<std::int16_t>(source() % 5000 - 100)};
                liar.rx.push(&answer, sizeof answer);
            }
            try {
                queue.collect();
            } catch (const PeerFault&) {
            }
            FrontQueue::Arrived arrived;
            for (; queue.next(arrived); queue.release()) {
                for (std::uint32_t part = 0; part < arrived.count; ++part) {
                    const auto* at = static_cast<const std::byte*>(arrived.parts[part].iov_base);
                    EXPECT(at >= wire.pool + ring_slots * page_size && at < wire.pool + pool_bytes);
                    EXPECT(static_cast<std::size_t>(at - wire.pool) % page_size + arrived.parts[part].iov_len <= page_size);
                }
            }
            queue.detach();
        }
        Ring tx(RingEnd::front, {wire.tx, page_size}, tx_shape);
        Ring rx(RingEnd::front, {wire.rx, page_size}, rx_shape);
        tx.init();
        rx.init();
        BackEnd back(wire);
        queue.attach(tx, rx, back.bell, back.bell);
        EXPECT(back.rx.unconsumed() == ring_slots);  // none was lost
        for (std::byte* each : {wire.tx, wire.rx, wire.channel}) {
            ::munmap(each, page_size);
        }
        ::munmap(wire.pool, pool_bytes);
    }
}

/// A queue against a plain list: full ones refuse, everything comes out as it went in.
void queue_like_a_list() {
    std::mt19937_64 source(11);
    FrameQueue queue(1'048'576);
    Frame frame;
    std::deque<std::vector<std::byte>> list;
    unsigned refused = 0;
    for (int step = 0; step < 20'000; ++step) {
        const bool fills = step / 1000 % 2 == 0;
        if ((source() % 4 != 0) == fills) {
            std::vector<std::byte> packet(source() % 8 == 0 ? 1 + source() % packet_bytes_max : 1 + source() % 2000);
            for (std::size_t at = 0; at < packet.size(); at += 61) {
                packet[at] = static_cast<std::byte>(source() & 0xff);
            }
            frame.begin({});
            frame.add(packet);
            frame.seal();
            if (queue.push(frame)) {
                list.push_back(std::move(packet));
            } else {
                ++refused;
            }
        } else if (!list.empty()) {
            queue.front(frame);
            std::vector<std::byte> packet(frame.size());
            Frame::Reader(frame).copy(packet.data(), packet.size());
            EXPECT(packet == list.front());
            queue.pop();
            list.pop_front();
        }
        EXPECT(queue.empty() == list.empty());
    }
    EXPECT(refused > 10);
}

}  // namespace

int main() {
    start_watchdog();
    queue_like_a_list();
    packets_outlive_driver_domains();
    take_anything();
    believe_nothing();
    return 0;
}
