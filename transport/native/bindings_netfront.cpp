// Python's view of netfront.hpp and net_tap.hpp: NetFront, TapPump.
#include <nanobind/stl/vector.h>

#include <memory>
#include <vector>

#include "bindings.hpp"
#include "native_turn.hpp"
#include "net_tap.hpp"
#include "netfront.hpp"
#include "packet_flow.hpp"

namespace hvd {
namespace {

/// Every queue of a frontend, and what each works on.
class NetFront {
public:
    NetFront(nb::list memories, const std::vector<std::uint32_t>& first_refs) {
        if (memories.size() == 0 || memories.size() != first_refs.size()) {
            throw LocalError("a network frontend has a memory and a first ref for each of its queues");
        }
        for (std::size_t index = 0; index < first_refs.size(); ++index) {
            memories_.push_back(std::make_unique<Buffer>(memories[index], Buffer::Access::write));
            queues_.push_back(std::make_unique<netif::FrontQueue>(memories_.back()->bytes(), first_refs[index]));
        }
    }
    NetFront(const NetFront&) = delete;
    NetFront& operator=(const NetFront&) = delete;

    void attach(nb::list ends) {
        if (ends.size() != queues_.size()) {
            throw LocalError("a network frontend attaches all of its queues at once");
        }
        ends_ = ends;
        for (std::size_t index = 0; index < queues_.size(); ++index) {
            const nb::tuple end = nb::cast<nb::tuple>(ends[index]);
            queues_[index]->attach(nb::cast<Ring&>(end[0]), nb::cast<Ring&>(end[1]), nb::cast<Doorbell&>(end[2]), nb::cast<Doorbell&>(end[3]));
        }
    }

    void detach() {
        for (const auto& queue : queues_) {
            queue->detach();
        }
        ends_ = nb::list();
    }

    bool attached() const { return queues_.front()->attached(); }

    void collect() {
        for (const auto& queue : queues_) {
            queue->collect();
        }
    }

    bool send(nb::handle packet) {
        const Buffer bytes(packet, Buffer::Access::read);
        netif::FrontQueue& queue = queue_of(bytes.bytes());
        const bool sent = send_one(queue, bytes.bytes());
        queue.publish();
        return sent;
    }

    /// From index `first` on, as many as there is room for, in order; how many that were.
    std::size_t send_many(nb::sequence packets, std::size_t first) {
        std::size_t sent = 0;
        for (const std::size_t length = nb::len(packets); first + sent < length; ++sent) {
            const Buffer bytes(packets[first + sent], Buffer::Access::read);
            if (!send_one(queue_of(bytes.bytes()), bytes.bytes())) {
                break;
            }
        }
        publish();
        return sent;
    }

    /// The same of packets of one size that lie in one buffer.
    std::size_t send_run(nb::handle packets, std::size_t size, std::size_t first) {
        const Buffer buffer(packets, Buffer::Access::read);
        const std::span<const std::byte> bytes = buffer.bytes();
        if (size == 0 || bytes.size() % size != 0) {
            throw LocalError(std::to_string(bytes.size()) + " bytes are not whole packets of " + std::to_string(size));
        }
        std::size_t sent = 0;
        for (; first + sent < bytes.size() / size; ++sent) {
            const std::span<const std::byte> packet = bytes.subspan((first + sent) * size, size);
            if (!send_one(queue_of(packet), packet)) {
                break;
            }
        }
        publish();
        return sent;
    }

    bool change_group(nb::bytes group, bool joins) {
        netif::FrontQueue& queue = *queues_.front();
        if (group.size() != 6) {
            throw LocalError("a multicast group is a MAC address of 6 bytes");
        }
        if (!queue.has_room(0, true)) {
            return false;
        }
        netif::Address address;
        std::memcpy(address.data(), group.c_str(), address.size());
        queue.change_group(address, joins);
        queue.publish();
        return true;
    }

    /// The packets that have arrived, `limit` at most, oldest of each queue first.
    nb::list receive_many(std::size_t limit) {
        nb::list packets;
        for (const auto& queue : queues_) {
            netif::FrontQueue::Arrived packet;
            bool any = false;
            for (; packets.size() < limit && queue->next(packet); any = true) {
                packets.append(copy_of(packet));
                queue->release();
            }
            if (any) {
                queue->post();
            }
        }
        return packets;
    }

    /// Drops what has arrived, copies nothing; how many there were.
    std::size_t discard() {
        std::size_t count = 0;
        for (const auto& queue : queues_) {
            netif::FrontQueue::Arrived packet;
            for (; queue->next(packet); ++count) {
                queue->release();
            }
            queue->post();
        }
        return count;
    }

    bool has_arrived() const {
        netif::FrontQueue::Arrived packet;
        for (const auto& queue : queues_) {
            if (queue->next(packet)) {
                return true;
            }
        }
        return false;
    }

    std::uint32_t in_flight() const {
        std::uint32_t sum = 0;
        for (const auto& queue : queues_) {
            sum += queue->in_flight();
        }
        return sum;
    }

