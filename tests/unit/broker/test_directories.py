"""What one read of a directory brings, and what an event may bring."""

import pytest

from hvd.broker.directories import EVENT_BYTES_MAX, NODES_MAX, brought_by_event, plain_nodes
from hvd.broker.store import StoreError
from hvd.transport.ids import DOM0


@pytest.fixture
def home(board):
    guest = board.boot("guest")
    return board.h.store, guest, f"/local/domain/{guest}/data"


def test_it_is_what_the_reader_may_see_of_it(home):
    store, guest, path = home
    store.write(guest, 0, f"{path}/seen", b"1")
    store.write(DOM0, 0, f"{path}/hidden", b"2")
    store.set_perms(DOM0, 0, f"{path}/hidden", ["n0"])
    assert plain_nodes(store, guest, path) == {"seen": b"1"}
    with pytest.raises(StoreError):
        plain_nodes(store, guest, f"{path}/nothing")


def test_so_many_nodes_are_read_and_no_more(home):
    store, guest, path = home
    for number in range(NODES_MAX + 1):
        store.write(guest, 0, f"{path}/{number:03}", b"")
    assert len(plain_nodes(store, guest, path)) == NODES_MAX


def test_an_event_brings_nothing_of_a_directory_that_is_gone_or_holds_too_much(home):
    store, guest, path = home
    store.write(guest, 0, f"{path}/a", b"x" * 2000)
    assert brought_by_event(store, guest, path) == {"a": b"x" * 2000}
    assert brought_by_event(store, guest, f"{path}/nothing") is None
    for number in range(EVENT_BYTES_MAX // 2000):
        store.write(guest, 0, f"{path}/{number}", b"x" * 2000)
    assert brought_by_event(store, guest, path) is None
