// A domain's upcall vector: waits on many event channels, their rings and a few other descriptors at once.
//
// A port is in one of three private states. *Polled*: the receiver looks at its words, and nobody writes its pipe.
// *Armed*: it advertises that we sleep, so its next event writes the pipe and shows up in the epoll set. *Masked*: looked
// at by nobody until unmasked. Going to sleep arms the polled ports and looks once more (see doorbell.hpp); waking polls
// again those that were active lately. So a wait costs what the active ports cost, however many are bound, and a quiet
// port costs nothing.
//
// A notification may be lost: a peer died before it, or has a broken transport, or a fault was injected. A ring whose owner waits
// for an event that never comes would stand still for ever, since its peer notifies no second time. So whoever has rings looks at
// all of them now and then, at most once in `look_again_most_ns` while nothing is found.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "console_ring.hpp"
#include "doorbell.hpp"
#include "epoll_set.hpp"
#include "ring.hpp"

namespace hvd {

struct WaiterStatistics {
    std::uint64_t waits = 0;
    std::uint64_t spins_hit = 0;     // waits that polling ended
    std::uint64_t spins_missed = 0;  // waits that polled in vain
    std::uint64_t yields = 0;        // polls that gave up a CPU shared with the peers
    std::uint64_t crowded = 0;       // waits that gave up polling, since others wanted the CPU
    std::uint64_t sleeps = 0;
    std::uint64_t wakeups = 0;       // sleeps that ended with something ready
    std::uint64_t idle_wakeups = 0;  // sleeps that ended with nothing: a stale byte, a masked port, junk from a peer
    std::uint64_t delivered = 0;     // ports and tokens handed out
    std::uint64_t found = 0;         // of these: work in a ring that nobody had notified of
};

class Waiter {
public:
    static constexpr std::size_t ports_max = 4096;
    static constexpr std::size_t fds_max = 64;

    explicit Waiter(std::int64_t spin_limit_ns) : adaptive_(spin_limit_ns) {}

    ~Waiter() { close(); }
    Waiter(const Waiter&) = delete;
    Waiter& operator=(const Waiter&) = delete;

    /// Binds a port (> 0). The doorbell must outlive its binding and is waited on nowhere else.
    void add(std::int64_t port, Doorbell& bell) {
        check_idle();
        bell.check_open();
        if (port <= 0 || slots_.contains(port)) {
            throw LocalError("port " + std::to_string(port) + (port <= 0 ? " is not positive" : " is bound to this waiter already"));
        }
        if (slots_.size() >= ports_max) {
            throw LocalError("a waiter binds at most " + std::to_string(ports_max) + " ports");
        }
        if (bell.rx_fd() == -1 || bell.bound_to_waiter || bell.busy) {
            throw LocalError("port " + std::to_string(port) + ": its endpoint cannot receive or is waited on elsewhere");
        }
        epoll_.add(port, bell.rx_fd());
        auto slot = std::make_unique<Slot>(port, bell);
        bell.bound_to_waiter = true;
        bell.trace_port = static_cast<std::uint32_t>(port);
        poll_again(*slot);
        slots_.emplace(port, std::move(slot));
        reserve();
    }

    void remove(std::int64_t port) {
        check_idle();
        Slot& slot = at(port);
        detach_rings(port);
        detach_console(port);
        leave_polled(slot);
        slot.bell.disarm(current_cpu());
        slot.bell.bound_to_waiter = false;
        epoll_.remove(slot.bell.rx_fd());
        slots_.erase(port);
    }

    /// Unconsumed work on the ring makes the port ready too; the ring must outlive the attachment. A port may have two: of a device
    /// with one channel for both.
    void attach_ring(std::int64_t port, Ring& ring) {
        check_idle();
        Slot& slot = at(port);
        if (slot.second != nullptr || ring.attached_to_waiter) {
            throw LocalError("port " + std::to_string(port) + ": " +
                             (slot.second != nullptr ? "it has two rings already" : "the ring is attached to a port already"));
        }
        (slot.ring == nullptr ? slot.ring : slot.second) = &ring;
        ++rings_;
        ring.attached_to_waiter = true;
        ring.trace_port = static_cast<std::uint32_t>(port);
        if (slot.state == State::armed) {
            poll_again(slot);
        }
    }

    /// One ring of the port, if it is attached there.
    void detach_ring(std::int64_t port, const Ring& ring) {
        check_idle();
        Slot& slot = at(port);
        if (slot.second == &ring) {
            let_go(slot.second);
        } else if (slot.ring == &ring) {
            let_go(slot.ring);
            slot.ring = std::exchange(slot.second, nullptr);
        }
    }

