// Python's view of what measures: histograms that time calls without allocating, C ping-pongs, counters, known amounts of work.
#include "bindings.hpp"
#include "counting.hpp"
#include "histogram.hpp"
#include "ping_pong.hpp"
#include "tap_chain.hpp"
#include "workloads.hpp"

#include <cstring>

namespace hvd {
namespace {

void call_once(nb::handle call) {
    PyObject* result = PyObject_CallNoArgs(call.ptr());
    if (result == nullptr || PyErr_CheckSignals() != 0) {
        Py_XDECREF(result);
        throw nb::python_error();
    }
    Py_DECREF(result);
}

/// Time in which the caller does something else: computing, or asleep.
void think(std::int64_t duration_ns, bool computing) {
    if (duration_ns <= 0) {
        return;
    }
    const nb::gil_scoped_release unlocked;
    if (computing) {
        for (const std::int64_t until_ns = now_ns() + duration_ns; now_ns() < until_ns;) {
            pause_cpu();
        }
    } else {
        sleep_for(duration_ns);
    }
}

void time_calls(Histogram& times, nb::handle call, std::int64_t duration_ns, std::int64_t think_ns, bool computing) {
    for (const std::int64_t until_ns = now_ns() + duration_ns;;) {
        think(think_ns, computing);
        const std::int64_t start = now_ns();
        call_once(call);
        const std::int64_t end = now_ns();
        times.record(end - start);
        if (end >= until_ns) {
            return;
        }
    }
}

/// Sleeps as long as that is sure to end in time, and polls the clock for the rest.
void wait_for_turn(std::int64_t turn_ns) {
    constexpr std::int64_t waking_ns = 200'000;
    const nb::gil_scoped_release unlocked;
    sleep_for(turn_ns - now_ns() - waking_ns);
    while (now_ns() < turn_ns) {
        pause_cpu();
    }
}

void time_calls_at_rate(Histogram& from_intended, Histogram& from_sent, nb::handle call, std::int64_t duration_ns, std::int64_t interval_ns) {
    if (interval_ns <= 0) {
        throw LocalError("the interval between two calls is at least 1 ns");
    }
    const std::int64_t begin = now_ns();
    for (std::int64_t turn_ns = begin; turn_ns < begin + duration_ns; turn_ns += interval_ns) {
        wait_for_turn(turn_ns);
        const std::int64_t start = now_ns();
        call_once(call);
        const std::int64_t end = now_ns();
        from_intended.record(end - turn_ns);
        from_sent.record(end - start);
    }
}

void play_ping_pong(PingPong kind, Histogram& times, std::int64_t duration_ns, std::int64_t think_ns, int child_cpu) {
    bool played = false;
    {
        const nb::gil_scoped_release unlocked;
        played = ping_pong(kind, times, duration_ns, think_ns, child_cpu);
    }
    if (!played) {
        PyErr_SetFromErrno(PyExc_OSError);
        throw nb::python_error();
    }
}

std::int64_t system_calls(int pid, std::int64_t duration_ns) {
    std::int64_t count = 0;
    {
        const nb::gil_scoped_release unlocked;
        count = count_system_calls(pid, duration_ns);
    }
    if (count < 0) {
        errno = static_cast<int>(-count);
        PyErr_SetFromErrno(PyExc_OSError);
        throw nb::python_error();
    }
    return count;
}

}  // namespace

void bind_bench(nb::module_& m) {
    nb::class_<Histogram>(m, "Histogram")
        .def(nb::init<std::int64_t, int>(), nb::arg("highest") = std::int64_t{3'600'000'000'000}, nb::arg("digits") = 3)
        .def("record", &Histogram::record, nb::arg("value"), nb::arg("count") = 1)
        .def("add", &Histogram::add, nb::arg("other"))
        .def("reset", &Histogram::reset)
        .def("percentile", &Histogram::percentile, nb::arg("percentile"))
        .def("count_from", &Histogram::count_from, nb::arg("value"))
        .def("encode", [](const Histogram& self) {
            const std::string encoded = self.encode();
            return nb::bytes(encoded.data(), encoded.size());
        })
        .def_static("decode", [](const nb::bytes& encoded) { return Histogram::decode({encoded.c_str(), encoded.size()}); }, nb::arg("encoded"))
        .def("time_calls", &time_calls, nb::arg("call"), nb::arg("duration_ns"), nb::arg("think_ns") = 0, nb::arg("computing") = false)
        .def_prop_ro("count", &Histogram::count)
        .def_prop_ro("min", &Histogram::min)
        .def_prop_ro("max", &Histogram::max)
        .def_prop_ro("mean", &Histogram::mean)
        .def_prop_ro("digits", &Histogram::digits)
        .def_prop_ro("highest", &Histogram::highest);
    m.def("time_calls_at_rate", &time_calls_at_rate, nb::arg("from_intended"), nb::arg("from_sent"), nb::arg("call"),
          nb::arg("duration_ns"), nb::arg("interval_ns"));
    nb::enum_<PingPong>(m, "PingPong").value("SPIN", PingPong::spin).value("FUTEX", PingPong::futex).value("EVENTFD", PingPong::eventfd);
    m.def("ping_pong", &play_ping_pong, nb::arg("kind"), nb::arg("times"), nb::arg("duration_ns"), nb::arg("think_ns"), nb::arg("child_cpu"));
    nb::class_<TapChain>(m, "TapChain", nb::is_final())
        .def("__init__",
             [](TapChain* self, int first, int second, int first_cpu, int second_cpu) {
                 if (!(new (self) TapChain(first, second, first_cpu, second_cpu))->is_open()) {
                     const int error = errno;
                     self->~TapChain();
                     errno = error;
                     PyErr_SetFromErrno(PyExc_OSError);
                     throw nb::python_error();
                 }
             },
             nb::arg("first"), nb::arg("second"), nb::arg("first_cpu") = -1, nb::arg("second_cpu") = -1)
        .def("close", &TapChain::close);
    m.def("count_system_calls", &system_calls, nb::arg("pid"), nb::arg("duration_ns"));
    nb::class_<Instructions>(m, "Instructions").def(nb::init<>()).def("read", &Instructions::read_now);
    nb::class_<Walk>(m, "Walk").def(nb::init<std::size_t>(), nb::arg("lines")).def("walk", &Walk::walk, nb::arg("steps"));
    m.def("compute", &compute, nb::arg("steps"));
    m.def("touch_lines", [](nb::handle memory) { return touch_lines(Buffer(memory, Buffer::Access::read).bytes()); }, nb::arg("memory"));
    m.def("dirty_lines", [](nb::handle memory, std::uint64_t value) { dirty_lines(Buffer(memory, Buffer::Access::write).bytes(), value); },
          nb::arg("memory"), nb::arg("value"));
}

}  // namespace hvd
