// The switch and its parser, while the fuzzer is one frontend of two: it writes rings, indices and granted pages between any two steps,
// and packets that are nearly right. The other one sends nothing, and looks at all that it is given.
//
// What must hold: nothing outside rings and grants is touched; a frontend that breaks the protocol ends its own turn; what is delivered
// is within the MTU, of the VLAN and the network, from the sender's own address if it is guarded, as the rules have it, and leaves nothing
// to be checksummed or cut up by a receiver that does not.
#include <algorithm>
#include <array>
#include <memory>
#include <vector>

#include "../../../transport/native/net_switch.hpp"
#include "../../../transport/native/netfront.hpp"
#include "shared_memory.hpp"

namespace {

using namespace hvd;
using namespace hvd::netif;
using fuzz::Input;

constexpr std::uint32_t first_ref = 8;
constexpr std::size_t liar_pages = 5;
constexpr std::uint16_t behind = 64;  // where a frame may begin, beside its page's first byte
constexpr std::size_t mtu = 1500;
constexpr std::uint16_t vlan = 7;
constexpr int steps_max = 60;
constexpr int turns_max = 300;
constexpr RingShape tx_shape{tx_request_size, tx_response_size, tx_request_size};
constexpr RingShape rx_shape{rx_request_size, rx_response_size, rx_request_size};
constexpr Address liars_mac{0, 0x16, 0x3e, 0, 0, 1}, honest_mac{0, 0x16, 0x3e, 0, 0, 2};

/// Rings and channel of a vif.
struct Wire {
    Wire() : tx(page_size), rx(page_size), channel(sizeof(ChannelPage)), bell(channel.bytes().data(), channel.bytes().size(), 1, -1, -1),
             back_tx(RingEnd::back, tx.bytes(), tx_shape), back_rx(RingEnd::back, rx.bytes(), rx_shape) {}
    fuzz::SharedMemory tx;
    fuzz::SharedMemory rx;
    fuzz::SharedMemory channel;
    Doorbell bell;
    Ring back_tx;
    Ring back_rx;
};

/// Nobody is to be sent UDP to port 53.
std::vector<std::byte> rules() {
    Rule rule{};
    rule.has_protocol = 1;
    rule.protocol = protocol_udp;
    rule.destination_port_first = rule.destination_port_last = 53;
    std::vector<std::byte> packed(sizeof rule);
    std::memcpy(packed.data(), &rule, sizeof rule);
    return packed;
}

PortConfig config_of(const Address& mac, bool guarded) {
    PortConfig config;
    config.mac = mac;
    config.mtu = mtu;
    config.vlan = vlan;
    config.guarded = guarded;
    config.addresses = {{4, {10, 0, 0, 1}}};
    return config;
}

class Trial {
public:
    explicit Trial(Input& input)
        : input_(input),
          guarded_(input.flag()),
          plain_(input.flag()),
          granted_(liar_pages * page_size),
          pool_(FrontQueue::pages * page_size),
          table_(rules(), true),
          liar_(config_of(liars_mac, guarded_), &table_, {true, input.flag(), input.flag(), input.flag(), input.flag(), input.flag()}),
          honest_(config_of(honest_mac, true), &table_, {true, !plain_, !plain_, !plain_, !plain_, false}),
          front_tx_(RingEnd::front, good_.tx.bytes(), tx_shape),
          front_rx_(RingEnd::front, good_.rx.bytes(), rx_shape),
          front_(pool_.bytes(), first_ref) {
        front_tx_.init();
        front_rx_.init();
        front_.attach(front_tx_, front_rx_, good_.bell, good_.bell);
        liar_.add_queue(bad_.back_tx, bad_.back_rx, bad_.bell, bad_.bell);
        liar_.grants.add(first_ref, granted_.bytes(), true);
        honest_.add_queue(good_.back_tx, good_.back_rx, good_.bell, good_.bell);
        honest_.grants.add(first_ref, pool_.bytes(), true);
        switch_.add(liar_);
        switch_.add(honest_);
    }

