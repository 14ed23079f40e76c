// Encoded histograms, which come out of domains: any bytes are one or are refused, and one that was read is written as it was read.
#include <string>

#include "../../../transport/native/histogram.hpp"
#include "../../native/expect.hpp"
#include "input.hpp"

using hvd::Histogram;

namespace {

/// Four and five digits are the same arithmetic in up to 49 MB of buckets: a thousand times slower, and nothing new.
bool is_slow(const std::string& encoded) {
    constexpr std::size_t lowest_byte_of_digits = 15;
    return encoded.size() > lowest_byte_of_digits && (encoded[lowest_byte_of_digits] == 4 || encoded[lowest_byte_of_digits] == 5);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string encoded(reinterpret_cast<const char*>(data), size);
    if (is_slow(encoded)) {
        return 0;
    }
    try {
        Histogram histogram = Histogram::decode(encoded);
        EXPECT(histogram.count() >= 0 && histogram.min() <= histogram.highest() && histogram.max() <= histogram.highest());
        for (const double percent : {-1.0, 0.0, 50.0, 99.9, 100.0, 200.0}) {
            EXPECT(histogram.percentile(percent) <= histogram.max());
        }
        EXPECT(histogram.mean() >= 0);
        EXPECT(histogram.count_from(0) == histogram.count() && histogram.count_from(histogram.max()) >= 0);
        const std::string again = histogram.encode();
        Histogram second = Histogram::decode(again);
        EXPECT(second.encode() == again);
        second.add(histogram);
        histogram.record(static_cast<std::int64_t>(size));
        histogram.reset();
    } catch (const hvd::LocalError&) {
    }
    return 0;
}
