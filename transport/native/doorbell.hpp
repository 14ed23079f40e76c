// One end of an event channel: a pending word in a shared page, and a word or a pipe by which the other end is woken if it sleeps.
//
//   notifier: pending = 1;  FENCE;  if (waiting) was = exchange(waiting, 0);  was = 2: wake the word's sleeper;  else: write one byte
//   receiver: waiting = 2;  FENCE;  if (pending) stay awake; else sleep while waiting is 2, not for long;  waiting = 0
//   and then: drain;  waiting = 1;  FENCE;  if (pending) stay awake; else sleep on the pipe;  waiting = 0
//
// To sleep on a word and be woken there takes one system call of each end, and its deadline costs next to nothing; a pipe
// takes one more, which empties it, and a dearer sleep. But nothing tells of a peer's end there, nor can many be slept on
// at once: so a wait that lasts goes on at the pipe, and a Waiter begins there.
//
// The pipe is drained before the next sleep and not after this one, where the woken has something better to do and the
// writer still holds the pipe's lock. Whatever is drained belongs to events that the look after the fence would find.
//
// Without either fence both may read the old value of the other's word, and the wake-up is lost (a model check in the
// tests shows it). A pipe per direction and not an eventfd: an eventfd handed to two processes is one open file
// description, so a hostile peer could make our write block.
//
// What decides (whether we sleep, mask, what was closed) is private; a shared word is read once and at worst costs this
// channel a wake-up or a needless one. Why raw access is in bounds: the page holds a ChannelPage (checked at binding)
// and both lines are chosen by `side`, which is ours.
#pragma once

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string>

#include "event_faults.hpp"
#include "faults.hpp"
#include "futex.hpp"
#include "layouts.hpp"
#include "pipe_end.hpp"
#include "spin.hpp"
#include "trace.hpp"

namespace hvd {

struct DoorbellStatistics {
    std::uint64_t notified = 0;     // notify() and its kin
    std::uint64_t rung = 0;         // of these: the peer slept and was woken
    std::uint64_t taken = 0;        // events received
    std::uint64_t spins_hit = 0;    // waits that polling ended
    std::uint64_t spins_missed = 0; // waits that polled in vain and slept
    std::uint64_t yields = 0;       // polls that gave up a CPU shared with the peer
    std::uint64_t crowded = 0;      // waits that gave up polling, since others wanted the CPU
    std::uint64_t sleeps = 0;
    std::uint64_t lasted = 0;       // of these: went on at the pipe
    std::uint64_t wakeups = 0;      // sleeps that an event ended
};

/// A wait that was woken for nothing so often is interrupted: a signal that comes while a peer keeps waking us ends no sleep.
inline constexpr int in_vain_most = 64;

#if defined(HVD_ON_WORD_MOST_NS)  // for the test in which whoever is not woken there is not to wake
inline constexpr std::int64_t on_word_most_ns = HVD_ON_WORD_MOST_NS;
#else
/// How long a sleeper may not see that nobody can ring it any more. Longer than a tick of the kernel's, so that its timer is
/// mostly not the next one that is due, and costs no programming of the hardware.
inline constexpr std::int64_t on_word_most_ns = 20'000'000;
#endif

class Doorbell {
public:
    /// Owns both descriptors from the moment the constructor returns; either may be -1.
    Doorbell(std::byte* page, std::size_t page_bytes, int side, int rx_fd, int tx_fd) {
        if (side != 0 && side != 1) {
            throw LocalError("an endpoint's side is 0 or 1, not " + std::to_string(side));
        }
        if (page_bytes < sizeof(ChannelPage) || reinterpret_cast<std::uintptr_t>(page) % alignof(ChannelPage) != 0) {
            throw LocalError("a channel page holds at least " + std::to_string(sizeof(ChannelPage)) + " bytes and is page aligned");
        }
        for (const int fd : {rx_fd, tx_fd}) {
            if (fd != -1) {
                detail::set_non_blocking(fd);
            }
        }
        auto* lines = reinterpret_cast<ChannelPage*>(page)->lines;
        in_ = &lines[side];
        out_ = &lines[1 - side];
        rx_fd_ = rx_fd;
        tx_fd_ = tx_fd;
    }

    ~Doorbell() { close(); }
    Doorbell(const Doorbell&) = delete;
    Doorbell& operator=(const Doorbell&) = delete;

    bool is_open() const { return in_ != nullptr; }
    int rx_fd() const { return rx_fd_; }

    /// Raises the event at the other end; a system call only if that end sleeps.
    void notify() {
        check_open();
        if (trace::on()) [[unlikely]] {
            notify_watched();  // with all the rest: a call before it would cost the hot path a register
            return;
        }
        raise();
    }

    /// Raises the event whatever the other end advertises: for a sender that may have died between the word and the pipe.
    void kick() {
        check_open();
        if (trace::on()) [[unlikely]] {
            trace::record(trace::Kind::notify, trace_port, 0, 0);
        }
        ++statistics_.notified;
        store_fenced(out_->pending, 1U);
        ring_whatever();
    }

