// Which packets may pass: rules in order, the first that fits decides, else a default; and what a guarded vif may say of itself.
//
// The table comes from Python, compiled (domains/net/policy.py). A rule is a fixed-size record, so that its work is bounded by their
// number, whatever a packet holds.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "faults.hpp"
#include "headers.hpp"

namespace hvd::netif {

/// One rule as Python packs it, little-endian. What is 0 (a whole range, of ports) fits everything.
struct Rule {
    std::uint8_t allow;
    std::uint8_t version;         // of IP
    std::uint8_t has_protocol;
    std::uint8_t protocol;
    std::uint16_t type;           // EtherType
    std::uint16_t from_party;
    std::uint16_t to_party;
    std::uint16_t source_port_first;
    std::uint16_t source_port_last;
    std::uint16_t destination_port_first;
    std::uint16_t destination_port_last;
    std::uint8_t has_source;      // a MAC address
    std::uint8_t has_destination;
    Address source;
    Address destination;
    std::uint8_t from_bits;       // of the prefix
    std::uint8_t to_bits;
    IpAddress from;
    IpAddress to;
};
static_assert(sizeof(Rule) == 66 && alignof(Rule) == 2);

class RuleTable {
public:
    static constexpr std::size_t rules_max = 256;

    RuleTable(std::span<const std::byte> packed, bool allow_by_default) : rules_(packed.size() / sizeof(Rule)), allow_by_default_(allow_by_default) {
        if (packed.size() % sizeof(Rule) != 0 || rules_.size() > rules_max) {
            throw LocalError("a table has at most " + std::to_string(rules_max) + " rules of " + std::to_string(sizeof(Rule)) + " bytes, not " +
                             std::to_string(packed.size()) + " bytes");
        }
        if (!packed.empty()) {
            std::memcpy(rules_.data(), packed.data(), packed.size());
        }
    }

    /// Whether a packet from one party may reach another.
    bool allows(const Headers& packet, std::uint16_t from, std::uint16_t to) const {
        if (packet.malformed) {
            return false;
        }
        for (const Rule& rule : rules_) {
            if (fits(rule, packet, from, to)) {
                return rule.allow != 0;
            }
        }
        return allow_by_default_;
    }

private:
    static bool fits(const Rule& rule, const Headers& packet, std::uint16_t from, std::uint16_t to) {
        return (rule.from_party == 0 || rule.from_party == from) && (rule.to_party == 0 || rule.to_party == to) &&
               (rule.type == 0 || rule.type == packet.type) && (rule.version == 0 || rule.version == packet.version) &&
               (rule.has_protocol == 0 || (packet.version != 0 && rule.protocol == packet.protocol)) &&
               fits_ports(rule, packet) && (rule.has_source == 0 || rule.source == packet.source) &&
               (rule.has_destination == 0 || rule.destination == packet.destination) && fits_prefix(rule.from, rule.from_bits, packet.from) &&
               fits_prefix(rule.to, rule.to_bits, packet.to);
    }

    static bool fits_ports(const Rule& rule, const Headers& packet) {
        if (rule.source_port_last == 0 && rule.destination_port_last == 0) {
            return true;
        }
        return packet.has_ports && fits_range(packet.source_port, rule.source_port_first, rule.source_port_last) &&
               fits_range(packet.destination_port, rule.destination_port_first, rule.destination_port_last);
    }

    static bool fits_range(std::uint16_t port, std::uint16_t first, std::uint16_t last) {
        return last == 0 || (port >= first && port <= last);
    }

    /// Python gives a rule with a prefix its version.
    static bool fits_prefix(const IpAddress& prefix, std::uint8_t bits, const IpAddress& address) {
        const std::size_t whole = std::min<std::size_t>(bits / 8U, prefix.size());
        if (std::memcmp(prefix.data(), address.data(), whole) != 0) {
            return false;
        }
        const unsigned rest = bits % 8U;
        return rest == 0 || whole == prefix.size() || ((prefix[whole] ^ address[whole]) >> (8U - rest)) == 0;
    }

    std::vector<Rule> rules_;
    bool allow_by_default_;
};

/// What a vif's frames may claim to come from: its own MAC address, and, if it has any, its own IP addresses.
class Guard {
public:
    static constexpr std::size_t addresses_max = 16;

    struct Own {
        std::uint8_t version;
        IpAddress address;
    };

