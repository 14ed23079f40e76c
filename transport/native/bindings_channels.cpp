// Python's view of doorbell.hpp and waiter.hpp: Endpoint and Waiter, which wait without the interpreter lock.
#include "bindings.hpp"
#include "doorbell.hpp"
#include "native_turn.hpp"
#include "waiter.hpp"

#include <memory>
#include <unordered_map>

namespace hvd {
namespace {

/// A doorbell and the Python memory its channel page lives in.
class BoundEndpoint : public Doorbell {
public:
    BoundEndpoint(nb::handle page, int side, int rx_fd, int tx_fd)
        : BoundEndpoint(std::make_unique<Buffer>(page, Buffer::Access::write), side, rx_fd, tx_fd) {}

    void release() {
        if (bound_to_waiter || busy) {
            throw LocalError(busy ? "another thread waits on this endpoint"
                                  : "the endpoint is bound to a waiter: remove its port first");
        }
        close();
        page_->release();
    }

private:
    BoundEndpoint(std::unique_ptr<Buffer> page, int side, int rx_fd, int tx_fd)
        : Doorbell(page->bytes().data(), page->bytes().size(), side, rx_fd, tx_fd), page_(std::move(page)) {}

    std::unique_ptr<Buffer> page_;
};

/// Blocks without the interpreter lock; a signal runs its Python handler, which may raise, and then the wait goes on.
template <class Block>
Wake block_interruptibly(bool& busy, Block&& block) {
    for (;;) {
        Wake wake;
        {
            const Busy guard(busy);
            const nb::gil_scoped_release unlocked;
            wake = block();
        }
        if (wake != Wake::interrupted) {
            return wake;
        }
        if (PyErr_CheckSignals() != 0) {
            throw nb::python_error();
        }
    }
}

bool endpoint_wait(BoundEndpoint& endpoint, std::int64_t timeout_ns, std::int64_t spin_ns) {
    if (endpoint.wait_briefly(spin_ns)) {
        return true;
    }
    const std::int64_t deadline_ns = deadline_after(timeout_ns);
    return block_interruptibly(endpoint.busy, [&] { return endpoint.wait(deadline_ns, spin_ns); }) == Wake::ready;
}

/// A waiter and references to what it waits on. The waiter is destroyed first and lets go of all of it.
struct BoundWaiter {
    explicit BoundWaiter(std::int64_t spin_limit_ns) : waiter(spin_limit_ns) {}

    std::unordered_map<std::int64_t, nb::object> endpoints;
    std::unordered_multimap<std::int64_t, nb::object> rings;
    std::unordered_map<std::int64_t, nb::object> consoles;
    struct Turn {
        nb::object owner;
        NativeTurn* turn;
        std::size_t part;
    };
    std::unordered_map<std::int64_t, Turn> turns;
    Waiter waiter;

    void add(std::int64_t port, nb::object endpoint) {
        waiter.add(port, nb::cast<BoundEndpoint&>(endpoint));
        endpoints.emplace(port, std::move(endpoint));
    }

    void remove(std::int64_t port) {
        waiter.remove(port);
        rings.erase(port);
        consoles.erase(port);
        turns.erase(port);
        endpoints.erase(port);
    }

    void attach_ring(std::int64_t port, nb::object ring) {
        waiter.attach_ring(port, nb::cast<Ring&>(ring));
        rings.emplace(port, std::move(ring));
    }

    void detach_ring(std::int64_t port, nb::handle ring) {
        if (ring.is_none()) {
            waiter.detach_rings(port);
            rings.erase(port);
            return;
        }
        waiter.detach_ring(port, nb::cast<Ring&>(ring));
        for (auto [at, end] = rings.equal_range(port); at != end; ++at) {
            if (at->second.is(ring)) {
                rings.erase(at);
                return;
            }
        }
    }

    void attach_console(std::int64_t port, nb::object console) {
        waiter.attach_console(port, nb::cast<ConsoleRing&>(console));
        consoles.emplace(port, std::move(console));
    }

    void detach_console(std::int64_t port) {
        waiter.detach_console(port);
        consoles.erase(port);
    }

    void unwatch_fd(std::int64_t token) {
        waiter.unwatch_fd(token);
        turns.erase(token);
    }

    void attach_turn(std::int64_t key, nb::object owner, std::size_t part) {
        NativeTurn* turn = &nb::cast<NativeTurn&>(owner);
        turns[key] = {std::move(owner), turn, part};
    }

    /// Whether everything that was ready is dealt with.
    bool take_turns() {
        return !turns.empty() && waiter.settle([this](std::int64_t key) {
            const auto found = turns.find(key);
            return found != turns.end() && found->second.turn->take(found->second.part);
        });
    }

    void close() {
        waiter.close();
        turns.clear();
        rings.clear();
        consoles.clear();
        endpoints.clear();
    }

    nb::object wait(std::int64_t timeout_ns, bool mask_delivered) {
        std::int64_t deadline_ns = 0;  // no clock is read for who need not wait
        for (;;) {
            if (!waiter.begin(mask_delivered, timeout_ns != 0)) {
                deadline_ns = deadline_ns == 0 ? deadline_after(timeout_ns) : deadline_ns;
                block_interruptibly(waiter.busy, [&] { return waiter.block(deadline_ns); });
            }
            if (mask_delivered || !take_turns() || timeout_ns == 0) {
                return ready();
            }
            deadline_ns = deadline_ns == 0 ? deadline_after(timeout_ns) : deadline_ns;
            if (now_ns() >= deadline_ns) {
                return ready();
            }
            if (PyErr_CheckSignals() != 0) {
                throw nb::python_error();
            }
        }
    }

