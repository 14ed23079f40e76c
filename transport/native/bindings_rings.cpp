// Python's view of ring.hpp: FrontRing and BackRing.
#include "bindings.hpp"
#include "ring.hpp"

#include <limits>
#include <memory>

namespace hvd {
namespace {

/// A ring and the Python memory it lives in.
class BoundRing : public Ring {
public:
    BoundRing(RingEnd end, nb::handle memory, std::size_t request_size, std::size_t response_size, std::size_t slot_size, bool checked)
        : BoundRing(end, std::make_unique<Buffer>(memory, Buffer::Access::write),
                    RingShape{request_size, response_size, slot_size != 0 ? slot_size : std::max(request_size, response_size)},
                    checked) {}

    void release() {
        if (attached_to_waiter) {
            throw LocalError("the ring is attached to a waiter: detach it first");
        }
        close();
        memory_->release();
    }

private:
    BoundRing(RingEnd end, std::unique_ptr<Buffer> memory, const RingShape& shape, bool checked)
        : Ring(end, memory->bytes(), shape, checked), memory_(std::move(memory)) {}

    std::unique_ptr<Buffer> memory_;
};

struct BoundFront : BoundRing {
    BoundFront(nb::handle memory, std::size_t request_size, std::size_t response_size, std::size_t slot_size, bool checked)
        : BoundRing(RingEnd::front, memory, request_size, response_size, slot_size, checked) {}
};

struct BoundBack : BoundRing {
    BoundBack(nb::handle memory, std::size_t request_size, std::size_t response_size, std::size_t slot_size, bool checked)
        : BoundRing(RingEnd::back, memory, request_size, response_size, slot_size, checked) {}
};

nb::object new_bytes(std::size_t size) {
    nb::object bytes = nb::steal(PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(size)));
    if (!bytes.is_valid()) {
        throw nb::python_error();
    }
    return bytes;
}

bool push(BoundRing& ring, nb::handle message) {
    if (PyBytes_CheckExact(message.ptr())) {
        return ring.push(PyBytes_AS_STRING(message.ptr()), static_cast<std::size_t>(PyBytes_GET_SIZE(message.ptr())));
    }
    const Buffer buffer(message, Buffer::Access::read);
    return ring.push(buffer.bytes().data(), buffer.bytes().size());
}

nb::tuple push_many(BoundRing& ring, nb::handle messages) {
    const Buffer buffer(messages, Buffer::Access::read);
    const std::size_t bytes = buffer.bytes().size();
    if (bytes % ring.out_size() != 0) {
        throw LocalError("push_many takes whole messages of " + std::to_string(ring.out_size()) + " bytes, not " +
                         std::to_string(bytes) + " bytes");
    }
    const Ring::Pushed pushed = ring.push_many(buffer.bytes().data(), bytes / ring.out_size());
    return nb::make_tuple(pushed.count, pushed.must_notify);
}

nb::object pop(BoundRing& ring) {
    if (ring.unconsumed() == 0) {
        return nb::none();
    }
    nb::object message = new_bytes(ring.in_size());
    ring.pop_many(PyBytes_AS_STRING(message.ptr()), 1);
    return message;
}

nb::object pop_many(BoundRing& ring, std::uint32_t limit) {
    const std::uint32_t count = std::min(limit, ring.unconsumed());
    nb::object messages = new_bytes(count * ring.in_size());
    ring.pop_many(PyBytes_AS_STRING(messages.ptr()), count);
    return messages;
}

nb::tuple untrusted_indices(BoundRing& ring) {
    const RingHeader header = ring.untrusted_header();
    return nb::make_tuple(header.req_prod, header.req_event, header.rsp_prod, header.rsp_event);
}

}  // namespace

void bind_rings(nb::module_& m) {
    nb::class_<Ring>(m, "_RingWords");
    nb::class_<BoundRing, Ring>(m, "Ring")
        .def("attach", &BoundRing::attach, nb::arg("index"))
        .def("push", &push, nb::arg("message"))
        .def("push_many", &push_many, nb::arg("messages"))
        .def("pop", &pop)
        .def("pop_many", &pop_many, nb::arg("limit") = std::numeric_limits<std::uint32_t>::max())
        .def("name_messages_by", &BoundRing::name_messages_by, nb::arg("id_in_request"), nb::arg("id_in_response"))
        .def("final_check", &BoundRing::final_check)
        .def("close", &BoundRing::release)
        .def("untrusted_indices", &untrusted_indices)
        .def_prop_ro("size", &BoundRing::size)
        .def_prop_ro("free", &BoundRing::free)
        .def_prop_ro("unconsumed", &BoundRing::unconsumed);
    nb::class_<BoundFront, BoundRing>(m, "FrontRing")
        .def(nb::init<nb::handle, std::size_t, std::size_t, std::size_t, bool>(), nb::arg("memory"), nb::arg("request_size"),
             nb::arg("response_size"), nb::arg("slot_size") = 0, nb::arg("checked") = false)
        .def("init", &BoundFront::init);
    nb::class_<BoundBack, BoundRing>(m, "BackRing")
        .def(nb::init<nb::handle, std::size_t, std::size_t, std::size_t, bool>(), nb::arg("memory"), nb::arg("request_size"),
             nb::arg("response_size"), nb::arg("slot_size") = 0, nb::arg("checked") = false);
}

}  // namespace hvd