    netif::FrontQueue& queue(std::size_t index) {
        if (index >= queues_.size()) {
            throw LocalError("the network frontend has " + std::to_string(queues_.size()) + " queues");
        }
        return *queues_[index];
    }
    std::size_t queues() const { return queues_.size(); }

private:
    static bool send_one(netif::FrontQueue& queue, std::span<const std::byte> packet) {
        if (packet.size() < netif::ethernet_bytes || packet.size() > netif::packet_bytes_max) {
            throw LocalError("a packet has 14 to 65535 bytes, not " + std::to_string(packet.size()));
        }
        if (!queue.has_room(static_cast<std::uint32_t>(packet.size()), false)) {
            queue.publish();
            queue.collect_answers();
            if (!queue.has_room(static_cast<std::uint32_t>(packet.size()), false)) {
                return false;
            }
        }
        queue.send(packet, {});
        return true;
    }

    netif::FrontQueue& queue_of(std::span<const std::byte> packet) {
        if (queues_.size() == 1 || packet.size() < netif::ethernet_bytes) {
            return *queues_.front();
        }
        const std::span<const std::byte> head = packet.first(std::min(packet.size(), netif::Frame::head_max));
        netif::Headers headers = netif::parse_ethernet(head);
        netif::parse_network(headers, head, packet.size());
        return *queues_[netif::flow_of(headers) % queues_.size()];
    }

    void publish() {
        for (const auto& queue : queues_) {
            queue->publish();
        }
    }

    static nb::object copy_of(const netif::FrontQueue::Arrived& packet) {
        nb::object bytes = nb::steal(PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(packet.bytes)));
        if (!bytes.is_valid()) {
            throw nb::python_error();
        }
        char* to = PyBytes_AS_STRING(bytes.ptr());
        for (const iovec& part : std::span(packet.parts).first(packet.count)) {
            std::memcpy(to, part.iov_base, part.iov_len);
            to += part.iov_len;
        }
        return bytes;
    }

    std::vector<std::unique_ptr<Buffer>> memories_;
    std::vector<std::unique_ptr<netif::FrontQueue>> queues_;
    nb::list ends_;
};

/// The pump of one queue, which keeps its frontend.
class TapPump : public NativeTurn {
public:
    TapPump(nb::object front, std::size_t queue, int fd, std::size_t header_bytes)
        : front_(std::move(front)), queue_(nb::cast<NetFront&>(front_).queue(queue)), pump_(fd, header_bytes) {}

    /// As a waiter's turn: what the device has to send, and what has arrived for it.
    static constexpr std::size_t device = 0, ring = 1;

    bool take(std::size_t part) noexcept override {
        try {
            if (part == device) {
                const netif::TapPump::End end = pump_.to_network(queue_);
                return end == netif::TapPump::End::dry || end == netif::TapPump::End::more;
            }
            if (!queue_.attached()) {
                return false;
            }
            queue_.collect_arrived();
            return !pump_.to_tap(queue_);
        } catch (const PeerFault& fault) {
            queue_.note(fault);
            return false;
        }
    }

    netif::TapPump::End to_network() {
        queue_.check();
        return pump_.to_network(queue_);
    }

    bool to_tap() {
        queue_.collect();
        return pump_.to_tap(queue_);
    }

    netif::TapCounters counters() const { return pump_.counters; }

private:
    nb::object front_;
    netif::FrontQueue& queue_;
    netif::TapPump pump_;
};

}  // namespace

void bind_netfront(nb::module_& m) {
    nb::class_<NetFront>(m, "NetFront", nb::is_final())
        .def(nb::init<nb::list, std::vector<std::uint32_t>>(), nb::arg("memories"), nb::arg("first_refs"))
        .def("attach", &NetFront::attach, nb::arg("ends"))
        .def("detach", &NetFront::detach)
        .def("collect", &NetFront::collect)
        .def("send", &NetFront::send, nb::arg("packet"))
        .def("send_many", &NetFront::send_many, nb::arg("packets"), nb::arg("first") = 0)
        .def("send_run", &NetFront::send_run, nb::arg("packets"), nb::arg("size"), nb::arg("first") = 0)
        .def("change_group", &NetFront::change_group, nb::arg("group"), nb::arg("joins"))
        .def("receive_many", &NetFront::receive_many, nb::arg("limit"))
        .def("discard", &NetFront::discard)
        .def_prop_ro("attached", &NetFront::attached)
        .def_prop_ro("has_arrived", &NetFront::has_arrived)
        .def_prop_ro("in_flight", &NetFront::in_flight);
    nb::enum_<netif::TapPump::End>(m, "TapEnd")
        .value("DRY", netif::TapPump::End::dry)
        .value("MORE", netif::TapPump::End::more)
        .value("NO_ROOM", netif::TapPump::End::no_room)
        .value("GONE", netif::TapPump::End::gone);
    nb::class_<netif::TapCounters>(m, "TapCounters")
        .def_ro("to_network", &netif::TapCounters::to_network)
        .def_ro("to_tap", &netif::TapCounters::to_tap)
        .def_ro("not_sent", &netif::TapCounters::not_sent)
        .def_ro("not_written", &netif::TapCounters::not_written);
    nb::class_<TapPump, NativeTurn>(m, "TapPump", nb::is_final())
        .def(nb::init<nb::object, std::size_t, int, std::size_t>(), nb::arg("front"), nb::arg("queue"), nb::arg("fd"), nb::arg("header_bytes"))
        .def("to_network", &TapPump::to_network)
        .def("to_tap", &TapPump::to_tap)
        .def("counters", &TapPump::counters)
        .def_prop_ro_static("DEVICE", [](nb::handle) { return TapPump::device; })
        .def_prop_ro_static("RING", [](nb::handle) { return TapPump::ring; });
}

}  // namespace hvd