    Guard(const Address& mac, std::vector<Own> addresses) : mac_(mac), addresses_(std::move(addresses)) {
        if (addresses_.size() > addresses_max) {
            throw LocalError("a vif has at most " + std::to_string(addresses_max) + " addresses");
        }
        link_local_ = {0xfe, 0x80, 0, 0, 0, 0, 0, 0, static_cast<std::uint8_t>(mac[0] ^ 2), mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]};
    }

    bool lets(const Headers& packet, std::span<const std::byte> head) const {
        if (packet.source != mac_ || packet.malformed) {
            return false;
        }
        if (packet.type == type_arp) {
            return lets_arp(head);
        }
        if (packet.version == 4) {
            return may_use(4, packet.from) || is_dhcp_request(packet);
        }
        return packet.version != 6 || lets_ipv6(packet, head);
    }

private:
    static constexpr std::uint8_t router_solicitation = 133, router_advertisement = 134, neighbour_solicitation = 135, neighbour_advertisement = 136,
                                  redirect = 137, multicast_report = 143;

    bool may_use(std::uint8_t version, const IpAddress& address) const {
        return addresses_.empty() || (version == 6 && address == link_local_) || std::any_of(addresses_.begin(), addresses_.end(), [&](const Own& own) {
                   return own.version == version && own.address == address;
               });
    }

    static bool is_dhcp_request(const Headers& packet) {
        return packet.from == IpAddress{} && packet.protocol == protocol_udp && packet.source_port == 68 && packet.destination_port == 67;
    }

    /// IPv4 over Ethernet, of our own hardware address; a probe's sender has no protocol address yet.
    bool lets_arp(std::span<const std::byte> head) const {
        constexpr std::size_t at = ethernet_bytes;
        if (head.size() < at + 28 || word_at(head, at) != 1 || word_at(head, at + 2) != type_ipv4 || word_at(head, at + 4) != 0x0604) {
            return false;
        }
        IpAddress sender{};
        std::memcpy(sender.data(), &head[at + 14], 4);
        return std::memcmp(&head[at + 8], mac_.data(), mac_.size()) == 0 && (sender == IpAddress{} || may_use(4, sender));
    }

    bool lets_ipv6(const Headers& packet, std::span<const std::byte> head) const {
        const bool unspecified = packet.from == IpAddress{};
        if (packet.protocol != protocol_icmpv6 || packet.later_fragment) {
            return !unspecified && may_use(6, packet.from);
        }
        if (packet.transport + 4 > std::min(head.size(), packet.network + packet.network_bytes)) {
            return false;
        }
        const auto kind = static_cast<std::uint8_t>(head[packet.transport]);
        if (kind == router_advertisement || kind == redirect) {
            return false;
        }
        const bool may_be_unspecified = kind == neighbour_solicitation || kind == router_solicitation || kind == multicast_report;
        if (unspecified ? !may_be_unspecified : !may_use(6, packet.from)) {
            return false;
        }
        const bool discovers = kind == neighbour_solicitation || kind == neighbour_advertisement || kind == router_solicitation;
        return !discovers || (!packet.fragment && lets_discovery(packet, head, kind));
    }

    /// An advertisement is of our own address; whatever names a link-layer address of the sender's names ours.
    bool lets_discovery(const Headers& packet, std::span<const std::byte> head, std::uint8_t kind) const {
        const std::size_t end = packet.network + packet.network_bytes;
        std::size_t at = packet.transport + (kind == router_solicitation ? 8 : 24);
        if (end > head.size() || at > end) {
            return false;
        }
        if (kind == neighbour_advertisement) {
            IpAddress target;
            std::memcpy(target.data(), &head[packet.transport + 8], target.size());
            if (!may_use(6, target)) {
                return false;
            }
        }
        while (at + 2 <= end) {
            const std::size_t bytes = static_cast<std::size_t>(head[at + 1]) * 8;
            if (bytes == 0 || at + bytes > end) {
                return false;
            }
            const auto option = static_cast<unsigned>(head[at]);  // 1: the source's link-layer address, 2: the target's
            if ((option == 1 || option == 2) && std::memcmp(&head[at + 2], mac_.data(), mac_.size()) != 0) {
                return false;
            }
            at += bytes;
        }
        return at == end;
    }

    Address mac_;
    std::vector<Own> addresses_;
    IpAddress link_local_;
};

}  // namespace hvd::netif