    ~Trial() {
        switch_.remove(liar_);
        switch_.remove(honest_);
    }
    Trial(const Trial&) = delete;
    Trial& operator=(const Trial&) = delete;

    void step() {
        switch (input_.below(10)) {
            case 0: granted_.scribble(input_); break;
            case 1: (input_.flag() ? bad_.tx : bad_.rx).scribble(input_); break;
            case 2: write_frame(); break;
            case 3:
            case 4:
            case 5: send(); break;
            case 6: post(); break;
            case 7: send_extra(); break;
            case 8: may_fail([&] { switch_.drain(liar_); }); break;
            default: serve();
        }
    }

    void serve() {
        may_fail([&] {
            int turns = 0;
            while (switch_.serve(liar_, *liar_.queues.front()).end == Turn::End::more) {
                EXPECT(++turns < turns_max);
                look();
            }
        });
        EXPECT(honest_.fault.empty());
        while (Port* port = switch_.take_attention()) {
            EXPECT(port == &liar_ || port == &honest_);
        }
        switch_.drain(honest_);
        look();
    }

private:
    // ---- what the liar does --------------------------------------------------------------------------------------------------

    /// The beginning of a packet that the switch may like, of which anything is changed by other steps.
    void write_frame() {
        static constexpr std::uint16_t types[] = {type_ipv4, type_ipv6, type_arp, type_vlan, type_loopback};
        static constexpr Address group{0x33, 0x33, 0, 0, 0, 1}, assistant{0xcf, 0, 0, 0, 0, 0};
        const std::span<std::byte> page = granted_.bytes().subspan(input_.below(liar_pages) * page_size, page_size).subspan(input_.flag() ? behind : 0);
        const Address to[] = {honest_mac, group, assistant, liars_mac};
        std::memcpy(page.data(), to[input_.below(std::size(to))].data(), 6);
        std::memcpy(&page[6], liars_mac.data(), 6);
        std::size_t at = 12;
        const std::uint16_t type = types[input_.below(std::size(types))];
        set_word(&page[at], type);
        at += 2;
        if (type == type_vlan) {
            set_word(&page[at], input_.flag() ? vlan : input_.number<std::uint16_t>());
            set_word(&page[at + 2], types[input_.below(2)]);
            at += 4;
        }
        const bool v6 = word_at(page, at - 2) == type_ipv6;
        const auto bytes = static_cast<std::uint16_t>(input_.flag() ? input_.number<std::uint8_t>() : input_.number<std::uint16_t>());
        static constexpr std::uint8_t protocols[] = {protocol_tcp, protocol_udp, protocol_icmpv6, 0, 43, 44, 51, 60};
        const auto protocol = static_cast<std::byte>(protocols[input_.below(std::size(protocols))]);
        page[at] = std::byte{static_cast<std::uint8_t>(v6 ? 0x60 : 0x45)};
        set_word(&page[at + (v6 ? 4 : 2)], bytes);
        page[at + (v6 ? 6 : 9)] = protocol;
        if (!v6) {
            page[at + 12] = std::byte{10}, page[at + 15] = std::byte{1};
        }
        const std::size_t transport = at + (v6 ? 40 : 20);
        input_.bytes(page.subspan(transport, 8 * input_.below(6)));
        if (input_.flag()) {
            page[transport + 12] = std::byte{0x50};
        }
    }

    void push(const void* slot) {
        auto* ring = reinterpret_cast<std::uint32_t*>(bad_.tx.bytes().data());
        std::memcpy(bad_.tx.bytes().data() + sizeof(RingHeader) + ring[0] % ring_slots * tx_request_size, slot, tx_request_size);
        ring[0] += 1;
    }

    /// A slot that is nearly right.
    void send() {
        TxRequest request{};
        request.ref = static_cast<std::uint32_t>(first_ref + input_.below(liar_pages + 1));
        request.offset = offset();
        request.flags = static_cast<std::uint16_t>(input_.below(16));
        request.id = input_.number<std::uint8_t>();
        request.size = static_cast<std::uint16_t>(input_.flag() ? input_.number<std::uint8_t>() : input_.number<std::uint16_t>());
        push(&request);
    }

