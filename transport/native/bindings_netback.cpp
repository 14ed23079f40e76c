// Python's view of net_switch.hpp: NetSwitch, its NetPorts and NetUplinks, and the NetRules that they obey.
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bindings.hpp"
#include "native_turn.hpp"
#include "net_switch.hpp"

namespace hvd {
namespace {

using netif::Turn;

netif::Address address_of(nb::bytes mac) {
    netif::Address address;
    if (mac.size() != address.size()) {
        throw LocalError("a MAC address has 6 bytes");
    }
    std::memcpy(address.data(), mac.c_str(), address.size());
    return address;
}

std::vector<netif::Guard::Own> own_of(nb::list addresses) {
    std::vector<netif::Guard::Own> own;
    for (nb::handle item : addresses) {
        const auto bytes = nb::cast<nb::bytes>(item);
        if (bytes.size() != 4 && bytes.size() != 16) {
            throw LocalError("an IP address has 4 or 16 bytes");
        }
        netif::Guard::Own one{static_cast<std::uint8_t>(bytes.size() == 4 ? 4 : 6), {}};
        std::memcpy(one.address.data(), bytes.c_str(), bytes.size());
        own.push_back(one);
    }
    return own;
}

class NetRules {
public:
    NetRules(nb::bytes packed, bool allow_by_default)
        : table({reinterpret_cast<const std::byte*>(packed.c_str()), packed.size()}, allow_by_default) {}

    netif::RuleTable table;
};

/// A port in its switch, from its making to `close`; it keeps what its queues work on.
class NetPort : public NativeTurn {
public:
    NetPort(nb::object owner, nb::list ends, std::uint32_t network, std::uint16_t party, nb::bytes mac, std::uint32_t mtu, std::uint16_t vlan,
            const std::vector<std::uint16_t>& trunk, std::uint64_t rate_bytes, std::uint64_t rate_interval_us, bool guarded, nb::list addresses,
            nb::object rules, const std::vector<bool>& accepts)
        : owner_(std::move(owner)), rules_(std::move(rules)), ends_(ends) {
        if (accepts.size() != 6 || ends.size() == 0 || ends.size() > netif::Port::queues_max) {
            throw LocalError("a port has 1 to 4 queues, and six things that it accepts or not");
        }
        const netif::PortConfig config{network, party,      address_of(mac),  mtu,     vlan,
                                       trunk,   rate_bytes, rate_interval_us, guarded, own_of(addresses)};
        const netif::RuleTable* table = rules_.is_none() ? nullptr : &nb::cast<NetRules&>(rules_).table;
        port_ = std::make_unique<netif::Port>(config, table, netif::Accepts{accepts[0], accepts[1], accepts[2], accepts[3], accepts[4], accepts[5]});
        for (nb::handle item : ends) {
            const auto end = nb::cast<nb::tuple>(item);
            port_->add_queue(nb::cast<Ring&>(end[0]), nb::cast<Ring&>(end[1]), nb::cast<Doorbell&>(end[2]), nb::cast<Doorbell&>(end[3]), ends.size());
        }
        of().add(*port_);
    }

    ~NetPort() { close(); }
    NetPort(const NetPort&) = delete;
    NetPort& operator=(const NetPort&) = delete;

    void close() {
        if (port_) {
            of().remove(*port_);
            port_.reset();
            buffers_.clear();
            ends_ = nb::list();
        }
    }

    void add(std::uint32_t ref, nb::handle memory, bool writable) {
        auto buffer = std::make_unique<Buffer>(memory, writable ? Buffer::Access::write : Buffer::Access::read);
        port().grants.add(ref, buffer->bytes(), writable);
        buffers_[ref] = std::move(buffer);
    }

    Turn serve(std::size_t queue) {
        if (!broken_.empty()) {
            throw PeerFault(std::exchange(broken_, {}));
        }
        return of().serve(port(), *port().queues.at(queue));
    }

    /// As a waiter's turn: `serve` of a queue that nothing waits for, if nobody is to be looked after behind it.
    bool take(std::size_t queue) noexcept override {
        try {
            return !waits(queue) && serve(queue).end == Turn::End::done && !of().needs_attention();
        } catch (const PeerFault& fault) {
            broken_ = fault.what();
        } catch (const LocalError&) {  // it is closed
        }
        return false;
    }

    Turn drain() { return of().drain(port()); }
    bool waits(std::size_t queue) { return !port().queues.at(queue)->waiting.empty(); }

    netif::Port& port() {
        if (!port_) {
            throw LocalError("the port is closed");
        }
        return *port_;
    }

private:
    netif::Switch& of() { return nb::cast<netif::Switch&>(owner_); }

    nb::object owner_;
    nb::object rules_;
    nb::list ends_;
    std::map<std::uint32_t, std::unique_ptr<Buffer>> buffers_;
    std::unique_ptr<netif::Port> port_;
    std::string broken_;  // by its frontend, in a turn of which nobody could be told
};

/// An uplink's port in its switch, from its making to `close`.
class NetUplink {
public:
    NetUplink(nb::object owner, int fd, std::uint32_t network, std::uint16_t party, std::uint32_t mtu, nb::object rules)
        : owner_(std::move(owner)), rules_(std::move(rules)) {
        netif::PortConfig config;
        config.network = network;
        config.party = party;
        config.mtu = mtu;
        const netif::RuleTable* table = rules_.is_none() ? nullptr : &nb::cast<NetRules&>(rules_).table;
        port_ = std::make_unique<netif::Port>(config, table, netif::Accepts{true, true, true, true, true, false});
        port_->uplink = std::make_unique<netif::Uplink>(fd);
        of().add(*port_);
    }

