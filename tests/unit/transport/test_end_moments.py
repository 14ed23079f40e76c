"""The moments of an end as an event's words: what is told is read again, and nothing else is."""

import pytest

from hvd.transport.end_moments import EndMoments, moments_told


@pytest.mark.parametrize("moments", [(5, 5, 5), (1_000, 2_000_001, 7_000_000), (0, 1, 86_400_000_000_000)])
def test_what_is_told_is_read_again_to_the_nanosecond(moments):
    made = EndMoments(*moments)
    told_at_ns = made.reaped_ns + 50_123_456
    assert moments_told(made.told(told_at_ns), told_at_ns) == made


def test_a_detail_reads_well():
    told = EndMoments(1_000_000, 2_500_000, 7_000_000).told(10_000_000)
    assert told == "suspected 9.000000 ms, fenced 7.500000 ms, reaped 3.000000 ms before"


@pytest.mark.parametrize("detail", ["", "killed by SIGKILL", "suspected 1 ms, fenced x ms, reaped 0 ms before"])
def test_other_words_are_refused_with_what_they_are(detail):
    with pytest.raises(ValueError, match="does not tell when an end was suspected"):
        moments_told(detail, 0)
