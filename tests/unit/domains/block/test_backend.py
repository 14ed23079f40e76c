"""What a block backend makes of a frontend's keys."""

import pytest

from hvd.domains.block.backend import ring_refs
from hvd.transport.errors import PeerFault


def pages(order, first=8, **others):
    return {"ring-page-order": str(order)} | {f"ring-ref{i}": str(first + i) for i in range(1 << order)} | others


@pytest.mark.parametrize(
    ("keys", "found"),
    [({"ring-ref": "8"}, (8, 1)), (pages(0), (8, 1)), (pages(1), (8, 2)), (pages(4, 100), (100, 16))],
)
def test_a_ring_is_its_first_ref_and_its_pages(keys, found):
    assert ring_refs(keys) == found


@pytest.mark.parametrize(
    ("keys", "blame"),
    [
        ({}, "ring-page-order is missing"),
        ({"ring-ref": ""}, "ring-ref is no number"),
        ({"ring-ref": "-1"}, "ring-ref is no number"),
        ({"ring-ref": "٣"}, "ring-ref is no number"),
        ({"ring-ref": "1" * 5000}, "ring-ref is no number"),
        (pages(5), "ring-page-order 5; at most 4"),
        ({"ring-page-order": "1", "ring-ref0": "8"}, "ring-ref1 is missing"),
        (pages(1) | {"ring-ref1": "10"}, "not consecutive"),
        (pages(1) | {"ring-ref1": "7"}, "not consecutive"),
    ],
)
def test_nonsense_is_the_frontends_fault_and_named(keys, blame):
    with pytest.raises(PeerFault, match=blame):
        ring_refs(keys)