    ~NetUplink() { close(); }
    NetUplink(const NetUplink&) = delete;
    NetUplink& operator=(const NetUplink&) = delete;

    void close() {
        if (port_) {
            of().remove(*port_);
            port_.reset();
        }
    }

    void serve() { of().serve_uplink(port()); }

    netif::Port& port() {
        if (!port_) {
            throw LocalError("the uplink is closed");
        }
        return *port_;
    }

private:
    netif::Switch& of() { return nb::cast<netif::Switch&>(owner_); }

    nb::object owner_;
    nb::object rules_;
    std::unique_ptr<netif::Port> port_;
};

template <class Owner>
nb::dict counters_of(Owner& self) {
    const netif::PortCounters& c = self.port().counters;
    nb::dict all;
    all["received"] = c.received;
    all["received_bytes"] = c.received_bytes;
    all["sent"] = c.sent;
    all["sent_bytes"] = c.sent_bytes;
    all["spoofed"] = c.spoofed;
    all["oversize"] = c.oversize;
    all["wrong_vlan"] = c.wrong_vlan;
    all["refused"] = c.refused;
    all["malformed"] = c.malformed;
    all["link_down"] = c.link_down;
    all["no_buffers"] = c.no_buffers;
    all["throttled"] = c.throttled;
    return all;
}

}  // namespace

void bind_netback(nb::module_& m) {
    nb::enum_<Turn::End>(m, "NetEnd")
        .value("DONE", Turn::End::done)
        .value("MORE", Turn::End::more)
        .value("UNMAPPED", Turn::End::unmapped)
        .value("THROTTLED", Turn::End::throttled);
    nb::class_<Turn>(m, "NetTurn").def_ro("end", &Turn::end).def_ro("missing", &Turn::missing).def_ro("ready_in_ns", &Turn::ready_in_ns);
    nb::class_<NetRules>(m, "NetRules", nb::is_final())
        .def(nb::init<nb::bytes, bool>(), nb::arg("packed"), nb::arg("allow_by_default"));
    nb::class_<netif::Switch>(m, "NetSwitch", nb::is_final())
        .def(nb::init<>())
        .def("take_attention", [](netif::Switch& self) {
            const netif::Port* port = self.take_attention();
            return port == nullptr ? nb::none() : nb::cast(port->number);
        });
    nb::class_<NetPort, NativeTurn>(m, "NetPort", nb::is_final())
        .def(nb::init<nb::object, nb::list, std::uint32_t, std::uint16_t, nb::bytes, std::uint32_t, std::uint16_t, std::vector<std::uint16_t>,
                      std::uint64_t, std::uint64_t, bool, nb::list, nb::object, std::vector<bool>>(),
             nb::kw_only(), nb::arg("switch"), nb::arg("ends"), nb::arg("network"), nb::arg("party"), nb::arg("mac"), nb::arg("mtu"), nb::arg("vlan"),
             nb::arg("trunk"), nb::arg("rate_bytes"), nb::arg("rate_interval_us"), nb::arg("guarded"), nb::arg("addresses"),
             nb::arg("rules").none(), nb::arg("accepts"))
        .def("add", &NetPort::add, nb::arg("ref"), nb::arg("memory"), nb::arg("writable"))
        .def("serve", &NetPort::serve, nb::arg("queue"))
        .def("drain", &NetPort::drain)
        .def("waits", &NetPort::waits, nb::arg("queue"))
        .def("close", &NetPort::close)
        .def("counters", &counters_of<NetPort>)
        .def("set_rate", [](NetPort& self, std::uint64_t bytes, std::uint64_t interval_us) { self.port().set_rate(bytes, interval_us); },
             nb::arg("bytes"), nb::arg("interval_us"))
        .def_prop_rw("credit",
                     [](NetPort& self) {
                         const auto credit = self.port().bucket.credit();
                         return nb::make_tuple(credit.bytes, credit.since_ns);
                     },
                     [](NetPort& self, nb::tuple credit) {
                         self.port().bucket.go_on_with({nb::cast<double>(credit[0]), nb::cast<std::int64_t>(credit[1])});
                     })
        .def_prop_ro("number", [](NetPort& self) { return self.port().number; })
        .def_prop_ro("fault", [](NetPort& self) { return self.port().fault; })
        .def_prop_rw("link_up", [](NetPort& self) { return self.port().link_up; }, [](NetPort& self, bool up) { self.port().link_up = up; });
    nb::class_<NetUplink>(m, "NetUplink", nb::is_final())
        .def(nb::init<nb::object, int, std::uint32_t, std::uint16_t, std::uint32_t, nb::object>(), nb::kw_only(), nb::arg("switch"), nb::arg("fd"),
             nb::arg("network"), nb::arg("party"), nb::arg("mtu"), nb::arg("rules").none())
        .def("serve", &NetUplink::serve)
        .def("counters", &counters_of<NetUplink>)
        .def("close", &NetUplink::close);
}

}  // namespace hvd
