"""Multicalls: how much one brings, whatever it asks for."""

import errno

import pytest

from hvd.broker.dispatch import READ_ALL_MAX, handle
from hvd.transport import messages as m
from hvd.transport.codec import pack_call, pack_reply
from hvd.transport.ids import DOM0
from hvd.transport.limits import MULTICALL_REPLY_BYTES_MAX

VALUE = bytes(1900)
OVERHEAD = 16
"""Bytes that msgpack puts around one name and value, at the most."""


@pytest.fixture
def guest(board):
    """With a directory as full as one hypercall reads."""
    dom = board.boot("guest")
    for number in range(READ_ALL_MAX):
        handle(board.h, dom, m.StoreWrite(0, f"data/n{number}", VALUE), board.now)
    return dom


def replies(board, caller, *calls):
    return handle(board.h, caller, m.Multicall([pack_call(call) for call in calls]), board.now).value


def test_reads_past_multicall_reply_bytes_max_are_e2big_in_their_place(board, guest):
    calls = [m.StoreReadAll("data")] * 63 + [m.StoreRead(0, "data/n1")]
    found = replies(board, guest, *calls)
    whole = sum(len(name) + len(value) for name, value in found[0][1].items())
    fit = MULTICALL_REPLY_BYTES_MAX // whole
    assert [code for code, _ in found] == [0] * fit + [errno.E2BIG] * (63 - fit) + [0]
    assert f"at most {MULTICALL_REPLY_BYTES_MAX} bytes" in found[fit][1]
    assert len(pack_reply(1, 0, found, 0)) < MULTICALL_REPLY_BYTES_MAX + OVERHEAD * READ_ALL_MAX * fit


def test_a_write_behind_a_read_that_is_too_large_is_carried_out(board, guest):
    found = replies(board, guest, *[m.StoreReadAll("data")] * 9, m.StoreWrite(0, "data/n0", b"1"))
    assert found[8][0] == errno.E2BIG
    assert found[9] == [0, None]
    assert handle(board.h, guest, m.StoreRead(0, "data/n0"), board.now).value == b"1"


def test_reading_all_children_of_the_root_brings_them(board, guest):
    handle(board.h, DOM0, m.StoreWrite(0, "/top", b"1"), board.now)
    assert handle(board.h, DOM0, m.StoreReadAll("/"), board.now).value["top"] == b"1"
