"""What one read of a directory brings, and what an event may bring."""

from contextlib import suppress

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


@pytest.mark.parametrize("perms", [["n0"], ["r0"], ["w0"], ["n0", "r{}"], ["r0", "n{}"], ["b{}"], ["n{}", "w0"]])
def test_it_is_what_single_reads_bring(board, home, perms):
    store, guest, path = home
    other = board.boot("other")
    store.write(guest, 0, f"{path}/own", b"1")
    store.write(DOM0, 0, f"{path}/other", b"2")
    store.set_perms(DOM0, 0, f"{path}/other", [entry.format(guest) for entry in perms])
    store.set_perms(DOM0, 0, path, [f"n{guest}", f"r{other}"])
    for reader in (guest, other, DOM0):
        assert plain_nodes(store, reader, path) == _read_one_by_one(store, reader, path)


def _read_one_by_one(store, reader, path):
    values = {}
    for name in store.directory(reader, 0, path):
        with suppress(StoreError):
            values[name] = store.read(reader, 0, f"{path}/{name}")
    return values


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
