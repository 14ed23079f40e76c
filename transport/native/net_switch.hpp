// The learning switch of a driver domain: from each vif's Tx ring, past its guard, its rate and the rules, to others' Rx rings.
//
// Several networks, of which no packet leaves; in each, VLANs, of which neither. A packet goes to the port that its address is behind,
// or to all that are in its VLAN. Whoever has no buffers has a queue; whoever's is full loses packets, and delays nobody. Work per event
// is bounded by packets and by bytes copied or looked at, whichever comes first.
//
// A port whose frontend breaks the protocol ends its own turn with a PeerFault; one that does so while others send to it is noted, and
// told to its owner with what else needs Python: `attention`.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "forwarding_table.hpp"
#include "net_port.hpp"
#include "offload.hpp"
#include "packet_flow.hpp"
#include "spin.hpp"

namespace hvd::netif {

/// How a port's turn ended.
struct Turn {
    enum class End : std::uint8_t {
        done,
        more,       ///< others have their turn first
        unmapped,   ///< `missing` is to be mapped first
        throttled,  ///< its rate lets it go on in `ready_in_ns`
    };
    End end = End::done;
    std::uint32_t missing = 0;
    std::int64_t ready_in_ns = 0;
};

class Switch {
public:
    static constexpr std::uint32_t packets_per_turn = 64;
    static constexpr std::uint64_t bytes_per_turn = 262'144;
    static constexpr std::size_t ports_max = 1024;

    /// The port's address is known from now on. LocalError when there are too many, or another of its network has the address.
    void add(Port& port) {
        for (const Port* other : ports_) {
            if (other != nullptr && other->config.network == port.config.network && other->config.mac == port.config.mac) {
                throw LocalError("another vif of this network has the same MAC address");
            }
        }
        const auto free = std::find(ports_.begin(), ports_.end(), nullptr);
        port.number = static_cast<std::uint32_t>(free - ports_.begin());
        if (free == ports_.end()) {
            if (ports_.size() == ports_max) {
                throw LocalError("a switch has at most " + std::to_string(ports_max) + " ports");
            }
            ports_.push_back(&port);
            attention_.reserve(ports_.size());
            dirty_.reserve(ports_.size());
        } else {
            *free = &port;
        }
        table_.expect(port.number);
        if (!port.uplink) {  // whose addresses are learned: there may be many stations behind it
            table_.pin(port.config.network, port.config.mac, port.number);
        }
        rebuild();
    }

    void remove(Port& port) {
        ports_[port.number] = nullptr;
        table_.forget(port.number);
        std::erase(attention_, &port);
        std::erase(dirty_, &port);
        rebuild();
    }

    /// Forwards what one queue of a port has sent, a bounded amount. PeerFault when its frontend broke the protocol.
    Turn serve(Port& port, BackQueue& queue) {
        now_s_ = now_ns() / 1'000'000'000;
        copied_ = 0;
        try {
            const Turn turn = serve_some(port, queue);
            publish(queue);
            return turn;
        } catch (const PeerFault&) {
            publish(queue);
            throw;
        }
    }

    /// Forwards what an uplink's device has, a bounded amount: its descriptor is ready again while there is more.
    void serve_uplink(Port& port) {
        now_s_ = now_ns() / 1'000'000'000;
        copied_ = 0;
        for (std::uint32_t count = 0; count < packets_per_turn && copied_ < bytes_per_turn; ++count) {
            const auto taken = port.uplink->take(frame_);
            if (taken == Uplink::Taken::dry) {
                break;
            }
            if (taken == Uplink::Taken::packet) {
                forward(port);
            } else {
                ++port.counters.malformed;
            }
        }
        publish_delivered();
    }

    /// Goes on with what waits for a port's buffers, which may have come. PeerFault likewise.
    Turn drain(Port& port) {
        Turn turn;
        for (const auto& queue : port.queues) {
            while (!queue->waiting.empty() && turn.end == Turn::End::done) {
                queue->waiting.front(waiting_);
                const auto put = queue->put(waiting_);
                if (put == BackQueue::Put::unmapped) {
                    turn = {Turn::End::unmapped, queue->missing(), 0};
                }
                if (put != BackQueue::Put::done) {
                    break;
                }
                count_sent(port, waiting_);
                queue->waiting.pop();
            }
            queue->publish_responses();
        }
        return turn;
    }

    /// The next port that its owner has to look after; nullptr: none.
    Port* take_attention() {
        if (attention_.empty()) {
            return nullptr;
        }
        Port* port = attention_.back();
        attention_.pop_back();
        port->wants_attention = false;
        return port;
    }