    /// Where a frame begins, or near the end of its page, or anywhere.
    std::uint16_t offset() {
        switch (input_.below(4)) {
            case 0: return 0;
            case 1: return behind;
            case 2: return static_cast<std::uint16_t>(page_size - input_.below(200));
            default: return input_.number<std::uint16_t>();
        }
    }

    void send_extra() {
        std::array<std::byte, tx_request_size> slot{};
        ExtraInfo extra{static_cast<std::uint8_t>(input_.below(6)), static_cast<std::uint8_t>(input_.below(2)), {}};
        extra.gso = {static_cast<std::uint16_t>(input_.flag() ? 1000 + input_.number<std::uint8_t>() : input_.number<std::uint16_t>()),
                     static_cast<std::uint8_t>(input_.below(4)), 0, 0};
        std::memcpy(slot.data(), &extra, sizeof extra);
        push(slot.data());
    }

    void post() {
        auto* ring = reinterpret_cast<std::uint32_t*>(bad_.rx.bytes().data());
        for (std::size_t count = 1 + input_.below(20); count-- > 0;) {
            const RxRequest request{input_.number<std::uint8_t>(), 0, static_cast<std::uint32_t>(first_ref + input_.below(liar_pages + 1))};
            std::memcpy(bad_.rx.bytes().data() + sizeof(RingHeader) + ring[0] % ring_slots * rx_request_size, &request, sizeof request);
            ring[0] += 1;
        }
    }

    // ---- what the honest one is given ----------------------------------------------------------------------------------------

    void look() {
        front_.collect();
        FrontQueue::Arrived packet;
        for (; front_.next(packet); front_.release()) {
            std::vector<std::byte> bytes;
            for (const iovec& part : std::span(packet.parts).first(packet.count)) {
                const auto* at = static_cast<const std::byte*>(part.iov_base);
                bytes.insert(bytes.end(), at, at + part.iov_len);
            }
            check(bytes, packet.offload);
        }
        front_.post();
    }

    void check(std::span<std::byte> bytes, const Offload& offload) const {
        EXPECT(bytes.size() >= ethernet_bytes && bytes.size() <= packet_bytes_max);
        const auto head = bytes.first(std::min(bytes.size(), Frame::head_max));
        Headers packet = parse_ethernet(head);
        parse_network(packet, head, bytes.size());
        EXPECT(!packet.malformed && !packet.tagged && !is_group(packet.source));
        EXPECT(!guarded_ || (packet.source == liars_mac && (packet.version != 4 || packet.from == IpAddress{10, 0, 0, 1} || packet.destination_port == 67)));
        EXPECT(!(packet.protocol == protocol_udp && packet.has_ports && packet.destination_port == 53));
        EXPECT(offload.gso_type != gso_none || bytes.size() <= ethernet_bytes + mtu);
        EXPECT(offload.gso_type == gso_none || payload_place(packet, head));
        if (plain_) {
            EXPECT(offload.gso_type == gso_none && !offload.csum_blank);
        } else if (offload.csum_blank) {
            EXPECT(checksum_place(packet));
        }
    }

    template <class Call>
    void may_fail(Call&& call) {
        try {
            call();
        } catch (const PeerFault&) {
        }
    }

    Input& input_;
    bool guarded_;
    bool plain_;
    Wire bad_;
    Wire good_;
    fuzz::SharedMemory granted_;
    fuzz::SharedMemory pool_;
    RuleTable table_;
    Switch switch_;
    Port liar_;
    Port honest_;
    Ring front_tx_;
    Ring front_rx_;
    FrontQueue front_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Input input(data, size);
    Trial trial(input);
    for (int steps = 0; input.more() && steps < steps_max; ++steps) {
        trial.step();
    }
    trial.serve();
    return 0;
}
