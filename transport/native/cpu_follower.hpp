// Keeps the threads of this process on the CPUs of those whom it works for, as a hypercall of Xen's is carried out on its
// caller's CPU; and lets them run anywhere for a while where they get no time there, so that others do not wait with them.
//
// Who works says for whom (`worked_for`: one atomic addition). A thread of its own looks while there is work, moves the others,
// and sleeps otherwise: every few milliseconds as long as anything changes, rarely when nothing has for a while. It has to run
// when the others cannot, so on any CPU: whoever that belongs to shall not see it in one of a hundred of its round trips.
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace hvd {

constexpr std::size_t places_max = 64;
/// "Anywhere": the place of whoever is kept to no CPU.
constexpr std::size_t anywhere = 0;
using Counts = std::array<std::uint32_t, places_max>;

/// For whom the work of late was done, by place. No clock, no thread: a `look` is a point in time.
class RecentWork {
public:
    /// Takes in what was done at each place in the time of so many looks, evenly; the places to be at, one bit each, 0:
    /// anywhere.
    std::uint64_t look(const Counts& done, std::uint32_t looks) {
        std::uint64_t wanted = 0;
        for (std::uint32_t number = 0; number < looks; ++number) {
            Counts part{};
            for (std::size_t place = 0; place < places_max; ++place) {
                part[place] = share(done[place], number + 1, looks) - share(done[place], number, looks);
            }
            wanted = look(part);
        }
        return wanted;
    }

    /// In the time of one.
    std::uint64_t look(const Counts& done) {
        total_ = 0;
        for (std::size_t place = 0; place < places_max; ++place) {
            recent_[place] += done[place] - recent_[place] * fades;
            total_ += recent_[place];
        }
        keeps_ = total_ >= (keeps_ ? stops_below : begins_at);
        std::uint64_t wanted = 0;
        for (std::size_t place = 0; keeps_ && place < places_max; ++place) {
            wanted |= std::uint64_t{recent_[place] >= total_ * counts_from} << place;
        }
        return (wanted & (1u << anywhere)) != 0 ? 0 : wanted;
    }

    /// Whether so much was done of late that it is worth another look.
    bool any() const { return total_ >= forgotten_below; }

    void forget() { *this = {}; }

private:
    static std::uint32_t share(std::uint32_t done, std::uint32_t parts, std::uint32_t of) {
        return static_cast<std::uint32_t>(std::uint64_t{done} * parts / of);
    }

    static constexpr double fades = 1.0 / 8;
    /// One piece of work a look, as it adds up, and a quarter of that.
    static constexpr double begins_at = 8, stops_below = 2, forgotten_below = 0.5;
    /// Whoever has had a smaller part of the work does not decide where it is done.
    static constexpr double counts_from = 1.0 / 8;

    std::array<double, places_max> recent_{};
    double total_ = 0;
    bool keeps_ = false;
};

/// Another thread of this process: whether it could have run and did not.
class WatchedThread {
public:
    explicit WatchedThread(pid_t thread) : thread_(thread) {
        stat_ = open(("/proc/self/task/" + std::to_string(thread) + "/stat").c_str(), O_RDONLY | O_CLOEXEC);
    }
    WatchedThread(WatchedThread&& other) noexcept
        : thread_(other.thread_), stat_(std::exchange(other.stat_, -1)), waits_(other.waits_), ran_ns_(other.ran_ns_) {}
    WatchedThread& operator=(WatchedThread&&) = delete;
    ~WatchedThread() {
        if (stat_ >= 0) {
            close(stat_);
        }
    }

    void keep_to(const cpu_set_t& cpus) const { sched_setaffinity(thread_, sizeof cpus, &cpus); }

    /// Whether it has waited for a CPU since the look before the last one.
    bool starves() {
        const std::int64_t ran_ns = this->ran_ns();
        const bool ran = std::exchange(ran_ns_, ran_ns) != ran_ns;
        const bool waited = std::exchange(waits_, !ran && is_runnable());  // to ask the kernel takes longer than all else
        return waited && waits_;
    }

    bool waits() const { return waits_; }

private:
    std::int64_t ran_ns() const {
        // The clock of a thread's CPU time, as pthread_getcpuclockid makes it: what it runs right now is in it.
        const auto clock = static_cast<clockid_t>((~static_cast<unsigned>(thread_) << 3) | 6u);
        timespec time{};
        clock_gettime(clock, &time);
        return time.tv_sec * 1'000'000'000 + time.tv_nsec;
    }

    bool is_runnable() const {
        std::array<char, 128> text{};  // "PID (NAME) STATE ...", and a name has 15 bytes at most
        if (pread(stat_, text.data(), text.size() - 1, 0) <= 0) {
            return false;
        }
        const char* name_end = std::strrchr(text.data(), ')');
        return name_end != nullptr && name_end[1] == ' ' && name_end[2] == 'R';
    }

    pid_t thread_;
    int stat_;
    bool waits_ = false;
    std::int64_t ran_ns_ = 0;
};

class CpuFollower {
public:
    CpuFollower() {
        CPU_ZERO(&own_);
        sched_getaffinity(0, sizeof own_, &own_);
        cpus_.fill(own_);
    }
    CpuFollower(const CpuFollower&) = delete;
    CpuFollower& operator=(const CpuFollower&) = delete;
    ~CpuFollower() {
        ends_.store(true);
        wake();
        if (looker_.joinable()) {
            looker_.join();
        }
    }

    /// The place of whoever runs on these CPUs: `anywhere` where they are all of ours or none, and when there are too many
    /// places. For one thread.
    std::size_t place(const std::vector<int>& cpus) {
        cpu_set_t set;
        CPU_ZERO(&set);
        for (const int cpu : cpus) {
            if (cpu >= 0 && cpu < CPU_SETSIZE) {
                CPU_SET(static_cast<unsigned>(cpu), &set);
            }
        }
        CPU_AND(&set, &set, &own_);
        if (CPU_COUNT(&set) == 0) {
            return anywhere;
        }
        for (std::size_t place = 0; place < places_; ++place) {
            if (CPU_EQUAL(&cpus_[place], &set)) {
                return place;
            }
        }
        if (places_ == places_max) {
            return anywhere;
        }
        cpus_[places_] = set;
        if (!looker_.joinable()) {
            begin_to_look();
        }
        return places_++;
    }

    void worked_for(std::size_t place) {
        done_[place].fetch_add(1, std::memory_order_release);
        if (sleeps_.load(std::memory_order_seq_cst) != 0) {
            wake();
        }
    }

    /// How often the threads were moved, and how often they were let go because they got no time.
    std::uint64_t moves() const { return moves_.load(); }
    std::uint64_t starved() const { return starved_.load(); }

private:
    static constexpr long look_every_ns = 4'000'000;
    /// Looks at which nothing has changed before they become rare: one in the place of so many.
    static constexpr int settled_after = 16, looks_settled = 10;
    /// Looks for which the threads stay free after they got no time.
    static constexpr int free_looks = 25;

    void begin_to_look() {
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);  // signals are for the thread that the process is
        looker_ = std::thread([this] { look_on(); });
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
    }

    void wake() {
        sleeps_.store(0);
        sleeps_.notify_one();
    }

    void look_on() {
        while (!ends_.load()) {
            if (kept_ == 0 && !recent_.any() && free_for_ == 0 && nothing_done()) {
                sleeps_.store(1);
                if (nothing_done() && !ends_.load()) {
                    sleeps_.wait(1);
                }
                sleeps_.store(0);
                settled_ = 0;
            }
            const int looks = settled_ < settled_after ? 1 : looks_settled;
            const timespec pause{0, look_every_ns * looks};
            nanosleep(&pause, nullptr);
            look(looks);
        }
        move(0);
    }

    void look(int looks) {
        Counts done{};
        for (std::size_t place = 0; place < places_max; ++place) {
            done[place] = done_[place].exchange(0, std::memory_order_acquire);
        }
        if (free_for_ > 0) {
            --free_for_;
            return;
        }
        bool starves = false, waits = false;
        for (WatchedThread& thread : threads_) {
            starves |= thread.starves();
            waits |= thread.waits();
        }
        settled_ = waits ? 0 : settled_ + (settled_ < settled_after);
        if (starves) {
            free_for_ = free_looks;
            recent_.forget();
            move(0);
            starved_.fetch_add(1);
        } else {
            move(recent_.look(done, static_cast<std::uint32_t>(looks)));
        }
    }

    bool nothing_done() const {
        for (const auto& done : done_) {
            if (done.load() != 0) {
                return false;
            }
        }
        return true;
    }

    void move(std::uint64_t places) {
        if (places == kept_) {
            return;
        }
        kept_ = places;
        settled_ = 0;
        moves_.fetch_add(1);
        cpu_set_t cpus = own_;
        if (places != 0) {
            CPU_ZERO(&cpus);
            for (std::size_t place = 0; place < places_max; ++place) {
                if ((places >> place & 1) != 0) {
                    CPU_OR(&cpus, &cpus, &cpus_[place]);
                }
            }
        }
        find_threads();
        for (const WatchedThread& thread : threads_) {
            thread.keep_to(cpus);
        }
        if (places == 0) {
            threads_.clear();
        }
    }

    /// All but this one, which must run when they cannot. None where there is no /proc: then nobody would see them starve.
    void find_threads() {
        threads_.clear();
        DIR* tasks = opendir("/proc/self/task");
        if (tasks == nullptr) {
            return;
        }
        const auto self = static_cast<pid_t>(syscall(SYS_gettid));
        while (const dirent* task = readdir(tasks)) {
            const auto thread = static_cast<pid_t>(std::atoi(task->d_name));
            if (thread > 0 && thread != self) {
                threads_.emplace_back(thread);
            }
        }
        closedir(tasks);
    }

    cpu_set_t own_;
    std::array<cpu_set_t, places_max> cpus_;
    std::size_t places_ = 1;
    std::array<std::atomic<std::uint32_t>, places_max> done_{};
    std::atomic<std::uint32_t> sleeps_{0};
    std::atomic<bool> ends_{false};
    std::atomic<std::uint64_t> moves_{0}, starved_{0};
    // The rest is the looking thread's.
    RecentWork recent_;
    std::vector<WatchedThread> threads_;
    std::uint64_t kept_ = 0;
    int free_for_ = 0, settled_ = 0;
    std::thread looker_;
};

}  // namespace hvd
