"""Multicalls: how much one brings, whatever it asks for."""

import errno

import pytest

from hvd.broker import multicall
from hvd.broker.answers import Answer
from hvd.broker.directories import NODES_MAX
from hvd.broker.dispatch import handle
from hvd.transport import messages as m
from hvd.transport.codec import pack_call, pack_reply
from hvd.transport.descriptors import DESCRIPTORS_PER_MESSAGE
from hvd.transport.ids import DOM0, DOMID_SELF, GrantRef, Port
from hvd.transport.limits import MULTICALL_REPLY_BYTES_MAX, MULTICALL_WORK_MAX
from hvd.transport.multicall import MULTICALL_MAX, ask_each

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


def asked_in_parts(board, caller, *calls):
    """What came of each, and how many each hypercall carried out."""
    parts: list[int] = []

    def ask(message):
        answer = handle(board.h, caller, message, board.now)
        parts.append(len(answer.value))
        keys = [key for key, _ in answer.descriptors]
        return (answer.value, keys) if keys else answer.value

    return list(ask_each(ask, calls)), parts


def test_whoever_sends_more_than_one_takes_makes_as_few_as_may_be(board, guest):
    found, parts = asked_in_parts(board, guest, *[m.StoreRead(0, "data/none")] * (2 * MULTICALL_MAX + 1))
    assert parts == [MULTICALL_MAX, MULTICALL_MAX, 1]
    assert {answered.errno for answered in found} == {errno.ENOENT}


# ---- reads -----------------------------------------------------------------------------------------------------------


