"""Our histograms against the hdrhistogram package; what the timing loops record; nonsense for text."""

import base64
import gc
import itertools
import random
import struct
import sys
import time
import tracemalloc
import zlib

import pytest
from hdrh.histogram import HdrHistogram

from hvd.transport.errors import LocalError
from hvd.transport.histogram import Histogram, from_text, time_calls_at_rate, to_text

HIGHEST = 3_600_000_000_000
CALLS = 1000
PERCENTILES = (0.001, 1, 25, 50, 75, 90, 99, 99.9, 99.99, 100)


def both(values, digits=3):
    ours, theirs = Histogram(HIGHEST, digits), HdrHistogram(1, HIGHEST, digits)
    for value in values:
        ours.record(value)
        theirs.record_value(value)
    return ours, theirs


def some_values(seed, count=5000):
    chosen = random.Random(seed)
    return [int(chosen.lognormvariate(chosen.uniform(2, 20), 1.5)) % HIGHEST for _ in range(count)]


@pytest.mark.parametrize(("seed", "digits"), [*itertools.product(range(3), range(1, 5)), (0, 5)])  # 5 take 10 s
def test_percentiles_are_those_of_the_package(seed, digits):
    ours, theirs = both(some_values(seed), digits)
    for percentile in PERCENTILES:
        expected = min(theirs.get_value_at_percentile(percentile), ours.max)  # ours knows its exact maximum
        assert ours.percentile(percentile) == expected, percentile
    assert ours.count == theirs.total_count
    assert ours.mean == pytest.approx(theirs.get_mean_value(), rel=10**-digits)


@pytest.mark.parametrize("seed", range(3))
def test_the_package_reads_and_merges_what_we_write(seed):
    values = some_values(seed), some_values(seed + 100)
    (one, _), (two, _) = map(both, values)
    merged = HdrHistogram.decode(to_text(one))
    merged.add(HdrHistogram.decode(to_text(two)))
    _, expected = both([*values[0], *values[1]])
    one.add(two)
    for percentile in PERCENTILES:
        assert merged.get_value_at_percentile(percentile) == expected.get_value_at_percentile(percentile)
        assert one.percentile(percentile) == min(expected.get_value_at_percentile(percentile), one.max)


@pytest.mark.parametrize("seed", range(3))
def test_we_read_what_the_package_writes(seed):
    ours, theirs = both(some_values(seed))
    assert from_text(theirs.encode().decode()).encode() == ours.encode()


def test_text_and_back_is_the_same_histogram():
    ours, _ = both([0, 1, 1, 2047, 2048, 2049, 10**9, HIGHEST])
    again = from_text(to_text(ours))
    assert to_text(again) == to_text(ours)
    assert (again.count, again.digits, again.highest) == (8, 3, HIGHEST)


def test_an_empty_histogram_has_no_values_and_can_be_sent():
    empty = from_text(to_text(Histogram()))
    assert (empty.count, empty.min, empty.max, empty.percentile(50), empty.mean) == (0, 0, 0, 0, 0)


def test_what_lies_outside_counts_as_the_nearest_value():
    histogram = Histogram(1000, 3)
    histogram.record(-5)
    histogram.record(10**15)
    assert (histogram.min, histogram.max, histogram.count) == (0, 1000, 2)


def test_how_many_were_late_is_counted():
    histogram, _ = both([10, 20, 30, 40])
    assert [histogram.count_from(value) for value in (0, 20, 21, 41)] == [4, 3, 2, 0]


def test_a_reset_histogram_is_empty():
    histogram, _ = both([5, 6])
    histogram.reset()
    assert to_text(histogram) == to_text(Histogram())


def test_different_shapes_are_not_added():
    with pytest.raises(LocalError, match="shapes"):
        Histogram(1000, 3).add(Histogram(1000, 2))


@pytest.mark.parametrize(("highest", "digits"), [(1000, 0), (1000, 6), (1, 3), (0, 3), (-1, 3), (2**63 - 1, 3)])
def test_a_shape_that_cannot_be_is_refused(highest, digits):
    with pytest.raises(LocalError, match="digits"):
        Histogram(highest, digits)


def packed(encoded, cookie=0x1C849304 | 0x10):
    compressed = zlib.compress(encoded)
    return base64.b64encode(cookie.to_bytes(4) + len(compressed).to_bytes(4) + compressed).decode()


ENCODED = both([1, 2, 3])[0].encode()


