// What a core needs of another process that only ptrace tells: its threads standing still, and their registers.
#pragma once

#include <elf.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <ucontext.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

namespace hvd {

#if defined(__x86_64__)
inline constexpr int elf_machine = EM_X86_64;
#elif defined(__aarch64__)
inline constexpr int elf_machine = EM_AARCH64;
#else
#error "hvd knows the registers of x86-64 and aarch64"
#endif

inline constexpr std::size_t register_set_bytes_max = 16'384;  // x86's extended state; aarch64's vectors have their own sets

/// Ask a thread to stand still. It does not notice, nor do those that wait for its process. 0 or -errno.
inline int ptrace_stop(pid_t thread) {
    if (ptrace(PTRACE_SEIZE, thread, nullptr, nullptr) != 0 || ptrace(PTRACE_INTERRUPT, thread, nullptr, nullptr) != 0) {
        return -errno;
    }
    return 0;
}

/// Wait until one of those asked does: (thread, true), or has gone instead: (thread, false); (-errno, false).
/// For any of them: a process that is killed meanwhile dies only when each of its threads is taken away, in whatever order.
/// Without a deadline: whoever calls is killed past its own.
inline std::pair<pid_t, bool> ptrace_wait() {
    int status = 0;
    pid_t thread = 0;
    do {
        thread = waitpid(-1, &status, __WALL);
    } while (thread < 0 && errno == EINTR);
    return thread < 0 ? std::pair{-errno, false} : std::pair{thread, bool{WIFSTOPPED(status)}};
}

/// One register set (NT_*) of a thread that stands still; its size, or -errno.
inline long ptrace_registers(pid_t thread, unsigned type, void* buffer, std::size_t size) {
    iovec place{buffer, size};
    if (ptrace(PTRACE_GETREGSET, thread, type, &place) != 0) {
        return -errno;
    }
    return static_cast<long>(place.iov_len);
}

/// The registers that a signal handler was given, in place of those that the thread has inside that handler.
inline void restore_fault(user_regs_struct& registers, const ucontext_t& untrusted_context) {
    const auto& saved = untrusted_context.uc_mcontext;
#if defined(__x86_64__)
    const auto of = [&saved](int which) { return static_cast<unsigned long long>(saved.gregs[which]); };
    registers.r8 = of(REG_R8), registers.r9 = of(REG_R9), registers.r10 = of(REG_R10), registers.r11 = of(REG_R11);
    registers.r12 = of(REG_R12), registers.r13 = of(REG_R13), registers.r14 = of(REG_R14), registers.r15 = of(REG_R15);
    registers.rdi = of(REG_RDI), registers.rsi = of(REG_RSI), registers.rbp = of(REG_RBP), registers.rbx = of(REG_RBX);
    registers.rdx = of(REG_RDX), registers.rax = of(REG_RAX), registers.rcx = of(REG_RCX), registers.rsp = of(REG_RSP);
    registers.rip = of(REG_RIP), registers.eflags = of(REG_EFL);
    registers.orig_rax = ~0ULL;  // it was in no system call
#else
    static_assert(sizeof registers.regs == sizeof saved.regs);
    std::memcpy(registers.regs, saved.regs, sizeof registers.regs);
    registers.sp = saved.sp, registers.pc = saved.pc, registers.pstate = saved.pstate;
#endif
}

}  // namespace hvd
