// An HdrHistogram of durations: counts in buckets of a fixed relative width, so that recording allocates nothing.
//
// The bucket arithmetic and the V2 encoding are those of HdrHistogram (hdrhistogram.org), so that its packages in other
// languages read, merge and print what is recorded here. Units of at least 1; values are nanoseconds by convention.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "faults.hpp"

namespace hvd {

class Histogram {
public:
    static constexpr int digits_max = 5;
    static constexpr std::int64_t highest_max = std::int64_t{1} << 62;
    /// Values that one histogram counts, at most: sums of two never overflow.
    static constexpr std::int64_t count_max = std::int64_t{1} << 62;

    /// Values from 0 to `highest` (at least 2) with so many significant decimal digits (1 to 5).
    Histogram(std::int64_t highest, int digits) : highest_(highest), digits_(digits) {
        if (digits < 1 || digits > digits_max || highest < 2 || highest > highest_max) {
            throw LocalError("a histogram has 1 to 5 significant digits and a highest value of 2 to 2^62, not " +
                             std::to_string(digits) + " and " + std::to_string(highest));
        }
        std::uint64_t single_unit_resolution = 2;
        for (int i = 0; i < digits; ++i) {
            single_unit_resolution *= 10;
        }
        half_magnitude_ = static_cast<int>(std::bit_width(single_unit_resolution - 1)) - 1;
        half_count_ = std::int64_t{1} << half_magnitude_;
        mask_ = 2 * static_cast<std::uint64_t>(half_count_) - 1;
        std::size_t buckets = 1;
        // Unsigned, for the power of two above the highest value that there may be has no sign left.
        for (auto untrackable = 2 * static_cast<std::uint64_t>(half_count_); untrackable <= static_cast<std::uint64_t>(highest); untrackable <<= 1) {
            ++buckets;
        }
        counts_.resize((buckets + 1) * static_cast<std::size_t>(half_count_));
    }

    /// What lies outside is recorded as the nearest value that can be.
    void record(std::int64_t value, std::int64_t count = 1) {
        value = std::clamp<std::int64_t>(value, 0, highest_);
        counts_[index_of(value)] += count;
        total_ += count;
        lowest_seen_ = std::min(lowest_seen_, value);
        highest_seen_ = std::max(highest_seen_, value);
    }

    /// Both of the same shape.
    void add(const Histogram& other) {
        if (other.highest_ != highest_ || other.digits_ != digits_) {
            throw LocalError("histograms of different shapes cannot be added");
        }
        check_room(other.total_);
        for (std::size_t i = 0; i < counts_.size(); ++i) {
            counts_[i] += other.counts_[i];
        }
        total_ += other.total_;
        lowest_seen_ = std::min(lowest_seen_, other.lowest_seen_);
        highest_seen_ = std::max(highest_seen_, other.highest_seen_);
    }

    void reset() {
        std::fill(counts_.begin(), counts_.end(), 0);
        total_ = 0;
        highest_seen_ = 0;
        lowest_seen_ = INT64_MAX;
    }

    std::int64_t count() const { return total_; }
    std::int64_t highest() const { return highest_; }
    int digits() const { return digits_; }
    /// As recorded by this process: not rounded to a bucket. 0 when nothing was.
    std::int64_t min() const { return total_ == 0 ? 0 : lowest_seen_; }
    std::int64_t max() const { return highest_seen_; }

    /// The largest value that counts as the one below which `percentile` percent of all lie; 0 when nothing was recorded.
    std::int64_t percentile(double percentile) const {
        const double wanted = std::clamp(percentile, 0.0, 100.0) * static_cast<double>(total_) / 100.0;
        const std::int64_t target = std::max<std::int64_t>(static_cast<std::int64_t>(wanted + 0.5), 1);
        std::int64_t seen = 0;
        for (std::size_t i = 0; i < counts_.size(); ++i) {
            seen += counts_[i];
            if (seen >= target) {
                return std::min(last_value_of(i), highest_seen_);
            }
        }
        return 0;
    }

    double mean() const {
        double sum = 0;
        for (std::size_t i = 0; i < counts_.size(); ++i) {
            sum += static_cast<double>(counts_[i]) * (static_cast<double>(first_value_of(i)) + static_cast<double>(last_value_of(i))) / 2;
        }
        return total_ == 0 ? 0 : sum / static_cast<double>(total_);
    }

    /// How many values were recorded that are equivalent to `value` or larger.
    std::int64_t count_from(std::int64_t value) const {
        std::int64_t sum = 0;
        for (std::size_t i = index_of(std::clamp<std::int64_t>(value, 0, highest_)); i < counts_.size(); ++i) {
            sum += counts_[i];
        }
        return sum;
    }

    /// HdrHistogram's V2 encoding, not yet compressed: a header, then each count, and each run of zeros, as one number.
    std::string encode() const {
        std::string payload;
        const std::size_t used = total_ == 0 ? 0 : index_of(highest_seen_) + 1;
        for (std::size_t i = 0; i < used;) {
            if (counts_[i] != 0) {
                put_number(payload, counts_[i++]);
                continue;
            }
            const std::size_t begin = i;
            while (i < used && counts_[i] == 0) {
                ++i;
            }
            put_number(payload, -static_cast<std::int64_t>(i - begin));
        }
        std::string encoded;
        put_big_endian(encoded, cookie, 4);
        put_big_endian(encoded, payload.size(), 4);
        put_big_endian(encoded, 0, 4);
        put_big_endian(encoded, static_cast<std::uint64_t>(digits_), 4);
        put_big_endian(encoded, 1, 8);
        put_big_endian(encoded, static_cast<std::uint64_t>(highest_), 8);
        put_big_endian(encoded, std::bit_cast<std::uint64_t>(1.0), 8);
        return encoded + payload;
    }

