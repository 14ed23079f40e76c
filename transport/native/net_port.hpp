// A vif, or an uplink, as the switch has it: its queues, its place in the network, what it may send and what it takes.
#pragma once

#include <algorithm>
#include <array>
#include <bitset>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "netback.hpp"
#include "packet_filter.hpp"
#include "token_bucket.hpp"
#include "uplink.hpp"

namespace hvd::netif {

/// What a frontend can be given, from its keys.
struct Accepts {
    bool scattered = false;  ///< packets of more than one part
    bool ipv4_checksum_blank = false;
    bool ipv6_checksum_blank = false;
    bool ipv4_segments = false;
    bool ipv6_segments = false;
    bool chosen_groups = false;  ///< only the multicast groups that it has joined
};

/// How often what became of packets that a vif sent, and of those for it.
struct PortCounters {
    std::uint64_t received = 0;        ///< packets from its frontend
    std::uint64_t received_bytes = 0;
    std::uint64_t sent = 0;            ///< packets to its frontend
    std::uint64_t sent_bytes = 0;
    std::uint64_t spoofed = 0;         ///< from it, and not as its guard has them
    std::uint64_t oversize = 0;        ///< from it, larger than its network's MTU
    std::uint64_t wrong_vlan = 0;      ///< from it, of a VLAN that it is not in
    std::uint64_t refused = 0;         ///< from it, to somebody whom a rule keeps them from
    std::uint64_t malformed = 0;       ///< from it: multicast senders, and what cannot be checksummed or cut up
    std::uint64_t link_down = 0;       ///< from or for it
    std::uint64_t no_buffers = 0;      ///< for it, when its queue was full
    std::uint64_t throttled = 0;       ///< times that it had to wait for its rate
};

struct PortConfig {
    std::uint32_t network = 0;
    std::uint16_t party = 0;  ///< whose it is, in rules
    Address mac{};
    std::uint32_t mtu = 1500;
    std::uint16_t vlan = 0;   ///< of frames without a tag
    std::vector<std::uint16_t> trunk;
    std::uint64_t rate_bytes = 0;
    std::uint64_t rate_interval_us = 0;
    bool guarded = false;
    std::vector<Guard::Own> addresses;
};

class Port {
public:
    static constexpr std::size_t queues_max = 4;
    static constexpr std::size_t groups_max = 64;  // XEN_NETBK_MCAST_MAX

    Port(const PortConfig& config, const RuleTable* rules, const Accepts& accepts)
        : config(config), rules(rules), accepts(accepts), bucket(config.rate_bytes, std::max<std::uint64_t>(config.rate_interval_us, 1)) {
        if (config.guarded) {
            guard.emplace(config.mac, config.addresses);
        }
        for (const std::uint16_t vlan : config.trunk) {
            trunk_[vlan % trunk_.size()] = true;
        }
        groups_.reserve(groups_max);
    }

    /// One of so many, which share what one vif may have waiting.
    void add_queue(Ring& tx, Ring& rx, Doorbell& tx_bell, Doorbell& rx_bell, std::size_t of = 1) {
        queues.push_back(std::make_unique<BackQueue>(tx, rx, tx_bell, rx_bell, grants, FrameQueue::queue_bytes_max / of));
    }

    /// Another rate, from now on; whatever waits is asked again by its owner.
    void set_rate(std::uint64_t bytes, std::uint64_t interval_us) {
        config.rate_bytes = bytes;
        config.rate_interval_us = interval_us;
        bucket = TokenBucket(bytes, std::max<std::uint64_t>(interval_us, 1));
    }

    bool is_member(std::uint16_t vlan) const { return vlan == config.vlan || trunk_[vlan % trunk_.size()]; }
    bool gets_tagged(std::uint16_t vlan) const { return vlan != config.vlan; }

    void change_group(const GroupChange& change) {
        const auto found = std::find(groups_.begin(), groups_.end(), change.group);
        if (!change.joins && found != groups_.end()) {
            groups_.erase(found);
        } else if (change.joins && found == groups_.end() && groups_.size() < groups_max) {
            groups_.push_back(change.group);
        }
    }

    /// Broadcast goes to everybody.
    bool wants_group(const Address& group) const {
        constexpr Address broadcast{0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
        return !accepts.chosen_groups || group == broadcast || std::find(groups_.begin(), groups_.end(), group) != groups_.end();
    }

    PortConfig config;
    const RuleTable* rules;  ///< nullptr: everything may pass, as far as this vif is concerned
    Accepts accepts;
    TokenBucket bucket;
    std::optional<Guard> guard;
    GrantMap grants;
    std::vector<std::unique_ptr<BackQueue>> queues;
    std::unique_ptr<Uplink> uplink;  ///< in place of queues
    PortCounters counters;
    std::uint32_t number = 0;
    bool link_up = true;

    // What its owner is to be told when the switch is done, once.
    bool dirty = false;         ///< responses are to be published
    std::string fault;          ///< the frontend broke the protocol while others sent to it
    bool wants_attention = false;

private:
    std::bitset<4096> trunk_;
    std::vector<Address> groups_;
};

}  // namespace hvd::netif
