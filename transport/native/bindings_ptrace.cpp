// ptrace.hpp for Python, without logic of its own.
#include <array>

#include "bindings.hpp"
#include "ptrace.hpp"

namespace hvd {

void bind_ptrace(nb::module_& m) {
    m.attr("ELF_MACHINE") = elf_machine;
    m.attr("FAULT_CONTEXT_BYTES") = sizeof(ucontext_t);
    m.def("ptrace_stop", [](int thread) { checked(ptrace_stop(thread)); }, nb::arg("thread"));
    m.def("ptrace_wait", [] {
        const auto [thread, stands] = ptrace_wait();
        return nb::make_tuple(checked(thread), stands);
    });
    m.def(
        "ptrace_registers",
        [](int thread, unsigned type) {
            std::array<char, register_set_bytes_max> buffer;
            const long size = checked(ptrace_registers(thread, type, buffer.data(), buffer.size()));
            return nb::bytes(buffer.data(), static_cast<std::size_t>(size));
        },
        nb::arg("thread"), nb::arg("type"));
    m.def(
        "restore_fault",
        [](nb::bytes registers, nb::bytes untrusted_context) {
            user_regs_struct restored;
            ucontext_t context;
            if (registers.size() != sizeof restored || untrusted_context.size() != sizeof context) {
                throw LocalError("registers and context are those of user_regs_struct and ucontext_t");
            }
            std::memcpy(&restored, registers.c_str(), sizeof restored);
            std::memcpy(&context, untrusted_context.c_str(), sizeof context);
            restore_fault(restored, context);
            return nb::bytes(reinterpret_cast<const char*>(&restored), sizeof restored);
        },
        nb::arg("registers"), nb::arg("untrusted_context"));
}

}  // namespace hvd