    bool needs_attention() const { return !attention_.empty(); }

private:
    Turn serve_some(Port& port, BackQueue& queue) {
        for (std::uint32_t count = 0; queue.refill(); ++count) {
            if (count == packets_per_turn || copied_ >= bytes_per_turn) {
                return {Turn::End::more, 0, 0};
            }
            if (port.bucket.limits()) {
                const std::int64_t now = now_ns();
                const std::int64_t ready = port.bucket.ready_at_ns(now);
                if (ready > now) {
                    ++port.counters.throttled;
                    return {Turn::End::throttled, 0, ready - now};
                }
            }
            GroupChange change{};
            switch (queue.take(frame_, change)) {
                case BackQueue::Taken::unmapped:
                    return {Turn::End::unmapped, queue.missing(), 0};
                case BackQueue::Taken::group:
                    port.change_group(change);
                    break;
                case BackQueue::Taken::packet:
                    forward(port);
                    break;
            }
            queue.answer();
        }
        return {};
    }

    // ---- which way -----------------------------------------------------------------------------------------------------------

    /// What is in `frame_`, from this port.
    void forward(Port& from) {
        ++from.counters.received;
        from.counters.received_bytes += frame_.size();
        from.bucket.use(frame_.size());
        copied_ += Frame::head_max;
        if (!from.link_up) {
            ++from.counters.link_down;
            return;
        }
        Headers packet = parse_ethernet(frame_.head());
        if (is_group(packet.source)) {
            ++from.counters.malformed;
            return;
        }
        std::uint16_t vlan = from.config.vlan;
        if (packet.tagged && !packet.malformed) {
            vlan = packet.vlan() == 0 ? vlan : packet.vlan();
            frame_.remove_tag();
            packet.network = ethernet_bytes;
        }
        if (packet.malformed || !from.is_member(vlan)) {
            ++(packet.malformed ? from.counters.malformed : from.counters.wrong_vlan);
            return;
        }
        parse_network(packet, frame_.head(), frame_.size());
        if (from.guard && !from.guard->lets(packet, frame_.head())) {
            ++from.counters.spoofed;
            return;
        }
        if (!is_as_it_says(packet)) {
            ++from.counters.malformed;
            return;
        }
        if (is_oversize(from, packet)) {
            ++from.counters.oversize;
            return;
        }
        const std::uint16_t tag = static_cast<std::uint16_t>((packet.tag & 0xf000) | vlan);
        if (packet.type == type_loopback && packet.destination == loopback_assistant) {
            deliver(from, packet, tag);
            return;
        }
        table_.learn(from.config.network, packet.source, vlan, from.number, now_s_);
        find_way(from, packet, tag);
    }

    void find_way(Port& from, const Headers& packet, std::uint16_t tag) {
        const std::uint16_t vlan = tag & 0x0fff;
        if (!is_group(packet.destination)) {
            const std::uint32_t number = table_.find(from.config.network, packet.destination, vlan, now_s_);
            if (number != ForwardingTable::none) {
                offer(from, *ports_[number], packet, tag);
                return;
            }
        }
        for (Port* to : members_[from.config.network]) {
            if (!is_group(packet.destination) || to->wants_group(packet.destination)) {
                offer(from, *to, packet, tag);
            }
        }
    }

    /// Whether what is to be checksummed, or cut up, can be.
    bool is_as_it_says(const Headers& packet) const {
        const Offload& offload = frame_.offload;
        if (offload.gso_type == gso_none) {
            return !offload.csum_blank || checksum_place(packet);
        }
        return offload.csum_blank && packet.version == (offload.gso_type == gso_tcpv4 ? 4 : 6) && payload_place(packet, frame_.head());
    }

    /// A packet that is to be cut up, which is as it says, may be as large as it likes; its segments may not.
    bool is_oversize(const Port& from, const Headers& packet) const {
        if (frame_.offload.gso_type == gso_none) {
            return frame_.size() > ethernet_bytes + from.config.mtu;
        }
        return *payload_place(packet, frame_.head()) - packet.network + frame_.offload.gso_size > from.config.mtu;
    }

    /// Delivers, if both may.
    void offer(Port& from, Port& to, const Headers& packet, std::uint16_t tag) {
        if (&to == &from || !to.is_member(tag & 0x0fff)) {
            return;
        }
        copied_ += Frame::head_max;
        const bool allowed = (from.rules == nullptr || from.rules->allows(packet, from.config.party, to.config.party)) &&
                             (to.rules == nullptr || to.rules == from.rules || to.rules->allows(packet, from.config.party, to.config.party));
        if (!allowed) {
            ++from.counters.refused;
            return;
        }
        if (!to.link_up) {
            ++to.counters.link_down;
            return;
        }
        deliver(to, packet, tag);
    }