    void mark_closed() {
        check_open();
        store_fenced(out_->closed, 1U);
        kick();
    }

    void mark_open() {
        check_open();
        store_fenced(out_->closed, 0U);
    }

    /// Behind the store by which we advertise that we sleep, so no weaker load will do: it may overtake that store (ldapr).
    bool pending() const { return load_fenced(in_->pending) != 0; }

    /// Takes the event, if there is one. A poll that finds nothing only reads, and so leaves the cache line shared.
    bool take() {
        check_open();
        if (!pending() || exchange_fenced(in_->pending, 0U) == 0) {
            return false;
        }
        ++statistics_.taken;
        if (trace::on()) [[unlikely]] {
            trace::record(trace::Kind::event, trace_port, 0, 0);
        }
        return true;
    }

    /// The other end said so, or nobody holds the sending end of our pipe any more.
    bool peer_closed() const {
        check_open();
        return hung_up_ || load_acquire(in_->closed) != 0;
    }

    bool peer_asleep() const {
        check_open();
        return is_asleep(load_acquire(out_->cpu));
    }

    /// The event that was raised last is still there: the other end has not taken it.
    bool untaken() const {
        check_open();
        return load_acquire(out_->pending) != 0;
    }

    /// Where the peer said it runs, or last ran. Any value: compare it, index nothing with it.
    std::int32_t untrusted_peer_cpu() const { return load_relaxed(out_->cpu); }

    bool hung_up() const { return hung_up_; }

    // The three steps of sleeping, for whoever owns the sleep (`wait` below, or a Waiter over many doorbells).

    /// From here on a notifier writes the pipe; `pending()` must be looked at once more before sleeping.
    void arm() { arm_by(woken_by_pipe); }

    void disarm(std::int32_t cpu) {
        store_relaxed(in_->waiting, awake);
        published_cpu_ = cpu;
        store_relaxed(in_->cpu, cpu);
    }

    void publish_cpu(std::int32_t cpu) {
        if (cpu != published_cpu_) {
            published_cpu_ = cpu;
            store_relaxed(in_->cpu, cpu);
        }
    }

    /// Empties the pipe as far as one read goes; a peer that wrote more than one byte costs only itself and this call.
    void drain() {
        char bytes[page_size];
        if (::read(rx_fd_, bytes, sizeof bytes) == 0) {
            hung_up_ = true;
        }
    }

    /// Polls without giving up anything, for at most as long as 16 pauses: true if an event was taken.
    bool wait_briefly(std::int64_t spin_ns) {
        check_may_wait();
        if (take() || hung_up_) {
            return true;
        }
        if (budget_of(spin_ns) == 0) {
            return false;
        }
        const bool hit = !shares_cpu() && spin_briefly([this] { return take(); });
        statistics_.spins_hit += hit ? 1 : 0;
        return hit;
    }

    /// Polls, then sleeps, until an event is taken or the deadline passes. With nobody left who could ring it returns
    /// `ready` at once and always, so that nobody sleeps on a dead channel for ever. `interrupted`: look at signals, and go on.
    Wake wait(std::int64_t deadline_ns, std::int64_t spin_ns) {
        const bool may_poll = spin_ns != 0;  // who may not learns nothing about polling, and needs no clock for it
        const std::int64_t began = may_poll ? now_ns() : 0;
        const std::int64_t budget = budget_of(spin_ns);
        Crowding crowding(spin_ns < 0);
        const bool hit = budget > 0 && spin_until(began, std::min(began + budget, deadline_ns), yielding_, crowding,
                                                  [this] { return take(); }, [this] { return shares_cpu(); });
        statistics_.crowded += crowding.seen() ? 1 : 0;
        if (hit) {
            ++statistics_.spins_hit;
            return Wake::ready;
        }
        statistics_.spins_missed += budget > 0 ? 1 : 0;
        for (int in_vain = 0; in_vain < in_vain_most; ++in_vain) {
            const Wake wake = sleep(deadline_ns);
            if (wake == Wake::interrupted) {
                return wake;
            }
            if (take() || hung_up_) {
                ++statistics_.wakeups;
                if (may_poll) {
                    adaptive_.missed(now_ns() - began, true);
                }
                return Wake::ready;
            }
            if (now_ns() >= deadline_ns) {
                if (may_poll) {
                    adaptive_.missed(now_ns() - began, false);
                }
                return Wake::timed_out;
            }
        }
        return Wake::interrupted;
    }

    DoorbellStatistics statistics() const {
        DoorbellStatistics copy = statistics_;
        copy.yields = yielding_.yields();
        return copy;
    }

    /// Closes the descriptors and forgets the page. Idempotent.
    void close() {
        for (int* fd : {&rx_fd_, &tx_fd_}) {
            if (*fd != -1) {
                ::close(*fd);
                *fd = -1;
            }
        }
        in_ = out_ = nullptr;
    }

