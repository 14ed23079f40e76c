"""What a fault makes of a domain's hypercalls: which are hit, in which order they arrive, and what is counted."""

from __future__ import annotations

import errno

import pytest

from hvd.broker.faults import Fault
from hvd.broker.message_faults import HELD_MAX, MessageFault
from hvd.transport import messages as m
from hvd.transport.codec import BadMessage, pack_request, unpack_request
from hvd.transport.faults import FaultKind
from hvd.transport.ids import DomId, Incarnation

CLIENT = b"domain"


def fault(kind, rate=1000, amount=0, seed=1):
    return MessageFault(Fault(1, kind, DomId(1), Incarnation(1), 10**18, seed, rate, amount))


def request(sequence):
    return CLIENT, pack_request(m.XenVersion(), sequence, 0, 0)


def arrivals(made, sequences, now_ns=0):
    """The numbers that are carried out, request by request."""
    return [[unpack_request(body)[0] for _, body in made.arrived(request(n), now_ns)] for n in sequences]


def test_at_a_rate_of_0_nothing_is_hit():
    for kind in FaultKind:
        assert arrivals(fault(kind, rate=0), [1, 2, 3]) == [[1], [2], [3]]


def test_what_is_dropped_is_not_carried_out_and_that_it_comes_again_is_counted():
    made = fault(FaultKind.DROP_HYPERCALLS)
    assert arrivals(made, [1, 1, 1]) == [[], [], []]
    assert (made.counts["requests dropped"], made.counts["sent again"]) == (3, 2)
    assert made.loses_reply()
    assert made.counts["replies dropped"] == 1


def test_no_other_fault_loses_replies():
    assert not any(fault(kind).loses_reply() for kind in FaultKind if kind is not FaultKind.DROP_HYPERCALLS)


def test_what_is_duplicated_is_carried_out_twice_and_the_second_answer_is_a_repeat():
    made = fault(FaultKind.DUPLICATE_HYPERCALLS)
    assert arrivals(made, [1]) == [[1, 1]]
    for _ in range(2):
        made.answered(1, 0)
    assert (made.counts["duplicated"], made.counts["repeats"]) == (1, 1)


def test_what_is_reordered_arrives_behind_the_next():
    made = fault(FaultKind.REORDER_HYPERCALLS)
    assert arrivals(made, [1, 2, 3, 4]) == [[], [2, 1], [], [4, 3]]
    assert made.take_due(10**18) == []


def test_what_is_delayed_arrives_when_its_time_has_come_in_order():
    made = fault(FaultKind.DELAY_HYPERCALLS, amount=500)
    assert arrivals(made, [1, 2], now_ns=1000) == [[], []]
    assert made.due_ns() == 501_000
    assert made.take_due(500_999) == []
    assert made.take_due(501_000) == [request(1), request(2)]
    assert made.due_ns() is None
    assert made.counts["late"] == 2


def test_no_more_than_held_max_wait_to_be_late():
    made = fault(FaultKind.DELAY_HYPERCALLS, amount=500)
    assert arrivals(made, range(1, HELD_MAX + 2)) == [*([[]] * HELD_MAX), [HELD_MAX + 1]]


def test_what_is_too_large_comes_before_the_request_and_the_codec_refuses_it():
    made = fault(FaultKind.OVERSIZE_HYPERCALLS)
    large, ours = made.arrived(request(1), 0)
    assert ours == request(1)
    with pytest.raises(BadMessage, match="a hypercall has at most"):
        unpack_request(large[1])
    made.answered(0, errno.EBADMSG)
    assert made.counts["refused"] == 1
    assert made.counts["repeats"] == 0


def test_the_seed_decides_which_are_hit_and_the_rate_how_many():
    def hits(seed):
        return [not carried for carried in arrivals(fault(FaultKind.DROP_HYPERCALLS, 300, seed=seed), range(1, 2001))]

    assert hits(1) == hits(1) != hits(2)
    assert 500 < sum(hits(1)) < 700


def test_what_is_no_hypercall_at_all_passes_through():
    made = fault(FaultKind.DROP_HYPERCALLS, rate=0)
    assert made.arrived((CLIENT, b"\xc1"), 0) == [(CLIENT, b"\xc1")]
