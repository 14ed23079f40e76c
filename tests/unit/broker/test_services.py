"""Named services: a single one is active, the next one behind the fence, and nobody writes what is not his any more."""

import errno

import pytest

from hvd.broker.errors import Refused
from hvd.broker.store import StoreError
from hvd.broker.sysctl import describe
from hvd.transport.ids import DOM0
from hvd.transport.messages import DomainConfig

HOME = "/local/service/gate"


def boot(board, name, **fields):
    return board.boot(name, service="gate", **fields)


def ready(board, dom):
    """The next incarnation of a domain is at work."""
    board.started(dom)
    board.h.domain_ready(dom, board.now)


def told(board):
    """What stands in the store: who is active, and its epoch."""
    return read(board, "active"), read(board, "epoch")


def read(board, key, caller=DOM0):
    return board.h.store.read(caller, 0, f"{HOME}/{key}").decode()


def role(board, dom):
    return describe(board.h, board.h.domains[dom], board.now)["service"]


def refused(call, *args):
    with pytest.raises(StoreError) as refusal:
        call(*args)
    return refusal.value.errno


def test_the_first_that_is_ready_is_active_and_the_next_stands_by(board):
    one, two = boot(board, "one"), boot(board, "two")
    assert told(board) == (str(one), "1")
    assert (read(board, "name"), read(board, "incarnation")) == ("one", "1")
    assert (role(board, one), role(board, two)) == ("gate: active, epoch 1", "gate: stands by")


def test_one_that_is_not_ready_yet_is_neither(board):
    dom = board.create("one", service="gate")
    board.started(dom)
    assert (board.h.services, role(board, dom)) == ({}, "gate")


def test_at_its_death_the_one_that_stood_by_longest_is_active_and_it_stands_by_itself_when_it_is_back(board):
    one, two, three = boot(board, "one"), boot(board, "two"), boot(board, "three")
    board.dies(one)
    assert told(board) == (str(two), "2")
    ready(board, one)
    board.dies(two)
    assert told(board) == (str(three), "3")
    ready(board, two)
    board.dies(three)
    assert (told(board), role(board, two)) == ((str(one), "4"), "gate: stands by")


def test_the_death_of_one_that_stands_by_changes_nothing(board):
    one, two = boot(board, "one"), boot(board, "two")
    board.dies(two)
    assert told(board) == (str(one), "1")
    board.dies(one)
    assert told(board) == ("", "1")


def test_when_all_are_dead_nobody_is_active_until_one_is_back_under_a_higher_epoch(board):
    one, two = boot(board, "one"), boot(board, "two")
    board.dies(one)
    board.dies(two)
    assert told(board) == ("", "2")
    ready(board, two)
    assert told(board) == (str(two), "3")
    assert read(board, "incarnation") == "2"


def test_another_is_not_active_before_the_dead_ones_process_is_gone(board):
    one, two = boot(board, "one"), boot(board, "two")
    board.h.domain_shutdown(one, 3, "it crashed")
    assert told(board) == (str(one), "1")
    board.dies(one)
    assert told(board) == (str(two), "2")


def test_a_paused_one_stays_active(board):
    one, _ = boot(board, "one"), boot(board, "two")
    board.h.pause(one, board.now)
    board.after(10**12)
    assert told(board) == (str(one), "1")


def test_a_watchdog_that_bites_is_a_death_like_any(board):
    one, two = boot(board, "one"), boot(board, "two")
    board.will_be_due(one, watchdogs={1: 10**9})
    board.after(2 * 10**9)
    assert told(board) == (str(one), "1")
    board.dies(one)
    assert told(board) == (str(two), "2")


def test_data_is_the_active_ones_and_everybody_reads_it(board):
    one, two = boot(board, "one"), boot(board, "two")
    client = board.boot("client")
    board.h.store.write(one, 0, f"{HOME}/data/a/b", b"1")
    assert read(board, "data/a/b", client) == "1"
    assert refused(board.h.store.write, two, 0, f"{HOME}/data/a/b", b"2") == errno.EACCES
    assert refused(board.h.store.write, client, 0, f"{HOME}/data/c", b"2") == errno.EACCES
    assert refused(board.h.store.write, one, 0, f"{HOME}/active", b"2") == errno.EACCES


def test_one_that_was_active_writes_nothing_any_more_not_even_what_it_made(board):
    one, two = boot(board, "one"), boot(board, "two")
    board.h.store.write(one, 0, f"{HOME}/data/a/b", b"1")
    board.dies(one)
    ready(board, one)
    for path in ("data/a/b", "data/a", "data/new"):
        assert refused(board.h.store.write, one, 0, f"{HOME}/{path}", b"late") == errno.EACCES
    board.h.store.write(two, 0, f"{HOME}/data/a/b", b"2")
    assert read(board, "data/a/b", one) == "2"


def test_data_outlives_the_domain_that_wrote_it(board):
    one = boot(board, "one", on_crash="destroy")
    two = boot(board, "two")
    board.h.store.write(one, 0, f"{HOME}/data/a", b"1")
    board.dies(one)
    assert one not in board.h.domains
    assert read(board, "data/a", two) == "1"


def test_what_one_takes_over_counts_against_its_own_quota(board):
    one, two = boot(board, "one"), boot(board, "two")
    for number in range(600):
        board.h.store.write(one, 0, f"{HOME}/data/{number % 10}/{number}", b"1")
        board.h.store.write(two, 0, f"/local/domain/{two}/data/{number % 10}/{number}", b"1")
    board.dies(one)
    assert told(board) == (str(two), "2")
    assert refused(board.h.store.write, two, 0, f"{HOME}/data/more", b"1") == errno.ENOSPC


def test_clients_hear_of_a_change(board):
    one, _ = boot(board, "one"), boot(board, "two")
    client = board.boot("client")
    board.h.store.watch(client, f"{HOME}/active", "t")
    board.h.collect_store_events()
    queue = board.h.upcalls[client]
    while queue.take() is not None:
        continue
    board.dies(one)
    assert (f"{HOME}/active", "t") in queue.unsent


def test_a_service_goes_with_the_last_domain_that_names_it(board):
    one, two = boot(board, "one", on_crash="destroy"), boot(board, "two", on_crash="destroy")
    board.dies(one)
    assert "gate" in board.h.services
    board.dies(two)
    assert board.h.services == {}
    assert refused(board.h.store.read, DOM0, 0, HOME) == errno.ENOENT


def test_a_spare_that_takes_over_its_domain_stands_behind_the_others(board):
    one, two = boot(board, "one", spare=True), boot(board, "two")
    board.after(10**9)
    board.dies(one)
    assert told(board) == (str(two), "2")
    ready(board, one)
    assert role(board, one) == "gate: stands by"


def test_a_name_that_is_no_name_is_refused(board):
    with pytest.raises(Refused) as refusal:
        board.h.create(DomainConfig("bad", "hvd:idle", service="no/name"), board.now)
    assert refusal.value.errno == errno.EINVAL
    assert refusal.value.text == "service = 'no/name' is no name: 1 to 64 letters, digits and _.+-"