    /// Every ring of the port.
    void detach_rings(std::int64_t port) {
        check_idle();
        Slot& slot = at(port);
        let_go(slot.second);
        let_go(slot.ring);
    }

    /// Bytes, not requests: it is notified of each, so it is looked at only where a notification may have been lost.
    void attach_console(std::int64_t port, ConsoleRing& console) {
        check_idle();
        Slot& slot = at(port);
        if (slot.console != nullptr) {
            throw LocalError("port " + std::to_string(port) + ": it has a console already");
        }
        slot.console = &console;
        ++rings_;
    }

    void detach_console(std::int64_t port) {
        check_idle();
        Slot& slot = at(port);
        rings_ -= slot.console != nullptr ? 1 : 0;
        slot.console = nullptr;
    }

    /// False: it was masked already.
    bool mask(std::int64_t port) {
        check_idle();
        Slot& slot = at(port);
        if (slot.state == State::masked) {
            return false;
        }
        leave_polled(slot);
        slot.bell.disarm(current_cpu());
        slot.state = State::masked;
        return true;
    }

    /// What became pending meanwhile is delivered by the next wait.
    void unmask(std::int64_t port) {
        check_idle();
        Slot& slot = at(port);
        if (slot.state == State::masked) {
            poll_again(slot);
        }
    }

    /// A further descriptor, level-triggered, reported as its token (< 0). Not owned.
    void watch_fd(std::int64_t token, int fd) {
        check_idle();
        if (token >= 0 || fds_.contains(token)) {
            throw LocalError("token " + std::to_string(token) + (token >= 0 ? " is not negative" : " is watched already"));
        }
        if (fds_.size() >= fds_max) {
            throw LocalError("a waiter watches at most " + std::to_string(fds_max) + " descriptors beside its ports");
        }
        epoll_.add(token, fd);
        fds_.emplace(token, fd);
        reserve();
    }

    void unwatch_fd(std::int64_t token) {
        check_idle();
        const auto found = fds_.find(token);
        if (found == fds_.end()) {
            throw LocalError("token " + std::to_string(token) + " is not watched by this waiter");
        }
        epoll_.remove(found->second);
        fds_.erase(found);
    }

    /// Begins a wait: looks at everything that can be looked at without a system call, and polls for at most 16 pauses.
    /// True: `ready()` is the answer (empty if the timeout is 0 and nothing came). False: go on with `block`.
    bool begin(bool mask_delivered, bool may_block) {
        check_idle();
        ++statistics_.waits;
        mask_delivered_ = mask_delivered;
        ready_.clear();
        follow_cpu();
        collect();
        if (ready_.empty() && may_block && budget_ns() > 0) {
            const bool hit = !shares_cpu() && spin_briefly([this] { return collect(); });
            statistics_.spins_hit += hit ? 1 : 0;
        }
        if (!may_block) {
            look_at_epoll(0);
        } else if (!ready_.empty()) {
            look_at_epoll_if_due();
        }
        return !ready_.empty() || !may_block;
    }

    /// Polls, then sleeps, until something is ready or the deadline passes. Runs without the interpreter lock. `interrupted`: look
    /// at signals, and go on.
    Wake block(std::int64_t deadline_ns) {
        const std::int64_t began = now_ns();
        const std::int64_t budget = budget_ns();
        if (budget > 0 && !polled_.empty()) {
            Crowding crowding(spin_ns < 0);
            const bool hit = spin_until(began, std::min(began + budget, deadline_ns), yielding_, crowding, [this] { return collect(); },
                                        [this] { return shares_cpu(); });
            statistics_.crowded += crowding.seen() ? 1 : 0;
            if (hit) {
                ++statistics_.spins_hit;
                look_at_epoll_if_due();
                return Wake::ready;
            }
            ++statistics_.spins_missed;
        }
        if (began >= look_at_ns() && look_again(false)) {
            return Wake::ready;
        }
        for (int in_vain = 0; in_vain < in_vain_most; ++in_vain) {
            const Wake wake = sleep(std::min(deadline_ns, look_at_ns()));
            if (wake == Wake::timed_out && now_ns() >= look_at_ns() && look_again(true)) {
                return Wake::ready;
            }
            if (wake != Wake::timed_out) {
                if (wake == Wake::ready) {
                    adaptive_.missed(now_ns() - began, woken_by_polled_);
                }
                return wake;
            }
            if (now_ns() >= deadline_ns) {
                adaptive_.missed(never_ns, false);
                return Wake::timed_out;
            }
        }
        return Wake::interrupted;
    }

    const std::vector<std::int64_t>& ready() const { return ready_; }

