"""What the policy denies of a node, its owner cannot give: by no permission, watch, transaction or answer."""

from __future__ import annotations

import errno

import pytest

from hvd.broker.store import Quotas, Store, StoreError
from hvd.broker.store.mandatory import STORE_READ, STORE_WRITE
from hvd.transport.ids import DOM0, DomId

DRIVER, ONE, OTHER = DomId(3), DomId(5), DomId(7)


class Silo:
    """Guests use what is dom0's or the driver's, and nothing of each other."""

    def __init__(self):
        self.asked = []
        self.enforcing = True
        self.denied = {(ONE, OTHER), (OTHER, ONE)}

    def allows(self, source, target, wanted):
        self.asked.append((source, target, wanted))
        return not self.enforcing or self.permits(source, target, wanted)

    def permits(self, source, target, wanted):
        return (source, target) not in self.denied

    def allows_all_who_may(self, source, wanted, target, able):
        writers = [domid for domid in (DOM0, DRIVER, ONE, OTHER) if self.permits(domid, target, able)]
        return all(self.allows(source, writer, wanted) for writer in writers)


@pytest.fixture
def policy():
    return Silo()


@pytest.fixture
def store(policy):
    made = Store(Quotas(), policy=policy)
    for domid in (DRIVER, ONE, OTHER):
        made.introduce(domid)
        made.mkdir(DOM0, 0, made.get_domain_path(domid))
        made.set_perms(DOM0, 0, made.get_domain_path(domid), [f"n{domid}"])
    made.write(ONE, 0, "note", b"secret")
    made.set_perms(ONE, 0, "note", [f"b{ONE}", f"b{OTHER}"])
    made.take_events()
    policy.asked.clear()
    return made


NOTE = "/local/domain/5/note"
CALLS = {
    "read": lambda store, domid: store.read(domid, 0, NOTE),
    "directory": lambda store, domid: store.directory(domid, 0, NOTE),
    "get_perms": lambda store, domid: store.get_perms(domid, 0, NOTE),
    "write": lambda store, domid: store.write(domid, 0, NOTE, b"changed"),
    "write below": lambda store, domid: store.write(domid, 0, f"{NOTE}/below", b"new"),
    "mkdir": lambda store, domid: store.mkdir(domid, 0, f"{NOTE}/below"),
    "rm": lambda store, domid: store.rm(domid, 0, NOTE),
    "read what is not there": lambda store, domid: store.read(domid, 0, f"{NOTE}/gone"),
}


def refused(call, *args):
    with pytest.raises(StoreError) as error:
        call(*args)
    return error.value.errno


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_permission_to_everything_gives_nothing_that_the_policy_denies(store, policy, call):
    generation = store.statistics().generation
    assert refused(call, store, OTHER) == errno.EACCES
    assert store.statistics().generation == generation
    policy.enforcing = False
    try:
        call(store, OTHER)
    except StoreError as error:
        assert error.errno == errno.ENOENT


@pytest.mark.parametrize(("call", "wanted"), [("read", STORE_READ), ("write", STORE_WRITE)])
def test_a_node_counts_as_its_owners(store, policy, call, wanted):
    refused(CALLS[call], store, OTHER)
    assert policy.asked == [(OTHER, ONE, wanted)]


def test_a_denial_has_the_same_words_whether_the_node_exists_or_not(store):
    for path in (NOTE, f"{NOTE}/gone", "/local/domain/5/private"):
        with pytest.raises(StoreError, match=f"^EACCES: domain 7 may not do this to {path}$"):
            store.read(OTHER, 0, path)


def test_dom0_is_not_asked_for(store, policy):
    for call in CALLS.values():
        try:
            call(store, DOM0)
        except StoreError as error:
            assert error.errno == errno.ENOENT
    assert policy.asked == []


def test_a_driver_and_its_guest_use_each_others_nodes(store):
    store.set_perms(ONE, 0, "note", [f"n{ONE}", f"r{DRIVER}"])
    assert store.read(DRIVER, 0, NOTE) == b"secret"
    store.write(DRIVER, 0, "answer", b"1")
    store.set_perms(DRIVER, 0, "answer", [f"n{DRIVER}", f"r{ONE}"])
    assert store.read(ONE, 0, "/local/domain/3/answer") == b"1"