@pytest.mark.parametrize(
    "text",
    [
        "", "###", "AAAA", packed(ENCODED, cookie=7), packed(b""), packed(ENCODED[:-1]), packed(ENCODED + b"\x02"),
        packed(b"\0" + ENCODED[1:]),
        packed(ENCODED[:4] + (3).to_bytes(4) + ENCODED[8:40] + b"\x80\x80\x80"),  # a number without its end
        packed(ENCODED[:4] + (4).to_bytes(4) + ENCODED[8:40] + b"\xff\xff\xff\x7f"),  # more zeros than buckets
        packed(ENCODED[:12] + (77).to_bytes(4) + ENCODED[16:]),
        packed(ENCODED[:24] + b"\xff" * 8 + ENCODED[32:]),
    ],
)  # fmt: skip
def test_text_that_is_no_histogram_is_refused(text):
    with pytest.raises(LocalError):
        from_text(text)


def test_a_compressed_text_that_would_fill_the_memory_is_refused():
    with pytest.raises(LocalError):
        from_text(packed(bytes(1 << 26)))


def test_timing_a_call_allocates_nothing_that_stays():
    histogram, done = Histogram(), list[int]()
    histogram.time_calls(done.clear, 1_000_000)
    gc.collect()
    tracemalloc.start()
    blocks = sys.getallocatedblocks()
    while histogram.count <= CALLS:  # as a rule at once; a busy machine may give it less than its time
        histogram.time_calls(done.clear, 20_000_000)
    grown = sys.getallocatedblocks() - blocks
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert grown < 20
    assert peak < 10_000


def test_a_call_that_raises_ends_the_loop():
    histogram = Histogram()

    def fail():
        if histogram.count == 3:
            raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        histogram.time_calls(fail, 10**12)
    assert histogram.count == 3


@pytest.mark.parametrize("computing", [False, True])
def test_time_spent_thinking_is_not_recorded(computing):
    histogram = Histogram()
    begin = time.monotonic_ns()
    histogram.time_calls(lambda: None, 30_000_000, think_ns=10_000_000, computing=computing)
    assert time.monotonic_ns() - begin >= histogram.count * 10_000_000
    assert histogram.min < 10_000_000


def test_at_a_fixed_rate_a_stall_shows_in_all_that_had_to_wait_for_it():
    intended, sent, calls = Histogram(), Histogram(), list[None]()

    def call():
        calls.append(None)
        if len(calls) == 100:
            time.sleep(0.2)

    time_calls_at_rate(intended, sent, call, 400_000_000, 1_000_000)
    assert intended.count == sent.count == 400
    late = 50_000_000
    assert intended.count_from(late) >= 140  # those due within the first 0.15 s of the stall
    assert intended.count_from(late) > 10 * sent.count_from(late) > 0


def test_a_rate_without_an_interval_is_refused():
    with pytest.raises(LocalError, match="interval"):
        time_calls_at_rate(Histogram(), Histogram(), lambda: None, 1000, 0)


# ---- what others encoded ---------------------------------------------------------------------------------------------

COOKIE = 0x1C849313


def encoded(highest, digits, *counts):
    """The V2 encoding of a histogram with these counts from its first bucket on."""
    payload = b"".join(map(written, counts))
    header = struct.pack(">IIIIQQd", COOKIE, len(payload), 0, digits, 1, highest, 1.0)
    return header + payload


def written(number):
    """ZigZag, then seven bits a byte; a ninth byte holds eight."""
    bits = (number << 1) ^ (number >> 63)
    written = bytearray()
    while len(written) < 8 and bits >= 0x80:
        written.append(bits & 0x7F | 0x80)
        bits >>= 7
    return bytes([*written, bits & 0xFF])


@pytest.mark.parametrize("digits", [1, 2, 3])
@pytest.mark.timeout(20)
def test_the_largest_range_ends(digits):
    histogram = Histogram.decode(encoded(2**62, digits, 1, 2))
    assert (histogram.count, histogram.max) == (3, 1)
    histogram.record(2**62)
    assert histogram.max == histogram.percentile(100) == 2**62


@pytest.mark.parametrize("counts", [(2**62, 1), (2**62 + 1,), (2**63 - 1, 2**63 - 1)])
def test_more_values_than_can_be_counted_are_refused(counts):
    with pytest.raises(LocalError, match=r"at most 2\^62"):
        Histogram.decode(encoded(1000, 1, *counts))


def test_histograms_whose_sum_cannot_be_counted_are_not_added():
    full, one = Histogram.decode(encoded(1000, 1, 2**62)), Histogram.decode(encoded(1000, 1, 1))
    with pytest.raises(LocalError, match=r"at most 2\^62"):
        full.add(one)
    assert full.count == 2**62
