"""Owns what the package offers to authors of guests."""

import pytest

import hvd.domains
from hvd.domains.guest import Guest


def test_guest_is_offered_by_the_package():
    assert hvd.domains.Guest is Guest


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Ghost'"):
        _ = hvd.domains.Ghost