    /// Takes from `ready()` what `dealt_with` says; whether there was something, and nothing is left.
    template <class DealtWith>
    bool settle(DealtWith&& dealt_with) {
        return std::erase_if(ready_, dealt_with) != 0 && ready_.empty();
    }

    WaiterStatistics statistics() const {
        WaiterStatistics copy = statistics_;
        copy.yields = yielding_.yields();
        return copy;
    }

    /// Unbinds everything and closes the epoll set. Idempotent.
    void close() {
        if (!epoll_.is_open()) {
            return;
        }
        while (!slots_.empty()) {
            remove(slots_.begin()->first);
        }
        fds_.clear();
        epoll_.close();
    }

    /// Set while a thread is in `block` without the interpreter lock: nobody else may change the set then.
    bool busy = false;
    /// How long to poll before sleeping, as `Doorbell::wait` has it: -1 is adaptive, 0 not at all.
    std::int64_t spin_ns = -1;

private:
    enum class State { polled, armed, masked };

    struct Slot {
        Slot(std::int64_t port_, Doorbell& bell_) : port(port_), bell(bell_) {}
        std::int64_t port;
        Doorbell& bell;
        Ring* ring = nullptr;
        Ring* second = nullptr;  // only beside the first
        ConsoleRing* console = nullptr;
        State state = State::armed;
        int quiet_sleeps = 0;
        std::size_t polled_at = 0;         // index in polled_, while polled
        std::uint64_t delivered_in = 0;    // the wait that delivered it last
        bool hang_up_delivered = false;
    };

    /// A port that stayed silent over this many sleeps is left armed, and costs nothing until it rings.
    static constexpr int quiet_sleeps_max = 8;
    /// How long a waiter that is never idle may leave its epoll set unlooked at.
    static constexpr std::int64_t epoll_interval_ns = 250'000;
    static constexpr std::int64_t look_again_least_ns = 10'000'000, look_again_most_ns = 1'000'000'000;

    void check_idle() const {
        if (busy || !epoll_.is_open()) [[unlikely]] {
            throw LocalError(busy ? "another thread waits on this waiter" : "the waiter is closed");
        }
    }

    Slot& at(std::int64_t port) {
        const auto found = slots_.find(port);
        if (found == slots_.end()) {
            throw LocalError("port " + std::to_string(port) + " is not bound to this waiter");
        }
        return *found->second;
    }

    /// Nothing is allocated while waiting.
    void reserve() {
        ready_.reserve(slots_.size() + fds_.size());
        polled_.reserve(slots_.size());
    }

    void poll_again(Slot& slot) {
        slot.bell.disarm(cpu_);
        slot.state = State::polled;
        slot.quiet_sleeps = 0;
        slot.polled_at = polled_.size();
        polled_.push_back(&slot);
    }

    void leave_polled(Slot& slot) {
        if (slot.state == State::polled) {
            polled_.back()->polled_at = slot.polled_at;
            polled_[slot.polled_at] = polled_.back();
            polled_.pop_back();
            slot.state = State::armed;
        }
    }

    static bool has_work(const Slot& slot) {
        return slot.ring != nullptr && (slot.ring->has_work() || (slot.second != nullptr && slot.second->has_work()));
    }

    /// Once for each: whoever does not look into the console then has lost it.
    static bool has_news(const Slot& slot) { return slot.console != nullptr && slot.console->has_news(); }

    void let_go(Ring*& ring) {
        if (ring != nullptr) {
            ring->attached_to_waiter = false;
            ring = nullptr;
            --rings_;
        }
    }

    static bool is_due(const Slot& slot) {
        return slot.bell.pending() || has_work(slot) ||
               (slot.bell.hung_up() && !slot.hang_up_delivered);
    }

    /// Once per wait, although the pending word, the ring and the pipe may each tell of the same port.
    void deliver(Slot& slot) {
        if (slot.delivered_in == statistics_.waits) {
            return;
        }
        slot.bell.take();
        slot.delivered_in = statistics_.waits;
        slot.hang_up_delivered = slot.bell.hung_up();
        slot.quiet_sleeps = 0;
        ready_.push_back(slot.port);
        ++statistics_.delivered;
        if (mask_delivered_) {
            leave_polled(slot);
            slot.bell.disarm(cpu_);
            slot.state = State::masked;
        }
    }

    std::int64_t budget_ns() const { return spin_ns < 0 ? adaptive_.budget_ns() : spin_ns; }

    bool collect() {
        for (std::size_t i = polled_.size(); i-- > 0;) {  // backwards: delivering may move the last one here
            if (is_due(*polled_[i])) {
                deliver(*polled_[i]);
            }
        }
        return !ready_.empty();
    }

