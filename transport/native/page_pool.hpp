// Which pages of a pool are free: runs of consecutive pages, because a run is one piece of memory, read and written at once.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace hvd {

/// Consecutive pages; none when `count` is 0.
struct Run {
    std::uint32_t first = 0;
    std::uint32_t count = 0;
};

class PagePool {
public:
    explicit PagePool(std::uint32_t pages) : pages_(pages) {
        free_.reserve(pages / 2 + 1);  // as many runs as there can be: nothing is allocated afterwards
        free_.push_back({0, pages});
    }

    std::uint32_t pages() const { return pages_; }

    std::uint32_t free() const {
        std::uint32_t sum = 0;
        for (const Run& run : free_) {
            sum += run.count;
        }
        return sum;
    }

    /// The first free run of so many pages; an empty one when no free run is as long.
    Run take(std::uint32_t count) {
        const auto found = std::find_if(free_.begin(), free_.end(), [count](const Run& run) { return run.count >= count; });
        if (found == free_.end()) {
            return {};
        }
        const Run taken{found->first, count};
        found->first += count;
        found->count -= count;
        if (found->count == 0) {
            free_.erase(found);
        }
        return taken;
    }

    /// Frees a run again; it joins its free neighbours. An empty run is nothing.
    void give_back(const Run& run) {
        if (run.count == 0) {
            return;
        }
        const auto after = std::lower_bound(free_.begin(), free_.end(), run.first, [](const Run& other, std::uint32_t first) { return other.first < first; });
        const bool joins_after = after != free_.end() && run.first + run.count == after->first;
        const bool joins_before = after != free_.begin() && (after - 1)->first + (after - 1)->count == run.first;
        if (joins_before) {
            (after - 1)->count += run.count + (joins_after ? after->count : 0);
            if (joins_after) {
                free_.erase(after);
            }
        } else if (joins_after) {
            after->first = run.first;
            after->count += run.count;
        } else {
            free_.insert(after, run);
        }
    }

private:
    std::uint32_t pages_;
    std::vector<Run> free_;  // in order, no two adjacent
};

}  // namespace hvd
