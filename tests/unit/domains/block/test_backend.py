"""What a block backend makes of a frontend's keys."""

import pytest

from hvd.domains.block.backend import ring_refs
from hvd.transport.errors import PeerFault


def pages(order, first=8, **others):
    return {"ring-page-order": str(order)} | {f"ring-ref{i}": str(first + i) for i in range(1 << order)} | others


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ({"ring-ref": "8"}, [8]),
        (pages(0), [8]),
        (pages(1), [8, 9]),
        (pages(4, 100), list(range(100, 116))),
        (pages(1) | {"ring-ref1": "3"}, [8, 3]),
    ],
)
def test_a_ring_is_its_pages_in_their_order_wherever_they_are(keys, found):
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
    ],
)
def test_nonsense_is_the_frontends_fault_and_named(keys, blame):
    with pytest.raises(PeerFault, match=blame):
        ring_refs(keys)
