// Python's view of shared_info.hpp, trace.hpp and fault_orders.hpp: opening a domain's buffer, writing the broker's own, and the two clocks side by side.
#include <memory>

#include "bindings.hpp"
#include "fault_orders.hpp"
#include "pages.hpp"
#include "trace.hpp"

namespace hvd {
namespace {

/// Maps this domain's buffer, then its shared info page, which has the switch. Once in a process, and for as long as it lives.
void open_own_trace(int info_fd, int buffer_fd) {
    if (trace::own_buffer != nullptr) {
        throw LocalError("this process's trace is open already");
    }
    auto memory = std::make_unique<Mapping>(buffer_fd, trace::buffer_bytes, true);
    auto buffer = std::make_unique<trace::Buffer>(memory->data(), memory->bytes());
    shared_info::map(info_fd);
    trace::own_buffer = buffer.release();  // both stay until the process ends
    static_cast<void>(memory.release());
    checked(fault_orders::listen());
}

/// A buffer in Python's memory, for a writer that decides itself whether it traces.
class TraceBuffer {
public:
    explicit TraceBuffer(nb::handle memory)
        : memory_(memory, Buffer::Access::write), buffer_(memory_.bytes().data(), memory_.bytes().size()) {}

    void record(std::uint8_t kind, std::uint32_t port, std::uint64_t id, std::uint16_t count, std::uint32_t clock) {
        buffer_.record(static_cast<trace::Kind>(kind), port, id, count, clock);
    }

private:
    Buffer memory_;
    trace::Buffer buffer_;
};

/// (ticks, CLOCK_MONOTONIC in ns) of one moment: the closest of a few tries, because we may be interrupted in between.
nb::tuple trace_clocks(std::uint32_t clock) {
    std::uint64_t best_ticks = 0;
    std::uint64_t best_ns = 0;
    std::uint64_t least = ~std::uint64_t{0};
    for (int i = 0; i < 16; ++i) {
        const std::uint64_t before = trace::ticks(clock);
        const std::uint64_t ns = trace::monotonic_ns();
        const std::uint64_t after = trace::ticks(clock);
        if (after - before < least) {
            least = after - before;
            best_ticks = before + least / 2;
            best_ns = ns;
        }
    }
    return nb::make_tuple(best_ticks, best_ns);
}

}  // namespace

void bind_trace(nb::module_& m) {
    nb::class_<TraceBuffer>(m, "TraceBuffer", nb::is_final())
        .def(nb::init<nb::handle>(), nb::arg("memory"))
        .def("record", &TraceBuffer::record, nb::arg("kind"), nb::arg("port"), nb::arg("id"), nb::arg("count"), nb::arg("clock"));
    m.def("open_own_trace", open_own_trace, nb::arg("info_fd"), nb::arg("buffer_fd"));
    m.def("system_time_ns", shared_info::system_time_ns);
    m.def("trace_clocks", trace_clocks, nb::arg("clock"));
}

}  // namespace hvd
