"""Multicalls: how much one brings, whatever it asks for."""

import errno
from itertools import pairwise

import pytest

from hvd.broker import multicall
from hvd.broker.answers import Answer
from hvd.broker.directories import NODES_MAX
from hvd.broker.dispatch import handle
from hvd.broker.errors import Refused
from hvd.transport import messages as m
from hvd.transport.codec import pack_call, pack_reply
from hvd.transport.descriptors import DESCRIPTORS_PER_MESSAGE
from hvd.transport.ids import DOM0, DOMID_SELF, GrantRef, Port
from hvd.transport.limits import MULTICALL_REPLY_BYTES_MAX
from hvd.transport.multicall import MULTICALL_MAX, MULTICALL_NAMES_MAX, is_too_much, split

VALUE = bytes(1900)
OVERHEAD = 16
"""Bytes that msgpack puts around one name and value, at the most."""


@pytest.fixture
def guest(board):
    """With a directory as full as one hypercall reads."""
    dom = board.boot("guest")
    for number in range(NODES_MAX):
        handle(board.h, dom, m.StoreWrite(0, f"data/n{number}", VALUE), board.now)
    return dom


def replies(board, caller, *calls):
    return handle(board.h, caller, m.Multicall([pack_call(call) for call in calls]), board.now).value


def test_reads_past_multicall_reply_bytes_max_are_e2big_in_their_place(board, guest):
    calls = [m.StoreReadAll("data")] * 63 + [m.StoreRead(0, "data/n1")]
    found = replies(board, guest, *calls)
    whole = sum(len(name) + len(value) for name, value in found[0][1].items())
    fit = MULTICALL_REPLY_BYTES_MAX // whole
    assert [code for code, *_ in found] == [0] * fit + [errno.E2BIG] * (64 - fit)
    assert f"at most {MULTICALL_REPLY_BYTES_MAX} bytes" in found[fit][1]
    assert len(pack_reply(1, 0, found, 0)) < MULTICALL_REPLY_BYTES_MAX + OVERHEAD * NODES_MAX * fit


def test_a_small_value_counts_as_much_as_it_takes_to_find_it_and_none_is_looked_for_behind_the_bound(board, guest):
    asked: list[object] = []

    def one(call: object) -> Answer:
        asked.append(call)
        return Answer([""] * 100, ())

    calls = [pack_call(m.StoreDirectory(0, "data"))] * MULTICALL_MAX
    found = multicall.carry_out(calls, one).value
    fit = MULTICALL_REPLY_BYTES_MAX // (100 * multicall.ITEM_BYTES_LEAST)
    assert [code for code, *_ in found] == [0] * fit + [errno.E2BIG] * (MULTICALL_MAX - fit)
    assert len(asked) == fit + 1


