// A rate limit: so many bytes in each interval, as xl's `rate` says.
//
// Credit grows with time, not in steps, and may be overdrawn by the packet that uses it up: so the average is exact whatever the packets'
// sizes. What was not used is kept for one interval. Whoever has to wait, waits long enough to send more than one packet then.
#pragma once

#include <algorithm>
#include <cstdint>

namespace hvd::netif {

class TokenBucket {
public:
    /// 0 bytes: no limit.
    TokenBucket(std::uint64_t bytes, std::uint64_t interval_us) : bytes_(static_cast<double>(bytes)), per_ns_(bytes_ / (1e3 * static_cast<double>(interval_us))), credit_(bytes_),
          pause_ns_(std::min<std::int64_t>(pause_most_ns, static_cast<std::int64_t>(interval_us) * 250)) {}
    TokenBucket() = default;

    bool limits() const { return bytes_ > 0; }

    /// When the next packet may be sent, in nanoseconds of the same clock: now or earlier, if it may.
    std::int64_t ready_at_ns(std::int64_t now_ns) {
        if (last_ns_ != 0) {
            credit_ = std::min(bytes_, credit_ + static_cast<double>(now_ns - last_ns_) * per_ns_);
        }
        last_ns_ = now_ns;
        return credit_ > 0 ? now_ns : now_ns + static_cast<std::int64_t>(-credit_ / per_ns_) + pause_ns_;
    }

    void use(std::uint32_t bytes) { credit_ -= bytes; }

    /// What is left, and since when: for another bucket of the same rate to go on with.
    struct Credit {
        double bytes;
        std::int64_t since_ns;
    };
    Credit credit() const { return {credit_, last_ns_}; }
    void go_on_with(const Credit& credit) {
        credit_ = credit.bytes;
        last_ns_ = credit.since_ns;
    }

private:
    static constexpr std::int64_t pause_most_ns = 500'000;

    double bytes_ = 0;
    double per_ns_ = 0;
    double credit_ = 0;
    std::int64_t pause_ns_ = 0;
    std::int64_t last_ns_ = 0;
};

}  // namespace hvd::netif
