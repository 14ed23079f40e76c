// What a doorbell is held against: bare ping-pongs in C between two processes, by a polled word, a futex and an eventfd.
#pragma once

#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

#include "histogram.hpp"
#include "layouts.hpp"
#include "spin.hpp"

namespace hvd {

enum class PingPong { spin, futex, eventfd };

inline void pin_to(int cpu) {
    if (cpu >= 0) {
        cpu_set_t cpus;
        CPU_ZERO(&cpus);
        CPU_SET(static_cast<unsigned>(cpu), &cpus);
        sched_setaffinity(0, sizeof cpus, &cpus);
    }
}

inline void sleep_for(std::int64_t duration_ns) {
    if (duration_ns > 0) {
        const timespec time{static_cast<time_t>(duration_ns / 1'000'000'000), static_cast<long>(duration_ns % 1'000'000'000)};
        nanosleep(&time, nullptr);
    }
}

namespace detail {

/// Two words, each written by one side and waited for by the other, on cache lines that are not prefetched together.
struct alignas(128) Word {
    std::uint32_t value;
};
struct Words {
    Word ping;
    Word pong;
};

/// A word that counts up. Whoever waits knows the value that it waits for.
class SpinWords {
public:
    explicit SpinWords(Words& words) : words_(words) {}
    bool send_ping(std::uint32_t round) { return send(words_.ping.value, round); }
    bool send_pong(std::uint32_t round) { return send(words_.pong.value, round); }
    bool await_ping(std::uint32_t round) { return await(words_.ping.value, round); }
    bool await_pong(std::uint32_t round) { return await(words_.pong.value, round); }

private:
    static bool send(std::uint32_t& word, std::uint32_t round) {
        std::atomic_ref<std::uint32_t>(word).store(round, std::memory_order_release);
        return true;
    }
    static bool await(std::uint32_t& word, std::uint32_t round) {
        while (load_acquire(word) != round) {
            pause_cpu();
        }
        return true;
    }
    Words& words_;
};

class FutexWords {
public:
    explicit FutexWords(Words& words) : words_(words) {}
    bool send_ping(std::uint32_t round) { return send(words_.ping.value, round); }
    bool send_pong(std::uint32_t round) { return send(words_.pong.value, round); }
    bool await_ping(std::uint32_t round) { return await(words_.ping.value, round); }
    bool await_pong(std::uint32_t round) { return await(words_.pong.value, round); }

private:
    static bool send(std::uint32_t& word, std::uint32_t round) {
        store_fenced(word, round);
        return syscall(SYS_futex, &word, FUTEX_WAKE, 1, nullptr, nullptr, 0) >= 0;
    }
    static bool await(std::uint32_t& word, std::uint32_t round) {
        for (std::uint32_t seen = load_acquire(word); seen != round; seen = load_acquire(word)) {
            if (syscall(SYS_futex, &word, FUTEX_WAIT, seen, nullptr, nullptr, 0) != 0 && errno != EAGAIN && errno != EINTR) {
                return false;
            }
        }
        return true;
    }
    Words& words_;
};

class Eventfds {
public:
    explicit Eventfds(Words&) : ping_(eventfd(0, EFD_CLOEXEC)), pong_(eventfd(0, EFD_CLOEXEC)) {}
    ~Eventfds() {
        const int error = errno;
        for (const int fd : {ping_, pong_}) {
            if (fd >= 0) close(fd);
        }
        errno = error;
    }
    Eventfds(const Eventfds&) = delete;
    Eventfds& operator=(const Eventfds&) = delete;
    bool send_ping(std::uint32_t) { return send(ping_); }
    bool send_pong(std::uint32_t) { return send(pong_); }
    bool await_ping(std::uint32_t) { return await(ping_); }
    bool await_pong(std::uint32_t) { return await(pong_); }

private:
    static bool send(int fd) {
        const std::uint64_t one = 1;
        return write(fd, &one, sizeof one) == sizeof one;
    }
    static bool await(int fd) {
        std::uint64_t value = 0;
        return read(fd, &value, sizeof value) == sizeof value;
    }
    int ping_;
    int pong_;
};

/// The child answers until it is killed: at the end of the measuring, or with its parent.
template <class Means>
[[noreturn]] void answer(Means& means, int cpu) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    pin_to(cpu);
    for (std::uint32_t round = 1; means.await_ping(round) && means.send_pong(round); ++round) {
    }
    _exit(0);
}

constexpr std::uint32_t warm_up_rounds = 100;

template <class Means>
bool call(Means& means, Histogram& times, std::int64_t duration_ns, std::int64_t think_ns) {
    const std::int64_t until_ns = now_ns() + duration_ns;
    for (std::uint32_t round = 1;; ++round) {
        sleep_for(think_ns);
        const std::int64_t start = now_ns();
        if (!means.send_ping(round) || !means.await_pong(round)) {
            return false;
        }
        const std::int64_t end = now_ns();
        if (round > warm_up_rounds || think_ns > 0) {
            times.record(end - start);
        }
        if (end >= until_ns && times.count() > 0) {
            return true;
        }
    }
}

template <class Means>
bool play(Words& words, Histogram& times, std::int64_t duration_ns, std::int64_t think_ns, int child_cpu) {
    Means means(words);
    const pid_t child = fork();
    if (child < 0) {
        return false;
    }
    if (child == 0) {
        answer(means, child_cpu);
    }
    const bool played = call(means, times, duration_ns, think_ns);
    const int error = errno;
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    errno = error;
    return played;
}

}  // namespace detail

/// Records round trips for `duration_ns`; false with errno set when the kernel refuses. The child answers on `child_cpu` (-1:
/// anywhere). The caller sleeps `think_ns` before each round; without a think time the first rounds are not recorded.
inline bool ping_pong(PingPong kind, Histogram& times, std::int64_t duration_ns, std::int64_t think_ns, int child_cpu) {
    void* memory = mmap(nullptr, page_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        return false;
    }
    auto& words = *new (memory) detail::Words{};
    bool played = false;
    switch (kind) {
        case PingPong::spin: played = detail::play<detail::SpinWords>(words, times, duration_ns, think_ns, child_cpu); break;
        case PingPong::futex: played = detail::play<detail::FutexWords>(words, times, duration_ns, think_ns, child_cpu); break;
        case PingPong::eventfd: played = detail::play<detail::Eventfds>(words, times, duration_ns, think_ns, child_cpu); break;
    }
    const int error = errno;
    munmap(memory, page_size);
    errno = error;
    return played;
}

}  // namespace hvd