    bool bound_to_waiter = false;
    /// What records call it; 0: nobody bound it to a port.
    std::uint32_t trace_port = 0;
    /// Set while a thread waits without the interpreter lock; whoever could pull memory from under it must look here.
    bool busy = false;

    void check_open() const {
        if (in_ == nullptr) [[unlikely]] {
            throw LocalError("the endpoint is closed");
        }
    }

private:
    void check_may_wait() const {
        check_open();
        if (rx_fd_ == -1 || bound_to_waiter || busy) [[unlikely]] {
            throw LocalError(rx_fd_ == -1      ? "this endpoint only sends: it has no descriptor to wait on"
                             : bound_to_waiter ? "this endpoint is bound to a waiter: wait there"
                                               : "another thread waits on this endpoint");
        }
    }

    /// With the peer, where it runs or slept.
    bool shares_cpu() {
        publish_cpu(current_cpu());
        return cpu_of(untrusted_peer_cpu()) == published_cpu_;
    }

    void raise() {
        store_relaxed(out_->sent, ++statistics_.notified);  // in the line that the next store takes anyway
        store_fenced(out_->pending, 1U);
        if (load_fenced(out_->waiting) != awake) {
            ring(exchange_fenced(out_->waiting, awake));
        }
    }

    void ring(std::uint32_t untrusted_waiting) {
        if (untrusted_waiting == woken_by_word) {
            ++statistics_.rung;
            futex::wake(out_->waiting);
        } else if (untrusted_waiting != awake) {
            ++statistics_.rung;
            write_pipe();
        }
    }

    /// A word that stays as the sleeper left it would let it lie down again.
    void ring_whatever() {
        ++statistics_.rung;
        exchange_fenced(out_->waiting, awake);
        futex::wake(out_->waiting);
        write_pipe();
    }

    [[gnu::noinline]] void notify_watched() {
        trace::record(trace::Kind::notify, trace_port, 0, 0);
        const std::uint64_t times = event_faults::times_to_send();
        if (times != 0) {
            raise();
        }
        for (std::uint64_t more = 1; more < times; ++more) {
            store_fenced(out_->pending, 1U);
            ring_whatever();
        }
    }

    std::int64_t budget_of(std::int64_t spin_ns) const { return spin_ns < 0 ? adaptive_.budget_ns() : spin_ns; }

    void write_pipe() {
        if (tx_fd_ != -1) {
            detail::write_byte_quietly(tx_fd_);
        }
    }

    void arm_by(std::uint32_t waiting) {
        store_relaxed(in_->cpu, asleep_on(published_cpu_));
        store_fenced(in_->waiting, waiting);
    }

    /// On the word, and what lasts longer on the pipe.
    Wake sleep(std::int64_t deadline_ns) {
        if (hung_up_) {
            return Wake::ready;
        }
        const std::int64_t left_ns = deadline_ns == never_ns ? never_ns : std::max<std::int64_t>(deadline_ns - now_ns(), 0);
        const Wake wake = armed(woken_by_word, [&] {
            ++statistics_.sleeps;
            return futex::wait(in_->waiting, woken_by_word, std::min(left_ns, on_word_most_ns));
        });
        if (wake == Wake::ready) {
            return wake;
        }
        drain();
        if (hung_up_ || wake == Wake::interrupted || left_ns <= on_word_most_ns) {
            return hung_up_ ? Wake::ready : wake;
        }
        ++statistics_.lasted;
        return armed(woken_by_pipe, [&] { return sleep_on_pipe(deadline_ns); });
    }

    /// Advertises what wakes us, looks once more, and only then sleeps.
    template <class Sleep>
    Wake armed(std::uint32_t waiting, Sleep&& sleep) {
        struct Disarm {
            Doorbell& bell;
            ~Disarm() { bell.disarm(current_cpu()); }
        };
        arm_by(waiting);
        const Disarm disarm{*this};
        return pending() ? Wake::ready : sleep();
    }

    Wake sleep_on_pipe(std::int64_t deadline_ns) {
        pollfd pipe{rx_fd_, POLLIN, 0};
        const timespec left = deadline_ns == never_ns ? timespec{} : until(deadline_ns);
        const int woken = ::ppoll(&pipe, 1, deadline_ns == never_ns ? nullptr : &left, nullptr);
        if (woken < 0 && errno != EINTR) {
            throw LocalError(std::string("ppoll: ") + std::strerror(errno));
        }
        hung_up_ |= woken > 0 && (pipe.revents & POLLIN) == 0;  // POLLHUP alone: nobody can write it again
        return woken > 0 ? Wake::ready : woken == 0 ? Wake::timed_out : Wake::interrupted;
    }

    ChannelLine* in_ = nullptr;
    ChannelLine* out_ = nullptr;
    int rx_fd_ = -1;
    int tx_fd_ = -1;
    bool hung_up_ = false;
    std::int32_t published_cpu_ = cpu_unknown;
    SpinBudget adaptive_{spin_limit_default_ns};
    Yielding yielding_;
    DoorbellStatistics statistics_;
};

}  // namespace hvd
