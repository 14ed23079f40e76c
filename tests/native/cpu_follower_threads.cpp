// Whom a process works for, as it adds up and fades; and threads that are counted and moved while they work.
#include <sched.h>

#include <atomic>
#include <thread>
#include <vector>

#include "../../transport/native/cpu_follower.hpp"
#include "expect.hpp"

namespace {

using hvd::anywhere;
using hvd::Counts;
using hvd::RecentWork;

Counts done_at(std::initializer_list<std::pair<std::size_t, std::uint32_t>> work) {
    Counts done{};
    for (const auto& [place, count] : work) {
        done[place] = count;
    }
    return done;
}

void nothing_is_followed_until_there_is_enough_of_it() {
    RecentWork recent;
    EXPECT(recent.look(done_at({{1, 7}})) == 0);
    EXPECT(recent.look(done_at({{1, 7}})) == 2);
}

void what_is_done_seldom_is_never_followed() {
    RecentWork recent;
    for (int look = 0; look < 1000; ++look) {
        EXPECT(recent.look(done_at({{1, look % 2 == 0 ? 1u : 0u}})) == 0);
    }
    EXPECT(recent.any());
}

/// 100 pieces of work a second are less than what moves anybody, and 500 are more.
void it_is_the_same_however_rarely_it_is_looked_at() {
    RecentWork often, rarely;
    for (int look = 0; look < 1000; ++look) {
        EXPECT(rarely.look(done_at({{1, 4}}), 10) == 0);
    }
    EXPECT(often.look(done_at({{1, 20}}), 1) == 2);
    for (int look = 0; look < 1000; ++look) {
        rarely.look(done_at({{1, 20}}), 10);
    }
    EXPECT(rarely.look(done_at({{1, 20}}), 10) == 2);
}

void it_is_followed_for_a_while_when_there_is_no_more() {
    RecentWork recent;
    EXPECT(recent.look(done_at({{3, 100}})) == 8);
    int looks = 0;
    while (recent.look({}) == 8) {
        ++looks;
    }
    EXPECT(looks > 10 && looks < 100);
    while (recent.any()) {
        EXPECT(recent.look({}) == 0);
    }
}

void places_are_united_and_a_small_part_does_not_count() {
    RecentWork recent;
    EXPECT(recent.look(done_at({{1, 50}, {2, 40}, {5, 3}})) == 6);
    EXPECT(recent.look(done_at({{5, 60}})) == (6 | 32));
}

void whoever_runs_anywhere_has_it_done_anywhere() {
    RecentWork recent;
    EXPECT(recent.look(done_at({{1, 50}, {anywhere, 50}})) == 0);
    EXPECT(recent.look(done_at({{1, 500}, {anywhere, 1}})) == 2);
}

void places_have_a_bound() {
    hvd::CpuFollower follower;
    cpu_set_t own;
    sched_getaffinity(0, sizeof own, &own);
    EXPECT(follower.place({}) == anywhere);
    EXPECT(follower.place({CPU_SETSIZE, -1}) == anywhere);
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
        if (CPU_ISSET(static_cast<unsigned>(cpu), &own) != 0) {
            const std::size_t place = follower.place({cpu});
            EXPECT(place < hvd::places_max && follower.place({cpu, cpu}) == place);
        }
    }
}

/// Several count while the threads are moved, and the follower ends in the middle of it.
void threads_work_while_they_are_moved() {
    cpu_set_t own;
    sched_getaffinity(0, sizeof own, &own);
    int first = 0;
    while (CPU_ISSET(static_cast<unsigned>(first), &own) == 0) {
        ++first;
    }
    for (int round = 0; round < 3; ++round) {
        hvd::CpuFollower follower;
        const std::size_t place = follower.place({first});
        std::atomic<bool> over{false};
        std::vector<std::thread> workers;
        for (int number = 0; number < 2; ++number) {
            workers.emplace_back([&] {
                while (!over.load()) {
                    follower.worked_for(place);
                }
            });
        }
        while (follower.moves() == 0) {
            follower.worked_for(place);
        }
        over.store(true);
        for (std::thread& worker : workers) {
            worker.join();
        }
    }
    cpu_set_t after;
    sched_getaffinity(0, sizeof after, &after);
    EXPECT(CPU_EQUAL(&own, &after));
}

}  // namespace

int main() {
    start_watchdog();
    nothing_is_followed_until_there_is_enough_of_it();
    what_is_done_seldom_is_never_followed();
    it_is_the_same_however_rarely_it_is_looked_at();
    it_is_followed_for_a_while_when_there_is_no_more();
    places_are_united_and_a_small_part_does_not_count();
    whoever_runs_anywhere_has_it_done_anywhere();
    places_have_a_bound();
    threads_work_while_they_are_moved();
    return 0;
}
