"""The table of bounds that the documents are made from."""

from pathlib import Path

import pytest

from hvd.transport import limits
from hvd.transport.limits import LIMITS

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", LIMITS)
def test_a_bound_is_a_constant_of_that_name_and_says_what_happens_at_it(name):
    limit = LIMITS[name]
    assert getattr(limits, name.upper()) == limit.value > 0
    assert limit.unit
    assert limit.reached


@pytest.mark.parametrize("name", LIMITS)
def test_the_test_that_shows_a_bound_exists_and_names_it(name):
    text = (ROOT / LIMITS[name].test).read_text()
    assert name.upper() in text, f"{LIMITS[name].test} does not speak of {name.upper()}"
