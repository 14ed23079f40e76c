// What the plain C++ tests share: an assertion that survives NDEBUG, and a watchdog.
#pragma once

#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#define EXPECT(condition)                                                                \
    do {                                                                                 \
        if (!(condition)) {                                                              \
            std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            std::abort();                                                                \
        }                                                                                \
    } while (false)

template <class Fault, class Call>
void expect_throw(Call&& call, const char* what) {
    try {
        call();
    } catch (const Fault&) {
        return;
    }
    std::fprintf(stderr, "%s did not throw\n", what);
    std::abort();
}

/// SIGALRM kills a test that hangs.
inline void start_watchdog() { ::alarm(240); }
