// Counts the instructions of what looks at the trace switch, exactly: a parent steps through its child one by one.
//
// Prints "OPERATION COUNT" a line, the count for `repeats` of it. Nothing here needs to be fast.
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <vector>

#include "../../transport/native/doorbell.hpp"
#include "../../transport/native/ring.hpp"
#include "expect.hpp"

namespace {

constexpr int repeats = 100;
constexpr hvd::RingShape shape{64, 64, 64};

alignas(4096) std::byte channel_page[4096];
alignas(4096) std::byte ring_page[4096];

/// Instructions between the child's two stops.
long steps_of(const std::function<void()>& work) {
    const pid_t child = ::fork();
    if (child == 0) {
        ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
        work();  // what is done for the first time is not counted
        ::raise(SIGSTOP);
        work();
        ::raise(SIGSTOP);
        ::_exit(0);
    }
    int status = 0;
    EXPECT(::waitpid(child, &status, 0) == child && WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
    long steps = 0;
    do {
        EXPECT(::ptrace(PTRACE_SINGLESTEP, child, nullptr, nullptr) == 0);
        EXPECT(::waitpid(child, &status, 0) == child && WIFSTOPPED(status));
        ++steps;
    } while (WSTOPSIG(status) == SIGTRAP);
    EXPECT(WSTOPSIG(status) == SIGSTOP);
    ::kill(child, SIGKILL);
    ::waitpid(child, &status, 0);
    return steps;
}

[[gnu::noinline]] void notify(hvd::Doorbell& bell) { bell.notify(); }
[[gnu::noinline]] void push(hvd::Ring& ring, const void* message) { ring.push(message, 64); }
[[gnu::noinline]] void pop(hvd::Ring& ring, void* to) { ring.pop_many(to, 1); }

}  // namespace

int main() {
    start_watchdog();
    hvd::Doorbell bell(channel_page, sizeof channel_page, 0, -1, -1);
    std::byte message[64]{};
    std::printf("notify %ld\n", steps_of([&] {
                    for (int i = 0; i < repeats; ++i) {
                        notify(bell);
                    }
                }));
    hvd::Ring front(hvd::RingEnd::front, ring_page, shape);
    front.init();
    hvd::Ring back(hvd::RingEnd::back, ring_page, shape);
    std::printf("request %ld\n", steps_of([&] {
                    for (int i = 0; i < repeats; ++i) {
                        push(front, message);
                        pop(back, message);
                        push(back, message);
                        pop(front, message);
                    }
                }));
    return 0;
}
