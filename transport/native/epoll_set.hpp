// The descriptors a waiter sleeps on: an epoll set that is kept up to date and never rebuilt, each entry with a key.
#pragma once

#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string>

#include "faults.hpp"
#include "spin.hpp"

namespace hvd {

class EpollSet {
public:
    EpollSet() : fd_(::epoll_create1(EPOLL_CLOEXEC)) {
        if (fd_ == -1) {
            throw LocalError(std::string("no epoll set for a waiter: ") + std::strerror(errno));
        }
    }

    ~EpollSet() { close(); }
    EpollSet(const EpollSet&) = delete;
    EpollSet& operator=(const EpollSet&) = delete;

    bool is_open() const { return fd_ != -1; }

    /// Level-triggered. A pipe that a hostile peer keeps full must go on waking us until it is drained: edges would be lost.
    void add(std::int64_t key, int fd) {
        epoll_event event{};
        event.events = EPOLLIN;
        event.data.u64 = static_cast<std::uint64_t>(key);
        if (::epoll_ctl(fd_, EPOLL_CTL_ADD, fd, &event) != 0) {
            throw LocalError("descriptor " + std::to_string(fd) + " cannot be waited on: " + std::strerror(errno));
        }
    }

    /// A descriptor that has been closed or removed already is no error.
    void remove(int fd) { ::epoll_ctl(fd_, EPOLL_CTL_DEL, fd, nullptr); }

    /// Calls `on_key` for what is readable, sleeping until the deadline if nothing is (0: not at all).
    template <class OnKey>
    Wake look(std::int64_t deadline_ns, OnKey&& on_key) {
        std::array<epoll_event, events_max> events;
        const timespec left = deadline_ns == never_ns || deadline_ns == 0 ? timespec{} : until(deadline_ns);
        const long count = ::syscall(SYS_epoll_pwait2, fd_, events.data(), events_max,
                                     deadline_ns == never_ns ? nullptr : &left, nullptr, std::size_t{0});
        if (count < 0 && errno != EINTR) {
            throw LocalError(std::string("epoll_pwait2: ") + std::strerror(errno));
        }
        looked_at_ns_ = now_ns();
        for (long i = 0; i < count; ++i) {
            on_key(static_cast<std::int64_t>(events[static_cast<std::size_t>(i)].data.u64));
        }
        return count > 0 ? Wake::ready : count == 0 ? Wake::timed_out : Wake::interrupted;
    }

    std::int64_t looked_at_ns() const { return looked_at_ns_; }

    void close() {
        if (fd_ != -1) {
            ::close(fd_);
            fd_ = -1;
        }
    }

private:
    static constexpr int events_max = 64;
    int fd_;
    std::int64_t looked_at_ns_ = 0;
};

}  // namespace hvd
