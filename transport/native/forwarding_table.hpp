// Which port a MAC address is behind: that of each vif, and those that were learned from what vifs sent.
//
// A learned address is forgotten after five minutes of silence, moves with whoever uses it, and may push an older one out of its set:
// whoever invents addresses costs himself a bounded share of the table, and others a packet that is flooded. The address of a vif is
// never learned for another.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "netif.hpp"

namespace hvd::netif {

class ForwardingTable {
public:
    static constexpr std::uint32_t none = ~std::uint32_t{0};
    static constexpr std::uint32_t learned_per_port_max = 64;
    static constexpr std::int64_t age_max_s = 300;

    /// The addresses of one network and VLAN are apart from all others.
    static std::uint64_t key(const Address& address, std::uint16_t vlan) {
        std::uint64_t value = vlan;
        for (const std::uint8_t byte : address) {
            value = value << 8 | byte;
        }
        return value;
    }

    void pin(std::uint32_t network, const Address& address, std::uint32_t port) { pinned_[{network, key(address, 0)}] = port; }

    void forget(std::uint32_t port) {
        std::erase_if(pinned_, [port](const auto& entry) { return entry.second == port; });
        for (Entry& entry : entries_) {
            if (entry.port == port) {
                entry = Entry{};
            }
        }
        if (port < learned_.size()) {
            learned_[port] = 0;
        }
    }

    /// A port number that may learn from now on.
    void expect(std::uint32_t port) {
        while (port >= learned_.size()) {
            learned_.push_back(0);
        }
    }

    std::uint32_t find(std::uint32_t network, const Address& address, std::uint16_t vlan, std::int64_t now_s) const {
        const auto pinned = pinned_.find({network, key(address, 0)});
        if (pinned != pinned_.end()) {
            return pinned->second;
        }
        const std::uint64_t wanted = key(address, vlan);
        const std::size_t set = set_of(network, wanted);
        for (std::size_t way = 0; way < ways; ++way) {
            const Entry& entry = entries_[set + way];
            if (entry.port != none && entry.key == wanted && entry.network == network) {
                return now_s - entry.seen_s <= age_max_s ? entry.port : none;
            }
        }
        return none;
    }

    void learn(std::uint32_t network, const Address& address, std::uint16_t vlan, std::uint32_t port, std::int64_t now_s) {
        if (pinned_.contains({network, key(address, 0)})) {
            return;
        }
        const std::uint64_t wanted = key(address, vlan);
        const std::size_t set = set_of(network, wanted);
        Entry* place = &entries_[set];
        for (std::size_t way = 0; way < ways; ++way) {
            Entry& entry = entries_[set + way];
            if (entry.port != none && entry.key == wanted && entry.network == network) {
                place = &entry;
                break;
            }
            if (older(entry, *place)) {
                place = &entry;
            }
        }
        take(*place, Entry{wanted, network, port, now_s});
    }

private:
    static constexpr std::size_t sets = 512;
    static constexpr std::size_t ways = 8;

    struct Entry {
        std::uint64_t key = 0;
        std::uint32_t network = 0;
        std::uint32_t port = none;
        std::int64_t seen_s = 0;
    };

    struct Named {
        std::uint32_t network;
        std::uint64_t key;
        bool operator==(const Named&) const = default;
    };
    struct Hash {
        std::size_t operator()(const Named& named) const { return mix(named.network, named.key); }
    };

    static std::uint64_t mix(std::uint32_t network, std::uint64_t key) {
        std::uint64_t value = (key ^ std::uint64_t{network} << 40) * 0x9e3779b97f4a7c15ULL;
        value ^= value >> 32;
        return value * 0xd6e8feb86659fd93ULL >> 16;
    }

    static std::size_t set_of(std::uint32_t network, std::uint64_t key) { return static_cast<std::size_t>(mix(network, key)) % sets * ways; }

    static bool older(const Entry& a, const Entry& b) {
        return b.port != none && (a.port == none || a.seen_s < b.seen_s);
    }

    void take(Entry& place, const Entry& now) {
        if (place.port != now.port || place.key != now.key || place.network != now.network) {
            if (learned_[now.port] >= learned_per_port_max && place.port != now.port) {
                expire(now.seen_s);
                if (learned_[now.port] >= learned_per_port_max) {
                    return;
                }
            }
            learned_[now.port] += 1;
            if (place.port != none) {
                learned_[place.port] -= 1;
            }
        }
        place = now;
    }

    /// Those that have been silent for too long count for nobody. They are looked for once a second at most.
    void expire(std::int64_t now_s) {
        if (now_s == expired_s_) {
            return;
        }
        expired_s_ = now_s;
        for (Entry& entry : entries_) {
            if (entry.port != none && now_s - entry.seen_s > age_max_s) {
                learned_[entry.port] -= 1;
                entry = Entry{};
            }
        }
    }

    std::unordered_map<Named, std::uint32_t, Hash> pinned_;
    std::array<Entry, sets * ways> entries_{};
    std::vector<std::uint32_t> learned_;  // by port: how many
    std::int64_t expired_s_ = -1;
};

}  // namespace hvd::netif