    nb::object ready() const {
        const auto& keys = waiter.ready();
        nb::object tuple = nb::steal(PyTuple_New(static_cast<Py_ssize_t>(keys.size())));
        for (std::size_t i = 0; i < keys.size(); ++i) {
            PyTuple_SET_ITEM(tuple.ptr(), static_cast<Py_ssize_t>(i), PyLong_FromLongLong(keys[i]));
        }
        return tuple;
    }
};

}  // namespace

void bind_channels(nb::module_& m) {
    nb::class_<DoorbellStatistics>(m, "EndpointStatistics")
        .def_ro("notified", &DoorbellStatistics::notified)
        .def_ro("rung", &DoorbellStatistics::rung)
        .def_ro("taken", &DoorbellStatistics::taken)
        .def_ro("spins_hit", &DoorbellStatistics::spins_hit)
        .def_ro("spins_missed", &DoorbellStatistics::spins_missed)
        .def_ro("yields", &DoorbellStatistics::yields)
        .def_ro("crowded", &DoorbellStatistics::crowded)
        .def_ro("sleeps", &DoorbellStatistics::sleeps)
        .def_ro("lasted", &DoorbellStatistics::lasted)
        .def_ro("wakeups", &DoorbellStatistics::wakeups);
    nb::class_<WaiterStatistics>(m, "WaiterStatistics")
        .def_ro("waits", &WaiterStatistics::waits)
        .def_ro("spins_hit", &WaiterStatistics::spins_hit)
        .def_ro("spins_missed", &WaiterStatistics::spins_missed)
        .def_ro("yields", &WaiterStatistics::yields)
        .def_ro("crowded", &WaiterStatistics::crowded)
        .def_ro("sleeps", &WaiterStatistics::sleeps)
        .def_ro("wakeups", &WaiterStatistics::wakeups)
        .def_ro("idle_wakeups", &WaiterStatistics::idle_wakeups)
        .def_ro("delivered", &WaiterStatistics::delivered)
        .def_ro("found", &WaiterStatistics::found);
    nb::class_<Doorbell>(m, "_DoorbellWords");
    nb::class_<BoundEndpoint, Doorbell>(m, "Endpoint")
        .def(nb::init<nb::handle, int, int, int>(), nb::arg("page"), nb::arg("side"), nb::arg("rx_fd"), nb::arg("tx_fd"))
        .def("notify", &BoundEndpoint::notify)
        .def("kick", &BoundEndpoint::kick)
        .def("take", &BoundEndpoint::take)
        .def("arm", &BoundEndpoint::arm)
        .def("wait", &endpoint_wait, nb::arg("timeout_ns"), nb::arg("spin_ns") = -1)
        .def("mark_closed", &BoundEndpoint::mark_closed)
        .def("mark_open", &BoundEndpoint::mark_open)
        .def("close", &BoundEndpoint::release)
        .def("statistics", &BoundEndpoint::statistics)
        .def_prop_ro("peer_closed", &BoundEndpoint::peer_closed)
        .def_prop_ro("peer_asleep", &BoundEndpoint::peer_asleep)
        .def_prop_ro("untaken", &BoundEndpoint::untaken);
    nb::class_<NativeTurn>(m, "NativeTurn");
    nb::class_<BoundWaiter>(m, "Waiter")
        .def(nb::init<std::int64_t>(), nb::arg("spin_limit_ns") = spin_limit_default_ns)
        .def("add", &BoundWaiter::add, nb::arg("port"), nb::arg("endpoint"))
        .def("remove", &BoundWaiter::remove, nb::arg("port"))
        .def("attach_ring", &BoundWaiter::attach_ring, nb::arg("port"), nb::arg("ring"))
        .def("detach_ring", &BoundWaiter::detach_ring, nb::arg("port"), nb::arg("ring") = nb::none())
        .def("attach_console", &BoundWaiter::attach_console, nb::arg("port"), nb::arg("console"))
        .def("detach_console", &BoundWaiter::detach_console, nb::arg("port"))
        .def("mask", [](BoundWaiter& self, std::int64_t port) { return self.waiter.mask(port); }, nb::arg("port"))
        .def("unmask", [](BoundWaiter& self, std::int64_t port) { self.waiter.unmask(port); }, nb::arg("port"))
        .def("watch_fd", [](BoundWaiter& self, std::int64_t token, int fd) { self.waiter.watch_fd(token, fd); },
             nb::arg("token"), nb::arg("fd"))
        .def("unwatch_fd", &BoundWaiter::unwatch_fd, nb::arg("token"))
        .def("attach_turn", &BoundWaiter::attach_turn, nb::arg("key"), nb::arg("turn"), nb::arg("part") = 0)
        .def("detach_turn", [](BoundWaiter& self, std::int64_t key) { self.turns.erase(key); }, nb::arg("key"))
        .def("wait", &BoundWaiter::wait, nb::arg("timeout_ns"), nb::arg("mask_delivered") = false)
        .def_prop_rw("spin_ns", [](const BoundWaiter& self) { return self.waiter.spin_ns; },
                     [](BoundWaiter& self, std::int64_t spin_ns) { self.waiter.spin_ns = spin_ns; })
        .def("close", &BoundWaiter::close)
        .def("statistics", [](const BoundWaiter& self) { return self.waiter.statistics(); });
}

}  // namespace hvd
