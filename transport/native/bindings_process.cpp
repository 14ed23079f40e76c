// process.hpp for Python, without logic of its own.
#include <nanobind/stl/vector.h>

#include "bindings.hpp"
#include "cpu_follower.hpp"
#include "fault_report.hpp"
#include "inotify.hpp"
#include "process.hpp"
#include "timer.hpp"

namespace {

/// As os.fork does it: the interpreter's locks are held over the clone and put in order on both sides.
long fork_sibling(std::uint64_t namespaces) {
    PyOS_BeforeFork();
    const long pid = hvd::clone_sibling(namespaces);
    if (pid == 0) {
        PyOS_AfterFork_Child();
    } else {
        PyOS_AfterFork_Parent();
    }
    return hvd::checked(pid);
}

}  // namespace

namespace hvd {

void bind_process(nb::module_& m) {
    m.def("fork_sibling", fork_sibling, nb::arg("namespaces"));
    m.def("die_with_parent", [] { checked(die_with_parent()); });
    m.def("set_process_name", [](const char* name) { checked(set_process_name(name)); }, nb::arg("name"));
    m.def("start_sleeper", start_sleeper);
    m.def(
        "set_slice", [](int thread, std::uint64_t slice_ns) { checked(set_slice(thread, slice_ns)); }, nb::arg("thread"),
        nb::arg("slice_ns"));
    nb::class_<CpuFollower>(m, "CpuFollower")
        .def(nb::init<>())
        .def("place", &CpuFollower::place, nb::arg("cpus"))
        .def("worked_for", &CpuFollower::worked_for, nb::arg("place"))
        .def_prop_ro("moves", &CpuFollower::moves)
        .def_prop_ro("starved", &CpuFollower::starved);
    nb::list fatal;
    for (const int number : fatal_signals) {
        fatal.append(number);
    }
    m.attr("FATAL_SIGNALS") = nb::tuple(fatal);
    m.def("exit_on_fatal_signals", [] { checked(exit_on_fatal_signals()); });
    m.def(
        "report_fatal_signals", [](int descriptor) { checked(report_fatal_signals(descriptor)); }, nb::arg("descriptor"));
    m.def("allow_tracing", allow_tracing);
    m.def("trim_memory", trim_memory);
    m.def(
        "bring_in",
        [](const nb::bytes& stretches) {
            bring_in(reinterpret_cast<const std::byte*>(stretches.c_str()), stretches.size());
        },
        nb::arg("stretches"));
    m.def("arenas", [] {
        const std::string told = arenas();
        return nb::bytes(told.data(), told.size());
    });
    m.def("inotify_descriptor", [] { return checked(inotify_descriptor()); });
    m.def(
        "watch_readers", [](int fd, const char* path) { return checked(watch_readers(fd, path)); }, nb::arg("fd"),
        nb::arg("path"));
    m.def(
        "unwatch_readers", [](int fd, int number) { checked(unwatch_readers(fd, number)); }, nb::arg("fd"),
        nb::arg("number"));
    m.def("timer_descriptor", [] { return checked(timer_descriptor()); });
    m.def("arm_timer", [](int fd, std::int64_t at_ns) { checked(arm_timer(fd, at_ns)); }, nb::arg("fd"), nb::arg("at_ns"));
}

}  // namespace hvd
