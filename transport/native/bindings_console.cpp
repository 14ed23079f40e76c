// Python's view of console_ring.hpp: ConsoleFront and ConsoleBack.
#include "bindings.hpp"
#include "console_ring.hpp"

#include <memory>

namespace hvd {
namespace {

/// A console ring and the Python memory it lives in.
class BoundConsole : public ConsoleRing {
public:
    BoundConsole(RingEnd end, nb::handle memory)
        : BoundConsole(end, std::make_unique<Buffer>(memory, Buffer::Access::write)) {}

    void release() {
        close();
        memory_->release();
    }

private:
    BoundConsole(RingEnd end, std::unique_ptr<Buffer> memory) : ConsoleRing(end, memory->bytes()), memory_(std::move(memory)) {}

    std::unique_ptr<Buffer> memory_;
};

struct BoundConsoleFront : BoundConsole {
    explicit BoundConsoleFront(nb::handle memory) : BoundConsole(RingEnd::front, memory) {}
};

struct BoundConsoleBack : BoundConsole {
    explicit BoundConsoleBack(nb::handle memory) : BoundConsole(RingEnd::back, memory) {}
};

std::uint32_t write(BoundConsole& ring, nb::handle data) {
    const Buffer buffer(data, Buffer::Access::read);
    return ring.write(buffer.bytes().data(), buffer.bytes().size());
}

/// `count` bytes as `copy` fills them in.
template <class Copy>
nb::object filled(std::uint32_t count, Copy&& copy) {
    nb::object bytes = nb::steal(PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(count)));
    if (!bytes.is_valid()) {
        throw nb::python_error();
    }
    copy(reinterpret_cast<std::byte*>(PyBytes_AS_STRING(bytes.ptr())), count);
    return bytes;
}

nb::object peek(BoundConsole& ring) {
    return filled(ring.unconsumed(), [&](std::byte* to, std::uint32_t count) { ring.peek(to, count); });
}

nb::object read(BoundConsole& ring, std::uint32_t limit) {
    return filled(std::min(limit, ring.unconsumed()), [&](std::byte* to, std::uint32_t count) {
        ring.peek(to, count);
        ring.consume(count);
    });
}

nb::object undelivered(BoundConsole& ring) {
    return filled(ring.in_flight(), [&](std::byte* to, std::uint32_t count) { ring.copy_in_flight(to, count); });
}

}  // namespace

void bind_console(nb::module_& m) {
    nb::class_<ConsoleRing>(m, "_ConsoleIndices");
    nb::class_<BoundConsole, ConsoleRing>(m, "ConsoleRing")
        .def("write", &write, nb::arg("data"))
        .def("read", &read, nb::arg("limit"))
        .def("peek", &peek)
        .def("consume", &BoundConsole::consume, nb::arg("count"))
        .def("undelivered", &undelivered)
        .def("write_down", &BoundConsole::write_down)
        .def_prop_ro("written_down", &BoundConsole::written_down)
        .def("check", &BoundConsole::check)
        .def("close", &BoundConsole::release)
        .def_prop_ro("free", &BoundConsole::free)
        .def_prop_ro("in_flight", &BoundConsole::in_flight)
        .def_prop_ro("unconsumed", &BoundConsole::unconsumed);
    nb::class_<BoundConsoleFront, BoundConsole>(m, "ConsoleFront").def(nb::init<nb::handle>(), nb::arg("memory"));
    nb::class_<BoundConsoleBack, BoundConsole>(m, "ConsoleBack").def(nb::init<nb::handle>(), nb::arg("memory"));
}

}  // namespace hvd