def test_as_many_names_as_a_multicall_has_are_carried_out_and_more_are_refused_as_a_whole(board, guest):
    path = "data" + "/x" * (MULTICALL_NAMES_MAX // 16 - 1)
    assert all(not code for code, *_ in replies(board, guest, *[m.StoreMkdir(0, path)] * 16))
    said = f"has at most {MULTICALL_NAMES_MAX} names on its paths; these have {MULTICALL_NAMES_MAX + 1}"
    with pytest.raises(Refused, match=said) as refused:
        replies(board, guest, m.StoreMkdir(0, "new"), *[m.StoreMkdir(0, path)] * 16)
    assert refused.value.errno == errno.E2BIG
    assert replies(board, guest, m.StoreRead(0, "new"))[0][0] == errno.ENOENT
    longest = m.StoreMkdir(0, "/x" * (MULTICALL_NAMES_MAX + 1))
    assert replies(board, DOM0, longest)[0][0] == 0, "a single one is never too long"


def test_whoever_splits_makes_what_the_broker_takes_and_as_few_as_may_be():
    short, long = m.StoreRead(0, "a"), m.StoreMkdir(0, "/x" * MULTICALL_NAMES_MAX)
    maps = m.GnttabMap(DOM0, GrantRef(1), 1, False)
    calls = [long, *[short] * (MULTICALL_MAX + 1), *[maps] * (DESCRIPTORS_PER_MESSAGE + 1), long, long]
    some = list(split(calls))
    assert [call for each in some for call in each] == calls
    assert not any(is_too_much(each) for each in some)
    assert all(is_too_much([*each, after[0]]) for each, after in pairwise(some))


def test_a_write_behind_a_read_that_is_too_large_is_carried_out(board, guest):
    found = replies(board, guest, *[m.StoreReadAll("data")] * 9, m.StoreWrite(0, "data/n0", b"1"))
    assert found[8][0] == errno.E2BIG
    assert found[9] == [0, None, 0]
    assert handle(board.h, guest, m.StoreRead(0, "data/n0"), board.now).value == b"1"


def test_reading_all_children_of_the_root_brings_them(board, guest):
    handle(board.h, DOM0, m.StoreWrite(0, "/top", b"1"), board.now)
    assert handle(board.h, DOM0, m.StoreReadAll("/"), board.now).value["top"] == b"1"


# ---- grants and event channels ---------------------------------------------------------------------------------------


@pytest.fixture
def offered(board):
    """A driver domain; a guest, the ref of its ring and the port that it holds open for it."""
    drv, guest = board.boot("drv"), board.boot("offering")
    extent = handle(board.h, guest, m.GnttabAllocate(drv, 4, False), board.now).value
    ref = handle(board.h, guest, m.GnttabShare(extent, 0, 4), board.now).value
    port = handle(board.h, guest, m.EvtchnAllocUnbound(DOMID_SELF, drv), board.now).value["port"]
    return drv, guest, GrantRef(ref), Port(port)


def test_a_device_is_attached_with_one_and_the_descriptors_of_all_come_in_order(board, offered):
    drv, guest, ref, port = offered
    calls = [m.GnttabMap(guest, ref, 1, True), m.GnttabMap(guest, GrantRef(ref + 1), 1, True),
             m.EvtchnBindInterdomain(guest, port)]  # fmt: skip
    answer = handle(board.h, drv, m.Multicall([pack_call(call) for call in calls]), board.now)
    (first, mapped, one), (second, again, none), (third, bound, three) = answer.value
    assert (first, second, third, one, none, three) == (0, 0, 0, 1, 0, 3)  # the second is of the same extent
    assert (mapped["first_page"], again["first_page"], bound["side"]) == (0, 1, 1)
    kinds = [key.partition(":")[0] for key, _ in answer.descriptors]
    assert kinds == ["extent", "channel", "channel", "channel"]


def test_a_refused_mapping_stops_nothing_and_brings_no_descriptor(board, offered):
    drv, guest, ref, port = offered
    found = replies(board, drv, m.GnttabMap(guest, GrantRef(ref + 9), 1, True), m.EvtchnBindInterdomain(guest, port))
    assert [(bool(code), count) for code, _, count in found] == [(True, 0), (False, 3)]


def test_nobody_maps_or_binds_with_one_what_was_not_offered_to_him(board, offered):
    _, guest, ref, port = offered
    stranger = board.boot("stranger")
    calls = m.GnttabMap(guest, ref, 1, True), m.EvtchnBindInterdomain(guest, port)
    assert all(code and not count for code, _, count in replies(board, stranger, *calls))


def test_one_that_might_bring_more_descriptors_than_a_message_has_is_refused_as_a_whole(board, offered):
    drv, guest, ref, port = offered
    maps = [m.GnttabMap(guest, ref, 1, True)] * (DESCRIPTORS_PER_MESSAGE - 2)
    with pytest.raises(Refused, match=f"at most {DESCRIPTORS_PER_MESSAGE} descriptors; these may bring") as refused:
        replies(board, drv, m.EvtchnBindInterdomain(guest, port), *maps)
    assert refused.value.errno == errno.E2BIG
    assert [code for code, *_ in replies(board, drv, m.EvtchnBindInterdomain(guest, port), *maps[1:])] == [0] * 14


def test_a_mapping_behind_reads_that_fill_a_reply_is_no_failure(board, offered, monkeypatch):
    """Its handle would be lost."""
    drv, guest, ref, _ = offered
    monkeypatch.setattr(multicall, "MULTICALL_REPLY_BYTES_MAX", multicall.ITEM_BYTES_LEAST)
    handle(board.h, drv, m.StoreWrite(0, "data/four", b"four"), board.now)
    read = m.StoreRead(0, "data/four")
    found = replies(board, drv, read, read, m.GnttabMap(guest, ref, 1, True))
    assert [(code, count) for code, _, count in found] == [(0, 0), (errno.E2BIG, 0), (0, 1)]