    void follow_cpu() {
        const std::int32_t cpu = current_cpu();
        if (cpu != cpu_) {
            cpu_ = cpu;
            for (Slot* slot : polled_) {
                slot->bell.publish_cpu(cpu);
            }
        }
    }

    bool shares_cpu() {
        follow_cpu();
        PeerPlaces peers;
        for (const Slot* slot : polled_) {
            peers.see(slot->bell.untrusted_peer_cpu(), cpu_);
        }
        return peers.need_our_cpu();
    }

    /// Arms the polled ports, looks once more, sleeps. `timed_out` means only: nothing was ready yet.
    Wake sleep(std::int64_t deadline_ns) {
        for (Slot* slot : polled_) {
            slot->bell.arm();
            for (Ring* ring : {slot->ring, slot->second}) {
                if (ring != nullptr) {
                    ring->arm();
                }
            }
        }
        woken_by_polled_ = true;
        Wake wake = Wake::ready;
        if (!collect()) {
            ++statistics_.sleeps;
            woken_by_polled_ = false;
            wake = look_at_epoll(deadline_ns);
            ++(ready_.empty() ? statistics_.idle_wakeups : statistics_.wakeups);
        }
        wake_polled();
        return !ready_.empty() ? Wake::ready : wake == Wake::interrupted ? wake : Wake::timed_out;
    }

    /// After a sleep: ports active lately are polled again, the others stay armed.
    void wake_polled() {
        follow_cpu();
        for (std::size_t i = polled_.size(); i-- > 0;) {
            Slot& slot = *polled_[i];
            if (++slot.quiet_sleeps > quiet_sleeps_max) {
                leave_polled(slot);
            } else {
                slot.bell.disarm(cpu_);
            }
        }
    }

    /// When all rings are to be looked at.
    std::int64_t look_at_ns() const { return rings_ == 0 ? never_ns : looked_again_ns_ + look_again_ns_; }

    /// Delivers what lies in rings although nobody has notified of it. A ring that we poll is looked at by each wait: what is in
    /// it was notified of, or will be, unless we have slept on it.
    bool look_again(bool slept) {
        std::uint64_t found = 0;
        for (auto& [port, slot] : slots_) {
            const bool told = slot->state == State::masked || (slot->state == State::polled && !slept) || slot->bell.pending();
            if (!told && (has_work(*slot) || has_news(*slot))) {
                if (slot->state == State::armed) {
                    poll_again(*slot);
                }
                deliver(*slot);
                ++found;
            }
        }
        statistics_.found += found;
        trace::count(trace::Count::found, found);
        look_again_ns_ = found != 0 ? look_again_least_ns : std::min(2 * look_again_ns_, look_again_most_ns);
        looked_again_ns_ = now_ns();
        return found != 0;
    }

    void look_at_epoll_if_due() {
        const bool nothing_there = fds_.empty() && polled_.size() == slots_.size();
        if (!nothing_there && now_ns() - epoll_.looked_at_ns() >= epoll_interval_ns) {
            look_at_epoll(0);
        }
    }

    Wake look_at_epoll(std::int64_t deadline_ns) {
        return epoll_.look(deadline_ns, [this](std::int64_t key) {
            if (key < 0) {
                ready_.push_back(key);
                ++statistics_.delivered;
            } else {
                rung(*slots_.at(key));
            }
        });
    }

    /// A port's pipe was readable. Whether that means an event, the pending word says; the byte alone means nothing.
    void rung(Slot& slot) {
        slot.bell.drain();
        if (slot.bell.hung_up()) {  // readable for ever, and nobody can ring it again
            epoll_.remove(slot.bell.rx_fd());
        }
        woken_by_polled_ |= slot.state == State::polled;
        if (slot.state == State::armed) {
            poll_again(slot);
        }
        if (slot.state == State::polled && is_due(slot)) {
            deliver(slot);
        }
    }

    SpinBudget adaptive_;
    Yielding yielding_;
    EpollSet epoll_;
    std::size_t rings_ = 0;
    std::int64_t look_again_ns_ = look_again_most_ns;
    std::int64_t looked_again_ns_ = now_ns();
    bool mask_delivered_ = false;
    bool woken_by_polled_ = false;
    std::int32_t cpu_ = cpu_unknown;
    std::unordered_map<std::int64_t, std::unique_ptr<Slot>> slots_;
    std::unordered_map<std::int64_t, int> fds_;
    std::vector<Slot*> polled_;
    std::vector<std::int64_t> ready_;
    WaiterStatistics statistics_;
};

}  // namespace hvd