    /// What `encode` made, of any HdrHistogram package; LocalError when it is nothing of the kind.
    static Histogram decode(const std::string& encoded) {
        if (encoded.size() < header_bytes || get_big_endian(encoded, 0, 4) != cookie ||
            get_big_endian(encoded, 4, 4) != encoded.size() - header_bytes || get_big_endian(encoded, 8, 4) != 0 ||
            get_big_endian(encoded, 16, 8) != 1) {
            throw LocalError("these bytes are no HdrHistogram in V2 encoding with a lowest value of 1");
        }
        const std::uint64_t digits = get_big_endian(encoded, 12, 4);
        const std::uint64_t highest = get_big_endian(encoded, 24, 8);
        Histogram decoded(static_cast<std::int64_t>(std::min<std::uint64_t>(highest, INT64_MAX)), static_cast<int>(std::min<std::uint64_t>(digits, 99)));
        std::size_t at = header_bytes;
        std::size_t index = 0;
        while (at < encoded.size()) {
            const std::int64_t number = get_number(encoded, at);
            const std::size_t room = decoded.counts_.size() - index;
            if (number < 0 && static_cast<std::uint64_t>(-(number + 1)) < room) {
                index += static_cast<std::size_t>(-(number + 1)) + 1;
            } else if (number >= 0 && room > 0) {
                if (number > 0) {
                    decoded.check_room(number);
                    decoded.record_bucket(index, number);
                }
                ++index;
            } else {
                throw LocalError("an encoded histogram holds more counts than its range has buckets");
            }
        }
        return decoded;
    }

private:
    static constexpr std::uint32_t cookie = 0x1c849303 | 0x10;
    static constexpr std::size_t header_bytes = 40;

    /// A count from elsewhere may be any number.
    void check_room(std::int64_t more) const {
        if (more > count_max - total_) {
            throw LocalError("a histogram counts at most 2^62 values");
        }
    }

    std::size_t index_of(std::int64_t value) const {
        const int bucket = static_cast<int>(std::bit_width(static_cast<std::uint64_t>(value) | mask_)) - half_magnitude_ - 1;
        const std::int64_t within = value >> bucket;
        return static_cast<std::size_t>(((static_cast<std::int64_t>(bucket) + 1) << half_magnitude_) + within - half_count_);
    }

    int bucket_of(std::size_t index) const { return std::max(static_cast<int>(index >> half_magnitude_) - 1, 0); }

    std::int64_t first_value_of(std::size_t index) const {
        const int bucket = bucket_of(index);
        const std::int64_t within = static_cast<std::int64_t>(index) - (static_cast<std::int64_t>(bucket) << half_magnitude_);
        return within << bucket;
    }

    std::int64_t last_value_of(std::size_t index) const { return first_value_of(index) + ((std::int64_t{1} << bucket_of(index)) - 1); }

    void record_bucket(std::size_t index, std::int64_t count) {
        const std::int64_t value = std::min(last_value_of(index), highest_);
        record(value, count);
        lowest_seen_ = std::min(lowest_seen_, first_value_of(index));
    }

    /// ZigZag, then seven bits a byte, low ones first; a ninth byte holds eight.
    static void put_number(std::string& to, std::int64_t number) {
        std::uint64_t bits = (static_cast<std::uint64_t>(number) << 1) ^ static_cast<std::uint64_t>(number >> 63);
        for (int i = 0; i < 8 && bits >= 0x80; ++i) {
            to.push_back(static_cast<char>(bits | 0x80));
            bits >>= 7;
        }
        to.push_back(static_cast<char>(bits));
    }

    static std::int64_t get_number(const std::string& from, std::size_t& at) {
        std::uint64_t bits = 0;
        for (int i = 0; i < 9; ++i) {
            if (at == from.size()) {
                throw LocalError("an encoded histogram ends in the middle of a number");
            }
            const auto byte = static_cast<std::uint8_t>(from[at++]);
            bits |= static_cast<std::uint64_t>(i < 8 ? byte & 0x7f : byte) << (7 * i);
            if (i < 8 && byte < 0x80) {
                break;
            }
        }
        return static_cast<std::int64_t>(bits >> 1) ^ -static_cast<std::int64_t>(bits & 1);
    }

    static void put_big_endian(std::string& to, std::uint64_t value, int bytes) {
        for (int shift = 8 * (bytes - 1); shift >= 0; shift -= 8) {
            to.push_back(static_cast<char>(value >> shift));
        }
    }

    static std::uint64_t get_big_endian(const std::string& from, std::size_t at, std::size_t bytes) {
        std::uint64_t value = 0;
        for (std::size_t i = 0; i < bytes; ++i) {
            value = value << 8 | static_cast<std::uint8_t>(from[at + i]);
        }
        return value;
    }

    std::int64_t highest_;
    int digits_;
    int half_magnitude_ = 0;
    std::int64_t half_count_ = 0;
    std::uint64_t mask_ = 0;
    std::int64_t total_ = 0;
    std::int64_t lowest_seen_ = INT64_MAX;
    std::int64_t highest_seen_ = 0;
    std::vector<std::int64_t> counts_;
};

}  // namespace hvd