def test_a_reply_brings_no_more_than_multicall_reply_bytes_max_and_the_next_brings_the_next(board, guest):
    calls = [m.StoreReadAll("data")] * 63 + [m.StoreRead(0, "data/n1")]
    one = handle(board.h, guest, calls[0], board.now).value
    fit = MULTICALL_REPLY_BYTES_MAX // sum(len(name) + len(value) for name, value in one.items())
    found, parts = asked_in_parts(board, guest, *calls)
    assert [answered.value for answered in found] == [one] * 63 + [VALUE]
    assert parts == [fit] * (63 // fit) + [63 % fit + 1]
    reply = pack_reply(1, 0, replies(board, guest, *calls), 0)
    assert len(reply) < MULTICALL_REPLY_BYTES_MAX + OVERHEAD * NODES_MAX * fit


def test_a_small_value_counts_as_much_as_it_takes_to_find_it_and_one_is_looked_for_behind_the_bound():
    asked: list[object] = []

    def one(call: object) -> Answer:
        asked.append(call)
        return Answer([""] * 100, ())

    calls = [pack_call(m.StoreDirectory(0, "data"))] * MULTICALL_MAX
    fit = MULTICALL_REPLY_BYTES_MAX // (100 * multicall.ITEM_BYTES_LEAST)
    assert len(multicall.carry_out(calls, one, int, bool).value) == fit < MULTICALL_MAX
    assert len(asked) == fit + 1


def test_one_read_that_is_more_than_a_reply_brings_is_brought_alone(board, guest, monkeypatch):
    monkeypatch.setattr(multicall, "MULTICALL_REPLY_BYTES_MAX", 1000)
    found, parts = asked_in_parts(board, guest, *[m.StoreReadAll("data"), m.StoreRead(0, "data/n1")] * 2)
    assert ([answered.errno for answered in found], parts) == ([0] * 4, [1] * 4)


# ---- changes ---------------------------------------------------------------------------------------------------------


def test_a_multicall_is_preempted_behind_the_call_with_which_it_has_taken_multicall_work_max(board, guest):
    writes = [m.StoreWrite(0, f"data/w{n}", b"%d" % n) for n in range(64)]
    found, parts = asked_in_parts(board, guest, *writes)
    fit = -(-MULTICALL_WORK_MAX // (multicall.CALL_WORK + 2))
    assert parts == [fit, 64 - fit]
    assert [answered.errno for answered in found] == [0] * 64
    assert handle(board.h, guest, m.StoreRead(0, "data/w63"), board.now).value == b"63"


@pytest.mark.parametrize("names", [60, 120])
@pytest.mark.parametrize("in_transaction", [False, True])
def test_each_node_that_is_made_takes_time_also_in_a_transaction(board, guest, names, in_transaction):
    tx = handle(board.h, guest, m.StoreTransactionStart(), board.now).value if in_transaction else 0
    parts = asked_in_parts(board, guest, *[m.StoreMkdir(tx, f"data/{n}" + "/x" * names) for n in range(5)])[1]
    made = [4, 1] if names == 60 else [2, 2, 1]
    assert parts == (made if in_transaction else [1] * 5), "what many nodes bring with them their caller waits for"


@pytest.mark.parametrize("in_transaction", [False, True])
def test_each_node_that_is_removed_takes_time_also_in_a_transaction(board, guest, in_transaction):
    for tree in range(18):
        for n in range(20):
            handle(board.h, guest, m.StoreMkdir(0, f"data/t{tree}/{n}"), board.now)
    tx = handle(board.h, guest, m.StoreTransactionStart(), board.now).value if in_transaction else 0
    found, parts = asked_in_parts(board, guest, *[m.StoreRm(tx, f"data/t{tree}") for tree in range(18)])
    fit = -(-MULTICALL_WORK_MAX // (multicall.CALL_WORK + 2 * 21))
    assert (parts, {answered.errno for answered in found}) == ([fit, fit, 18 - 2 * fit], {0})


def test_behind_a_change_of_so_many_nodes_that_its_caller_waits_for_it_a_multicall_is_preempted(board, guest):
    """In a transaction a read would finish all of it at once."""
    for n in range(180):
        handle(board.h, guest, m.StoreMkdir(0, f"data/t/{n}"), board.now)
    tx = handle(board.h, guest, m.StoreTransactionStart(), board.now).value
    calls = [m.StoreRead(tx, "data"), m.StoreRm(tx, "data/t"), m.StoreRead(tx, "data"), m.StoreMkdir(tx, "data/t")]
    assert len(replies(board, guest, *calls)) == 2
    while board.h.store.has_unsettled:
        board.h.store.settle()
    assert [code for code, *_ in replies(board, guest, *calls[2:])] == [0, 0]


def test_a_multicall_is_preempted_where_its_caller_may_reach_a_quota_while_others_nodes_are_counted(board):
    """It would have all of them counted at once: a single call of his waits."""
    dom = board.boot("small")
    for n in range(200):
        handle(board.h, DOM0, m.StoreMkdir(0, f"/big/{n}"), board.now)
    store, n = board.h.store, 0
    while store.usage(dom).nodes < store.limits(dom).nodes_max - store.limits(dom).depth_max - 2:
        handle(board.h, dom, m.StoreMkdir(0, f"data/{n // 100}/{n % 100}"), board.now)
        n += 1
    calls = [m.StoreMkdir(0, f"data/g{each}" + "/x" * 34) for each in range(6)]
    handle(board.h, DOM0, m.StoreRm(0, "/big"), board.now)
    assert store.has_unsettled and len(replies(board, dom, *calls)) == 1


def test_three_commits_are_not_made_in_one(board, guest):
    numbers = [handle(board.h, guest, m.StoreTransactionStart(), board.now).value for _ in range(3)]
    found, parts = asked_in_parts(board, guest, *[m.StoreTransactionEnd(number, True) for number in numbers])
    assert ([answered.errno for answered in found], parts) == ([0, 0, 0], [2, 1])


def test_whoever_hears_of_it_takes_as_much_time_as_a_change(board, guest):
    """Of one's own watches and of whoever may read it."""
    for number in range(100):
        handle(board.h, guest, m.StoreWatch("data/w", str(number)), board.now)
    _, parts = asked_in_parts(board, guest, *[m.StoreWrite(0, "data/w", b"%d" % n) for n in range(16)])
    assert parts == [-(-MULTICALL_WORK_MAX // (multicall.CALL_WORK + 2 + 100))] * 4


def test_a_call_that_is_too_much_by_itself_is_carried_out_alone(board, guest, monkeypatch):
    monkeypatch.setattr(multicall, "MULTICALL_WORK_MAX", 1)
    calls = [m.StoreWrite(0, "data/n0", b"1"), m.StoreRead(0, "data/n0")] * 2
    found, parts = asked_in_parts(board, guest, *calls)
    assert [answered.value for answered in found] == [None, b"1"] * 2
    assert parts == [1, 2, 1], "a read is not work"


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


def test_one_that_might_bring_more_descriptors_than_a_message_has_is_preempted(board, offered):
    drv, guest, ref, port = offered
    maps = [m.GnttabMap(guest, ref, 1, True)] * (DESCRIPTORS_PER_MESSAGE - 2)
    found, parts = asked_in_parts(board, drv, m.EvtchnBindInterdomain(guest, port), *maps)
    assert [answered.errno for answered in found] == [0] * (DESCRIPTORS_PER_MESSAGE - 1)
    assert len(found[0].descriptors) == 3
    # All of one extent, whose descriptor comes once.
    assert parts == [DESCRIPTORS_PER_MESSAGE - 1]


def test_descriptors_that_would_be_one_too_many_come_with_the_next(board):
    drv, guest = board.boot("drv"), board.boot("offering")
    refs = []
    for _ in range(DESCRIPTORS_PER_MESSAGE + 1):
        extent = handle(board.h, guest, m.GnttabAllocate(drv, 1, False), board.now).value
        refs.append(handle(board.h, guest, m.GnttabShare(extent, 0, 1), board.now).value)
    found, parts = asked_in_parts(board, drv, *[m.GnttabMap(guest, GrantRef(ref), 1, True) for ref in refs])
    assert parts == [DESCRIPTORS_PER_MESSAGE, 1]
    assert [len(answered.descriptors) for answered in found] == [1] * (DESCRIPTORS_PER_MESSAGE + 1)
