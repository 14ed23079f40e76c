// Doorbell and waiter without Python: two threads as the two sides of channels, asleep and spinning, with and without rings.
// Whoever sleeps on the word is left there: a wake-up that is lost hangs, instead of being found again at the pipe.
#define HVD_ON_WORD_MOST_NS never_ns

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "../../transport/native/waiter.hpp"
#include "expect.hpp"

namespace {

using hvd::Doorbell;
using hvd::Ring;
using hvd::RingEnd;
using hvd::Waiter;
using hvd::Wake;

constexpr int rounds = 4'000;

int dup_of(int fd) { return ::fcntl(fd, F_DUPFD_CLOEXEC, 0); }

struct Channel {
    Channel() {
        page.lines[0].cpu = page.lines[1].cpu = hvd::cpu_unknown;
        EXPECT(::pipe2(to_0, O_NONBLOCK | O_CLOEXEC) == 0 && ::pipe2(to_1, O_NONBLOCK | O_CLOEXEC) == 0);
        ends[0] = std::make_unique<Doorbell>(bytes(), sizeof page, 0, to_0[0], to_1[1]);
        ends[1] = std::make_unique<Doorbell>(bytes(), sizeof page, 1, to_1[0], to_0[1]);
    }
    std::byte* bytes() { return reinterpret_cast<std::byte*>(&page); }
    hvd::ChannelPage page{};
    int to_0[2];
    int to_1[2];
    std::unique_ptr<Doorbell> ends[2];
};

void wait_for(Doorbell& bell, std::int64_t spin_ns) {
    if (!bell.wait_briefly(spin_ns)) {
        EXPECT(bell.wait(hvd::never_ns, spin_ns) == Wake::ready);
    }
}

/// A lost wake-up hangs here, and the watchdog tells.
void no_wakeup_is_lost(std::int64_t spin_ns) {
    Channel channel;
    std::thread echo([&] {
        for (int i = 0; i < rounds; ++i) {
            wait_for(*channel.ends[1], spin_ns);
            channel.ends[1]->notify();
        }
    });
    for (int i = 0; i < rounds; ++i) {
        channel.ends[0]->notify();
        wait_for(*channel.ends[0], spin_ns);
    }
    echo.join();
    EXPECT(channel.ends[0]->statistics().taken == rounds);
}

/// Which of both happens first is fate's: the word is cleared before the sleeper has lain down, or behind.
void a_kick_wakes_one_on_the_word_whose_notifier_died_half_way() {
    for (int i = 0; i < rounds / 10; ++i) {
        Channel channel;
        std::thread sleeper([&] { wait_for(*channel.ends[1], 0); });
        while (hvd::load_acquire(channel.page.lines[1].waiting) != hvd::woken_by_word) {
            ::sched_yield();
        }
        hvd::store_fenced(channel.page.lines[1].pending, 1U);
        hvd::exchange_fenced(channel.page.lines[1].waiting, hvd::awake);
        channel.ends[0]->kick();
        sleeper.join();
    }
}

/// Neither clearing the word nor waking for nothing makes a sleeper miss its deadline.
void a_sleeper_on_a_scribbled_word_wakes_by_its_deadline() {
    Channel channel;
    std::atomic<bool> done = false;
    std::thread scribbler([&] {
        for (std::uint32_t junk = 1; !done; junk = junk * 1664525 + 1013904223) {
            hvd::store_relaxed(channel.page.lines[1].waiting, junk >> 30);
            hvd::futex::wake(channel.page.lines[1].waiting);
        }
    });
    for (int i = 0; i < 20; ++i) {
        const std::int64_t deadline = hvd::now_ns() + 2'000'000;
        Wake wake;
        do {
            wake = channel.ends[1]->wait(deadline, 0);
        } while (wake == Wake::interrupted);
        EXPECT(wake == Wake::timed_out && hvd::now_ns() >= deadline);
    }
    EXPECT(channel.ends[1]->wait(hvd::never_ns, 0) == Wake::interrupted);  // its signals are looked at all the same
    done = true;
    scribbler.join();
}

std::vector<std::int64_t> wait_for(Waiter& waiter) {
    if (!waiter.begin(false, true)) {
        EXPECT(waiter.block(hvd::never_ns) == Wake::ready);
    }
    return waiter.ready();
}

/// One waiter over several channels with rings; each client keeps one request in flight and rings only if told to.
void a_waiter_serves_every_ring(std::int64_t spin_limit_ns) {
    constexpr int clients = 3;
    static constexpr hvd::RingShape shape{8, 8, 8};
    struct Client {
        Channel channel;
        alignas(64) std::array<std::uint64_t, 8 + 4> memory{};
        std::span<std::byte> span() { return std::as_writable_bytes(std::span(memory)); }
    };
    std::vector<std::unique_ptr<Client>> all;
    std::vector<std::thread> threads;
    Waiter waiter(spin_limit_ns);
    std::vector<std::unique_ptr<Ring>> backs;
    for (int number = 0; number < clients; ++number) {
        all.push_back(std::make_unique<Client>());
        Client& client = *all.back();
        Ring(RingEnd::front, client.span(), shape).init();
        backs.push_back(std::make_unique<Ring>(RingEnd::back, client.span(), shape));
        waiter.add(number + 1, *client.channel.ends[1]);
        waiter.attach_ring(number + 1, *backs.back());
    }
    for (auto& client : all) {
        threads.emplace_back([&client = *client] {
            Ring front(RingEnd::front, client.span(), shape);
            Doorbell& bell = *client.channel.ends[0];
            for (std::uint64_t i = 0; i < rounds; ++i) {
                if (front.push(&i, sizeof i)) {
                    bell.notify();
                }
                std::uint64_t answer = 0;
                while (front.pop_many(&answer, 1) == 0) {
                    if (!front.final_check()) {
                        wait_for(bell, -1);
                    }
                }
                EXPECT(answer == i + 1);
            }
        });
    }
    for (int answered = 0; answered < clients * rounds;) {
        for (const std::int64_t port : wait_for(waiter)) {
            Ring& back = *backs[static_cast<std::size_t>(port - 1)];
            std::uint64_t request = 0;
            while (back.pop_many(&request, 1) == 1) {
                ++request;
                if (back.push(&request, sizeof request)) {
                    all[static_cast<std::size_t>(port - 1)]->channel.ends[1]->notify();
                }
                ++answered;
            }
        }
    }
    for (auto& thread : threads) {
        thread.join();
    }
    waiter.close();
}

void a_masked_port_is_kept_for_later() {
    Channel channel;
    Waiter waiter(0);
    waiter.add(1, *channel.ends[1]);
    std::thread notifier([&] {
        for (int i = 0; i < rounds; ++i) {
            channel.ends[0]->notify();
        }
        channel.ends[0]->mark_closed();
    });
    int delivered = 0;
    while (!channel.ends[1]->peer_closed() || channel.ends[1]->pending()) {
        if (!waiter.begin(true, true)) {
            waiter.block(hvd::never_ns);
        }
        delivered += static_cast<int>(waiter.ready().size());
        waiter.unmask(1);
    }
    notifier.join();
    EXPECT(delivered >= 1 && delivered <= rounds + 1);
    waiter.close();
}

/// A peer that writes junk into its page all the time costs this channel, not the next.
void a_scribbling_peer_harms_nobody_else() {
    Channel hostile;
    Channel honest;
    Waiter waiter(20'000);
    waiter.add(1, *hostile.ends[1]);
    waiter.add(2, *honest.ends[1]);
    std::atomic<bool> done = false;
    std::thread scribbler([&] {
        std::uint32_t junk = 1;
        const int full = dup_of(hostile.to_1[1]);
        while (!done) {
            junk = junk * 1664525 + 1013904223;
            for (auto& line : hostile.page.lines) {
                hvd::store_relaxed(line.pending, junk & 1);
                hvd::store_relaxed(line.waiting, junk >> 7);
                hvd::store_relaxed(line.cpu, static_cast<std::int32_t>(junk));
                hvd::store_relaxed(line.closed, junk >> 3);
            }
            (void)!::write(full, "junk", 4);
        }
        ::close(full);
    });
    std::thread notifier([&] {
        for (int i = 0; i < rounds / 10; ++i) {
            honest.ends[0]->notify();
            wait_for(*honest.ends[0], 0);
        }
    });
    for (int heard = 0; heard < rounds / 10;) {
        for (const std::int64_t port : wait_for(waiter)) {
            if (port == 2) {
                ++heard;
                honest.ends[1]->notify();
            } else {
                hostile.ends[1]->notify();
            }
        }
    }
    notifier.join();
    done = true;
    scribbler.join();
    waiter.close();
}

/// A signal that comes then ends no sleep, and is looked at all the same.
void a_waiter_that_is_woken_for_nothing_comes_back_now_and_then() {
    Channel channel;
    Waiter waiter(0);
    waiter.add(1, *channel.ends[1]);
    std::atomic<bool> done = false;
    std::thread flood([&] {
        while (!done) {
            (void)!::write(channel.to_1[1], "junk", 4);
        }
    });
    EXPECT(!waiter.begin(false, true) && waiter.block(hvd::never_ns) == Wake::interrupted);
    done = true;
    flood.join();
    waiter.close();
}

void the_budget_grows_while_polling_pays_and_drops_to_nothing() {
    hvd::SpinBudget budget(100'000);
    EXPECT(budget.budget_ns() == 10'000);
    budget.missed(15'000, true);
    EXPECT(budget.budget_ns() == 20'000);
    for (int i = 0; i < 5; ++i) {
        budget.missed(50'000, true);
    }
    EXPECT(budget.budget_ns() == 100'000);
    budget.missed(100'001, true);
    EXPECT(budget.budget_ns() == 0);
    budget.missed(1'000, true);
    EXPECT(budget.budget_ns() == 0);  // one short sleep behind a long one
    budget.missed(1'000, true);
    EXPECT(budget.budget_ns() == 10'000);
    budget.missed(1'000, false);
    EXPECT(budget.budget_ns() == 0);
    budget.missed(1'000, true);
    EXPECT(budget.budget_ns() == 10'000);
    EXPECT(hvd::SpinBudget(0).budget_ns() == 0);
    EXPECT(hvd::SpinBudget(-5).budget_ns() == 0);
}

/// By either way of holding SIGPIPE back, and with the mask left as it was.
void a_peer_without_a_reader_is_survived_under_the_deadly_sigpipe() {
    int pipe[2];
    EXPECT(::pipe2(pipe, O_NONBLOCK | O_CLOEXEC) == 0);
    EXPECT(::signal(SIGPIPE, SIG_DFL) != SIG_ERR);
    ::close(pipe[0]);
    hvd::detail::write_byte_quietly(pipe[1]);
    hvd::detail::write_byte_masked(pipe[1]);
    sigset_t blocked;
    EXPECT(::pthread_sigmask(SIG_BLOCK, nullptr, &blocked) == 0 && ::sigismember(&blocked, SIGPIPE) == 0);
    ::close(pipe[1]);
}

void yielding_stops_for_a_while_when_a_turn_takes_long() {
    hvd::Yielding yielding;
    EXPECT(yielding.pays(hvd::now_ns()));
    const std::int64_t began = hvd::now_ns();
    EXPECT(yielding.yield(began - 1'000'000) >= began);  // as if the turn had taken a millisecond
    EXPECT(!yielding.pays(hvd::now_ns()));
    EXPECT(!yielding.pays(began + 10'000'000));
    EXPECT(yielding.pays(hvd::now_ns() + 60'000'000'000));
    EXPECT(yielding.yields() == 1);
}

/// Of two threads on one CPU, one of which never sleeps, the other is taken off it while it polls.
void polling_is_given_up_where_others_want_the_cpu() {
    cpu_set_t before;
    cpu_set_t one;
    EXPECT(::sched_getaffinity(0, sizeof before, &before) == 0);
    CPU_ZERO(&one);
    for (int cpu = 0; CPU_COUNT(&one) == 0; ++cpu) {
        if (CPU_ISSET(cpu, &before)) {
            CPU_SET(cpu, &one);
        }
    }
    EXPECT(::sched_setaffinity(0, sizeof one, &one) == 0);
    std::atomic<bool> done = false;
    std::thread busy([&] {
        while (!done.load(std::memory_order_relaxed)) {
        }
    });
    hvd::Yielding yielding;
    int polls_behind = 0;
    hvd::Crowding crowding(true);
    const auto never = [&] {
        polls_behind = crowding.seen() ? polls_behind + 1 : 0;
        return false;
    };
    const auto elsewhere = [] { return false; };
    EXPECT(!hvd::spin_until(hvd::now_ns(), hvd::never_ns, yielding, crowding, never, elsewhere));
    EXPECT(crowding.seen() && polls_behind == 1);  // what came while it was off its CPU is still found
    hvd::Crowding told(false);
    const std::int64_t end = hvd::now_ns() + 50'000'000;
    EXPECT(!hvd::spin_until(hvd::now_ns(), end, yielding, told, never, elsewhere));
    EXPECT(!told.seen() && hvd::now_ns() >= end);
    done = true;
    busy.join();
    EXPECT(::sched_setaffinity(0, sizeof before, &before) == 0);
}

void any_cpu_word_is_harmless() {
    for (const std::uint32_t word : {0U, 1U, 0x7FFF'FFFFU, 0x8000'0000U, 0x8000'0001U, 0xFFFF'FFFEU, 0xFFFF'FFFFU}) {
        const auto cpu = static_cast<std::int32_t>(word);
        EXPECT(hvd::is_asleep(cpu) == (cpu < 0));
        (void)hvd::cpu_of(cpu);
    }
    EXPECT(hvd::cpu_of(hvd::asleep_on(3)) == 3 && hvd::cpu_of(3) == 3);
    EXPECT(hvd::cpu_of(hvd::asleep_on(hvd::cpu_unknown)) == hvd::cpu_unknown && hvd::is_asleep(hvd::cpu_unknown));
}

}  // namespace

int main() {
    start_watchdog();
    for (const std::int64_t spin_ns : {std::int64_t{0}, std::int64_t{-1}, std::int64_t{50'000}}) {
        no_wakeup_is_lost(spin_ns);
    }
    a_kick_wakes_one_on_the_word_whose_notifier_died_half_way();
    a_sleeper_on_a_scribbled_word_wakes_by_its_deadline();
    a_waiter_serves_every_ring(0);
    a_waiter_serves_every_ring(hvd::spin_limit_default_ns);
    a_masked_port_is_kept_for_later();
    a_scribbling_peer_harms_nobody_else();
    a_waiter_that_is_woken_for_nothing_comes_back_now_and_then();
    the_budget_grows_while_polling_pays_and_drops_to_nothing();
    a_peer_without_a_reader_is_survived_under_the_deadly_sigpipe();
    yielding_stops_for_a_while_when_a_turn_takes_long();
    polling_is_given_up_where_others_want_the_cpu();
    any_cpu_word_is_harmless();
    return 0;
}
