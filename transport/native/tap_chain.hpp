// The floor of a packet's way between two TAP devices: the same wake-ups in bare C. In each direction one process reads the device, one
// stands where the switch does, one writes the other device. Each sleeps in a read, is woken by an eventfd, and copies the packet once.
#pragma once

#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <new>

#include "ping_pong.hpp"

namespace hvd {

class TapChain {
public:
    static constexpr std::size_t packet_bytes_max = 2048;

    /// Two descriptors that block, and the CPUs that their processes run on. `is_open` is false, with errno set, when the kernel refuses.
    TapChain(int first, int second, int first_cpu, int second_cpu) {
        memory_ = mmap(nullptr, sizeof(Hops), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        is_open_ = memory_ != MAP_FAILED && make_bells();
        if (is_open_) {
            auto& hops = *new (memory_) Hops{};
            is_open_ = start(hops, 0, first, second, first_cpu, second_cpu) && start(hops, 2, second, first, second_cpu, first_cpu);
        }
        if (!is_open_) {
            const int error = errno;
            close();
            errno = error;
        }
    }
    ~TapChain() { close(); }
    TapChain(const TapChain&) = delete;
    TapChain& operator=(const TapChain&) = delete;

    bool is_open() const { return is_open_; }

    /// Ends its processes. Idempotent.
    void close() {
        for (; started_ > 0; --started_) {
            kill(processes_[started_ - 1], SIGKILL);
            waitpid(processes_[started_ - 1], nullptr, 0);
        }
        for (int& bell : bells_) {
            if (bell >= 0) ::close(bell);
            bell = -1;
        }
        if (memory_ != MAP_FAILED) munmap(memory_, sizeof(Hops));
        memory_ = MAP_FAILED;
        is_open_ = false;
    }

private:
    static constexpr std::uint32_t slots = 16;

    /// What one process hands to the next: as many packets as there are slots, and no more.
    struct Hop {
        struct Slot {
            std::size_t size;
            std::array<std::byte, packet_bytes_max> bytes;
        };
        alignas(128) std::atomic<std::uint32_t> taken{0};
        alignas(128) std::array<Slot, slots> ring;
    };
    using Hops = std::array<Hop, 4>;

    /// The writing end of a hop.
    class Giver {
    public:
        Giver(Hop& hop, int bell) : hop_(hop), bell_(bell) {}

        /// nullptr: whoever is next has not taken enough yet.
        Hop::Slot* slot() { return given_ - hop_.taken.load(std::memory_order_acquire) == slots ? nullptr : &hop_.ring[given_ % slots]; }

        bool give() {
            const std::uint64_t one = 1;
            ++given_;
            return write(bell_, &one, sizeof one) == sizeof one;
        }

    private:
        Hop& hop_;
        int bell_;
        std::uint32_t given_ = 0;
    };

    /// The reading end, until `act` says no.
    template <class Act>
    static void take_all(Hop& hop, int bell, Act act) {
        std::uint64_t count = 0;
        for (std::uint32_t taken = 0; read(bell, &count, sizeof count) == sizeof count;) {
            for (; count > 0; --count) {
                if (!act(hop.ring[taken % slots])) return;
                hop.taken.store(++taken, std::memory_order_release);
            }
        }
    }

    static void read_device(int device, Giver next) {
        std::array<std::byte, packet_bytes_max> lost;
        for (;;) {
            Hop::Slot* slot = next.slot();
            const ssize_t size = read(device, slot == nullptr ? lost.data() : slot->bytes.data(), packet_bytes_max);
            if (size < 0) return;
            if (slot != nullptr) {
                slot->size = static_cast<std::size_t>(size);
                if (!next.give()) return;
            }
        }
    }

    static void pass_on(Hop& from, int bell, Giver next) {
        take_all(from, bell, [&](const Hop::Slot& packet) {
            Hop::Slot* slot = next.slot();
            if (slot == nullptr) return true;
            slot->size = packet.size;
            std::memcpy(slot->bytes.data(), packet.bytes.data(), packet.size);
            return next.give();
        });
    }

    /// A device that is down loses what is written to it.
    static void write_device(Hop& from, int bell, int device) {
        take_all(from, bell, [&](const Hop::Slot& packet) { return write(device, packet.bytes.data(), packet.size) >= 0 || errno == EIO; });
    }

    bool make_bells() {
        for (int& bell : bells_) {
            bell = eventfd(0, EFD_CLOEXEC);
            if (bell < 0) return false;
        }
        return true;
    }

    /// One direction, by the hops `at` and `at` + 1.
    bool start(Hops& hops, std::size_t at, int from, int to, int from_cpu, int to_cpu) {
        const Giver first(hops[at], bells_[at]), second(hops[at + 1], bells_[at + 1]);
        return fork_one(from_cpu, [&] { read_device(from, first); }) && fork_one(-1, [&] { pass_on(hops[at], bells_[at], second); }) &&
               fork_one(to_cpu, [&] { write_device(hops[at + 1], bells_[at + 1], to); });
    }

    template <class Act>
    bool fork_one(int cpu, Act act) {
        const pid_t child = fork();
        if (child == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            pin_to(cpu);
            act();
            _exit(0);
        }
        if (child > 0) processes_[started_++] = child;
        return child > 0;
    }

    void* memory_ = MAP_FAILED;
    std::array<int, 4> bells_{-1, -1, -1, -1};
    std::array<pid_t, 6> processes_{};
    std::size_t started_ = 0;
    bool is_open_ = false;
};

}  // namespace hvd