@pytest.mark.parametrize(("perms", "one_may"), [
    (["n0", f"w{ONE}", f"r{OTHER}"], True), (["w0", f"r{OTHER}"], False), (["b0"], False),
])  # fmt: skip
def test_a_node_of_dom0s_that_one_guest_may_write_is_neither_read_nor_written_by_another(store, perms, one_may):
    """Where both may write, neither does: each would learn by the answer whether the other had made a node below."""
    store.write(DOM0, 0, "/board", b"")
    store.set_perms(DOM0, 0, "/board", perms)
    if one_may:
        store.write(ONE, 0, "/board", b"message")
    else:
        assert refused(store.write, ONE, 0, "/board", b"message") == errno.EACCES
    assert refused(store.read, OTHER, 0, "/board") == errno.EACCES
    assert refused(store.directory, OTHER, 0, "/board") == errno.EACCES
    assert refused(store.mkdir, OTHER, 0, "/board/is-it-there") == errno.EACCES


@pytest.mark.parametrize("perms", [[f"n{ONE}", f"w{OTHER}", f"r{DRIVER}"], [f"b{ONE}"]])
def test_a_writer_whom_the_policy_keeps_from_a_node_keeps_nobody_else_from_it(store, policy, perms):
    store.set_perms(DOM0, 0, NOTE, perms)
    policy.denied.add((DRIVER, OTHER))
    assert store.read(DRIVER, 0, NOTE) == b"secret"
    policy.denied.remove((OTHER, ONE))
    assert refused(store.read, DRIVER, 0, NOTE) == errno.EACCES


def test_who_may_write_a_node_reads_what_it_wrote_itself(store):
    store.write(DOM0, 0, "/board", b"")
    store.set_perms(DOM0, 0, "/board", ["n0", f"b{ONE}"])
    store.write(ONE, 0, "/board", b"message")
    assert store.read(ONE, 0, "/board") == b"message"


def test_a_node_of_dom0s_that_guests_may_only_read_is_read_by_all(store):
    store.write(DOM0, 0, "/board", b"notice")
    store.set_perms(DOM0, 0, "/board", ["r0"])
    assert store.read(ONE, 0, "/board") == store.read(OTHER, 0, "/board") == b"notice"


@pytest.mark.parametrize("path", [NOTE, "/local/domain/5", "/"])
def test_a_watch_hears_nothing_of_what_may_not_be_read(store, policy, path):
    store.set_perms(DOM0, 0, "/local/domain/5", [f"b{ONE}", f"b{OTHER}"])
    store.watch(OTHER, path, "ear")
    store.take_events()
    store.write(ONE, 0, "note", b"tick")
    store.write(ONE, 0, "note/below", b"tock")
    store.rm(ONE, 0, "note")
    assert store.take_events() == []
    policy.enforcing = False
    store.write(ONE, 0, "note", b"tick")
    assert store.take_events() != []


def test_the_policy_is_not_asked_about_events_that_permissions_keep_from_a_watcher(store, policy):
    store.watch(DRIVER, "/", "ear")
    policy.asked.clear()
    store.write(ONE, 0, "private", b"x")
    assert [each for each in policy.asked if each[0] == DRIVER] == []


def test_a_list_that_may_not_be_read_is_not_told_by_events_either(store, policy):
    store.mkdir(DOM0, 0, "/board")
    store.write(DOM0, 0, "/board/x", b"")
    store.set_perms(DOM0, 0, "/board/x", [f"n{DRIVER}"])
    store.set_perms(DOM0, 0, "/board", ["n0", f"w{ONE}", f"r{OTHER}"])
    store.watch(OTHER, "/board", "ear")
    store.take_events()
    assert refused(store.directory, OTHER, 0, "/board") == errno.EACCES
    store.rm(DRIVER, 0, "/board/x")
    assert store.take_events() == []


def test_a_watcher_with_permission_hears_of_a_drivers_nodes(store):
    store.set_perms(DOM0, 0, "/local/domain/3", [f"n{DRIVER}", f"r{ONE}"])
    store.watch(ONE, "/local/domain/3", "ear")
    store.take_events()
    store.write(DRIVER, 0, "state", b"4")
    assert [event.path for event in store.take_events()] == ["/local/domain/3/state"]


@pytest.mark.parametrize("path", [NOTE, f"{NOTE}/gone"])
def test_a_transactions_commit_tells_nothing_of_what_the_policy_denied_in_it(store, path):
    tx = store.transaction_start(OTHER)
    assert refused(store.read, OTHER, tx, path) == errno.EACCES
    store.write(ONE, 0, path, b"changed")
    store.transaction_end(OTHER, tx, commit=True)


def test_a_transactions_commit_depends_on_what_the_policy_allowed_in_it(store):
    store.set_perms(ONE, 0, "note", [f"n{ONE}", f"r{DRIVER}"])
    tx = store.transaction_start(DRIVER)
    store.read(DRIVER, tx, NOTE)
    store.write(ONE, 0, "note", b"changed")
    with pytest.raises(StoreError) as error:
        store.transaction_end(DRIVER, tx, commit=True)
    assert error.value.errno == errno.EAGAIN
