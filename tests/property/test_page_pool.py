"""The page pool: what is taken and what is free are the whole pool, once each, in whatever order."""

from hypothesis import given
from hypothesis import strategies as st

from hvd.domains.block.pool import PagePool, Run

PAGES = 64


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 20)), max_size=200))
def test_no_page_is_lost_or_given_twice(steps):
    pool = PagePool(PAGES)
    taken: list[Run] = []
    for takes, number in steps:
        if takes:
            longest = max((run.count for run in pool._free), default=0)
            run = pool.take(number)
            assert (run is not None) == (longest >= number)
            taken += [run] if run else []
        elif taken:
            pool.give_back(taken.pop(number % len(taken)))
        pages = [page for run in taken for page in range(run.first, run.first + run.count)]
        assert len(pages) == len(set(pages)) == PAGES - pool.free
        assert all(0 <= page < PAGES for page in pages)
    for run in taken:
        pool.give_back(run)
    assert pool.take(PAGES) == Run(0, PAGES)
