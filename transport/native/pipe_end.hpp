// A pipe's ends as a doorbell uses them: a byte written without a signal, and neither end ever blocking.
#pragma once

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <string>

#include "faults.hpp"

namespace hvd {

namespace detail {

/// Writes with SIGPIPE held back, for kernels that know no better way.
inline void write_byte_masked(int fd) {
    sigset_t broken_pipe;
    sigset_t before;
    sigemptyset(&broken_pipe);
    sigaddset(&broken_pipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &broken_pipe, &before);
    const char byte = 1;
    if (::write(fd, &byte, 1) < 0 && errno == EPIPE) {
        const timespec at_once{0, 0};
        sigtimedwait(&broken_pipe, nullptr, &at_once);
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

/// A full pipe is readable already and a peer without a reader is the peer's fault: neither is an error here, and neither
/// may raise SIGPIPE, whose deadly default a guest program may have restored.
inline void write_byte_quietly(int fd) {
    static std::atomic<bool> kernel_can = true;
    if (kernel_can.load(std::memory_order_relaxed)) {
        constexpr int no_signal = 0x100;  // RWF_NOSIGNAL, since Linux 6.18
        char byte = 1;
        const iovec part{&byte, 1};
        if (::pwritev2(fd, &part, 1, -1, no_signal) >= 0 || errno == EAGAIN || errno == EPIPE) {
            return;
        }
        kernel_can.store(false, std::memory_order_relaxed);
    }
    write_byte_masked(fd);
}

inline void set_non_blocking(int fd) {
    const int flags = ::fcntl(fd, F_GETFL);
    if (flags < 0 || ((flags & O_NONBLOCK) == 0 && ::fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)) {
        throw LocalError("descriptor " + std::to_string(fd) + " is not an open pipe end");
    }
}

}  // namespace detail

}  // namespace hvd