    // ---- in which form -------------------------------------------------------------------------------------------------------

    void deliver(Port& to, const Headers& packet, std::uint16_t tag) {
        const Offload& offload = frame_.offload;
        const std::size_t flow = to.queues.size() == 1 ? 0 : flow_of(packet);
        const bool v6 = packet.version == 6;
        const bool cut = offload.gso_type != gso_none && !(v6 ? to.accepts.ipv6_segments : to.accepts.ipv4_segments);
        const bool sum = offload.csum_blank && !(v6 ? to.accepts.ipv6_checksum_blank : to.accepts.ipv4_checksum_blank);
        if (!cut && !sum) {
            give(to, frame_, tag, flow);
            return;
        }
        copied_ += frame_.size();
        if (!finisher_.finish(frame_, packet, cut, [&](Frame& finished) { give(to, finished, tag, flow); })) {
            ++to.counters.malformed;
        }
    }

    void give(Port& to, Frame& frame, std::uint16_t tag, std::size_t flow) {
        const bool tagged = to.gets_tagged(tag & 0x0fff);
        if (tagged) {
            frame.insert_tag(tag);
        }
        if (to.uplink) {
            give_uplink(to, frame);
        } else {
            give_as_is(to, frame, *to.queues[flow % to.queues.size()]);
        }
        if (tagged) {
            frame.remove_tag();
        }
    }

    void give_uplink(Port& to, const Frame& frame) {
        copied_ += frame.size();
        if (to.uplink->put(frame)) {
            count_sent(to, frame);
        } else {
            ++to.counters.link_down;
        }
    }

    void give_as_is(Port& to, const Frame& frame, BackQueue& queue) {
        if (!to.fault.empty()) {
            return;
        }
        if (frame.size() > packet_bytes_max || (!to.accepts.scattered && frame.size() > page_size)) {
            ++to.counters.malformed;
            return;
        }
        copied_ += frame.size();
        try {
            if (queue.waiting.empty() && queue.put(frame) == BackQueue::Put::done) {
                count_sent(to, frame);
                mark_dirty(to);
                return;
            }
        } catch (const PeerFault& fault) {
            to.fault = fault.what();
            note(to);
            return;
        }
        if (queue.waiting.empty()) {
            note(to);
        }
        if (!queue.waiting.push(frame)) {
            ++to.counters.no_buffers;
        }
    }

    static void count_sent(Port& to, const Frame& frame) {
        ++to.counters.sent;
        to.counters.sent_bytes += frame.size();
    }

    // ---- afterwards ----------------------------------------------------------------------------------------------------------

    void mark_dirty(Port& port) {
        if (!port.dirty) {
            port.dirty = true;
            dirty_.push_back(&port);
        }
    }

    void note(Port& port) {
        if (!port.wants_attention) {
            port.wants_attention = true;
            attention_.push_back(&port);
        }
    }

    /// Its own answers last: what is not answered is sent again, if we die. A ring that its frontend broke says nothing more.
    void publish(BackQueue& served) {
        publish_delivered();
        served.publish_answers();
    }

    void publish_delivered() {
        for (Port* port : dirty_) {
            port->dirty = false;
            for (const auto& queue : port->queues) {
                try {
                    queue->publish_responses();
                } catch (const PeerFault& fault) {
                    port->fault = fault.what();
                    note(*port);
                }
            }
        }
        dirty_.clear();
    }

    /// The ports of each network: whom packets for everybody are offered to.
    void rebuild() {
        members_.clear();
        for (Port* port : ports_) {
            if (port != nullptr) {
                members_.resize(std::max<std::size_t>(members_.size(), port->config.network + 1));
                members_[port->config.network].push_back(port);
            }
        }
    }

    /// Where a station may ask for its own frames (Ethernet's configuration testing protocol): they come back to whoever sent them.
    static constexpr Address loopback_assistant{0xcf, 0, 0, 0, 0, 0};

    std::vector<Port*> ports_;
    std::vector<std::vector<Port*>> members_;
    ForwardingTable table_;
    std::vector<Port*> attention_;
    std::vector<Port*> dirty_;
    Finisher finisher_;
    Frame frame_;
    Frame waiting_;
    std::int64_t now_s_ = 0;
    std::uint64_t copied_ = 0;
};

}  // namespace hvd::netif
