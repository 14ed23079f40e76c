"""A console's directory in XenStore: whose it is, and what of it outlives which death."""

import errno

import pytest

from hvd.broker.store import StoreError
from hvd.transport.ids import DOM0


def node(board, dom, key):
    try:
        return board.h.store.read(DOM0, 0, f"/local/domain/{dom}/console/{key}").decode()
    except StoreError:
        return None


def publish_tty(board, dom):
    board.h.store.write(DOM0, 0, f"/local/domain/{dom}/console/tty", b"/dev/pts/7")


def test_a_console_is_there_before_its_domain_is(board):
    guest = board.create("guest")
    keys = {key: node(board, guest, key) for key in ("ring-ref", "port", "type", "limit", "incarnation", "tty")}
    assert keys == {"ring-ref": "0", "port": "2", "type": "hvd", "limit": "1048576", "incarnation": "1", "tty": None}


@pytest.mark.parametrize("path", ["console/tty", "console/incarnation", "console/new"])
def test_a_domain_reads_its_console_and_writes_nothing_there(board, path):
    guest = board.boot("guest")
    publish_tty(board, guest)
    assert board.h.store.read(guest, 0, "console/tty") == b"/dev/pts/7"
    with pytest.raises(StoreError) as refused:
        board.h.store.write(guest, 0, path, b"mine")
    assert refused.value.errno == errno.EACCES


def test_a_restart_keeps_the_terminal_and_tells_the_incarnation(board):
    guest = board.boot("guest")
    publish_tty(board, guest)
    board.dies(guest)
    assert (node(board, guest, "tty"), node(board, guest, "incarnation")) == ("/dev/pts/7", "2")


def test_domain_0s_death_takes_every_terminal_with_it(board):
    guest = board.boot("guest")
    for dom in (DOM0, guest):
        publish_tty(board, dom)
    board.dies(DOM0)
    assert (node(board, DOM0, "tty"), node(board, guest, "tty")) == (None, None)
    assert node(board, guest, "incarnation") == "1"


def test_a_destroyed_domains_console_is_gone(board):
    guest = board.boot("guest", on_crash="destroy")
    publish_tty(board, guest)
    board.dies(guest)
    assert node(board, guest, "tty") is None
