"""A network's rules in the keys of a vif's backend: they come out as they went in, all of them or none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvd.transport.packed_rules import KEY_BYTES_MAX, pack_rules, unpack_rules

LINES = st.sampled_from(["allow ether=arp", "deny proto=tcp to-port=22", "allow " + "from=x" * 80])


@given(st.lists(LINES, max_size=200), st.booleans())
def test_rules_come_out_of_a_vifs_keys_as_they_went_in(lines, allow):
    keys = pack_rules(lines, allow_by_default=allow)
    assert all(len(value) <= KEY_BYTES_MAX for value in keys.values())
    assert unpack_rules(keys | {"mac": "x"}) == (lines, allow)


@given(st.lists(LINES, min_size=1, max_size=200), st.booleans(), st.data())
def test_who_finds_some_of_the_rules_finds_none(lines, allow, data):
    keys = pack_rules(lines, allow_by_default=allow)
    del keys[data.draw(st.sampled_from(sorted(keys)))]
    with pytest.raises(ValueError, match="count of"):
        unpack_rules(keys)


def test_a_vif_without_rules_has_none():
    assert unpack_rules({"mac": "x"}) is None
    assert unpack_rules({"hvd-default": "deny 0"}) == ([], False)
    with pytest.raises(ValueError, match="'maybe'"):
        unpack_rules({"hvd-default": "maybe"})
