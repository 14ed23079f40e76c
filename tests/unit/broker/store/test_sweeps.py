"""Changes of many nodes: the tree has changed at once, accounts and watches follow a few nodes at a time."""

import errno
import pickle
from collections.abc import Callable

import pytest

from hvd.broker.store import Quotas, Store, StoreError
from hvd.broker.store.engine import Engine
from hvd.broker.store.sweeps import EDITS_PER_SLICE, REMOVALS_PER_SLICE, WATCHES_PER_SLICE
from hvd.broker.store.transactions import Transaction
from hvd.broker.store.upkeep import call_bytes
from hvd.broker.store.watches import Watches
from hvd.transport.ids import DOM0, DomId

FIVE, SEVEN = DomId(5), DomId(7)
MANY = 5 * EDITS_PER_SLICE


def fill(store: Store, domid: DomId, path: str, count: int = MANY) -> None:
    for number in range(count):
        store.write(domid, 0, f"{path}/{number}", b"")
    store.take_events()


def settled(store: Store) -> int:
    """How many slices it took."""
    slices = 0
    while store.has_unsettled:
        store.settle()
        slices += 1
    return slices


def test_what_is_removed_is_gone_at_once_and_its_watches_hear_slice_by_slice(store: Store) -> None:
    before = store.statistics().nodes
    fill(store, DOM0, "/many")
    for number in (0, MANY - 1):
        store.watch(DOM0, f"/many/{number}", "below")
    store.watch(DOM0, "/many", "above")
    store.take_events()
    store.rm(DOM0, 0, "/many")
    with pytest.raises(StoreError, match="ENOENT"):
        store.read(DOM0, 0, f"/many/{MANY - 1}")
    assert [event.path for event in store.take_events()] == ["/many/0"]
    assert store.is_settling(DOM0) and not store.is_settling(FIVE)
    assert settled(store) >= MANY // EDITS_PER_SLICE - 1
    assert [event.path for event in store.take_events()] == [f"/many/{MANY - 1}", "/many"]
    assert store.statistics().nodes == before and not store.check()


def test_a_commit_is_there_at_once_and_is_settled_slice_by_slice(store: Store) -> None:
    before = store.usage(FIVE).nodes
    tx = store.transaction_start(FIVE)
    for number in range(MANY):
        store.write(FIVE, tx, f"many/{number}", b"v")
    store.transaction_end(FIVE, tx, True)
    assert store.read(FIVE, 0, f"many/{MANY - 1}") == b"v"
    assert store.is_settling(FIVE) and store.usage(FIVE).nodes == before + MANY + 1
    assert settled(store) >= MANY // EDITS_PER_SLICE - 1 and not store.check()
    store.forget_domain(FIVE)
    assert not store.check()


def test_who_may_list_a_directory_while_a_commit_is_told_hears_what_he_might_hear_of_it_when_it_was_made(
    store: Store,
) -> None:
    store.mkdir(FIVE, 0, "closed")
    store.watch(SEVEN, "/local/domain/5", "w")
    tx = store.transaction_start(FIVE)
    for number in range(MANY):
        store.write(FIVE, tx, f"closed/{number}", b"v")
    store.take_events()
    store.transaction_end(FIVE, tx, True)
    store.set_perms(DOM0, 0, "/local/domain/5/closed", ["n5", "r7"])
    settled(store)
    assert {event.path for event in store.take_events() if event.domid == SEVEN} == {"/local/domain/5/closed"}


def test_whoever_makes_again_what_is_being_removed_owns_it(store: Store) -> None:
    before = store.usage(FIVE).nodes
    fill(store, FIVE, "many")
    store.rm(FIVE, 0, "many")
    store.write(FIVE, 0, f"many/{MANY - 1}", b"again")
    settled(store)
    assert not store.check() and store.usage(FIVE).nodes == before + 2
    store.forget_domain(FIVE)
    with pytest.raises(StoreError, match="ENOENT"):
        store.read(DOM0, 0, "/local/domain/5")


def test_a_change_beside_one_that_is_under_way_counts_at_once(store: Store) -> None:
    fill(store, DOM0, "/many")
    store.rm(DOM0, 0, "/many")
    before = store.usage(FIVE).nodes
    store.write(FIVE, 0, "data/x", b"")
    assert store.usage(FIVE).nodes == before + 2 and store.is_settling(DOM0) and not store.is_settling(FIVE)


def test_a_quota_counts_what_is_gone_as_gone(store: Store) -> None:
    for number in range(2):
        fill(store, FIVE, f"many/{number}", 480)
    store.rm(DOM0, 0, "/local/domain/5/many")
    assert store.usage(FIVE).nodes > 800
    for number in range(2):
        fill(store, FIVE, f"more/{number}", 480)
    with pytest.raises(StoreError) as refused:
        fill(store, FIVE, "yet-more", 50)
    assert refused.value.errno == errno.ENOSPC and not store.check()


def test_a_quota_has_what_is_gone_counted_and_nothing_told(store: Store) -> None:
    for number in range(2):
        fill(store, FIVE, f"many/{number}", 480)
    store.watch(DOM0, "/local/domain/5/many/1/479", "last")
    store.take_events()
    store.rm(DOM0, 0, "/local/domain/5/many")
    store.settle()
    for number in range(2):
        fill(store, FIVE, f"more/{number}", 480)
    assert store.has_unsettled and store.usage(FIVE).nodes == 964
    events = []
    while store.has_unsettled:
        store.settle()
        events += store.take_events()
    assert [event.token for event in events] == ["last"] and not store.check()


@pytest.mark.parametrize("slices", range(4))
def test_what_others_remove_while_its_owner_leaves_is_told_before_the_owner_is_forgotten(
    store: Store, slices: int
) -> None:
    store.mkdir(SEVEN, 0, "shared")
    store.set_perms(SEVEN, 0, "shared", ["n7", "b5"])
    fill(store, FIVE, "own", 3 * REMOVALS_PER_SLICE)
    fill(store, FIVE, "/local/domain/7/shared")
    store.watch(SEVEN, f"shared/{MANY - 1}", "last")
    store.take_events()
    store.forget_domain(FIVE)
    for _ in range(slices):
        store.settle()
    store.rm(SEVEN, 0, "shared")
    settled(store)
    assert "last" in [event.token for event in store.take_events()] and not store.check()
    store.create_domain(FIVE)
    assert store.usage(FIVE).nodes == 0


def test_what_is_settled_for_a_domain_that_is_made_is_still_to_be_told(store: Store) -> None:
    fill(store, FIVE, "many")
    store.watch(DOM0, "/local/domain/5/many", "above")
    store.take_events()
    store.forget_domain(FIVE)
    store.take_events()
    store.create_domain(FIVE)
    assert not store.has_unsettled and store.awaits_settling
    store.settle()
    assert [event.token for event in store.take_events()] == ["above"] and not store.awaits_settling


def test_a_transaction_waits_for_its_own_removal_and_for_nobody_elses(store: Store) -> None:
    fill(store, FIVE, "many")
    fill(store, DOM0, "/many")
    store.rm(DOM0, 0, "/many")
    first, second = store.transaction_start(FIVE), store.transaction_start(FIVE)
    for tx in (first, second):
        store.rm(FIVE, tx, "many")
    store.write(FIVE, first, "many/1", b"again")
    assert store.is_settling(FIVE) and store.is_settling(DOM0)
    store.transaction_end(FIVE, first, True)
    assert store.read(FIVE, 0, "many/1") == b"again" and store.is_settling(DOM0)
    with pytest.raises(StoreError, match="EAGAIN"):
        store.transaction_end(FIVE, second, True)
    assert store.is_settling(DOM0)
    settled(store)
    assert store.directory(FIVE, 0, "many") == ["1"] and not store.check()


def test_what_a_transaction_writes_where_it_is_removing_counts_as_much_as_it_holds(store: Store) -> None:
    value = b"x" * 100
    for number in range(MANY):
        store.write(FIVE, 0, f"many/{number}", value)
    tx = store.transaction_start(FIVE)
    store.rm(FIVE, tx, "many")
    for number in range(MANY):
        store.write(FIVE, tx, f"many/{number}", b"")
    settled(store)
    assert store._engine.domains[FIVE].transaction(tx).own_bytes > 0
    store.transaction_end(FIVE, tx, True)
    settled(store)
    assert not store.check()


def test_a_snapshot_has_nothing_under_way(store: Store) -> None:
    fill(store, DOM0, "/many")
    store.watch(DOM0, "/many", "above")
    store.take_events()
    store.rm(DOM0, 0, "/many")
    restored = pickle.loads(pickle.dumps(store))
    assert not restored.has_unsettled and not store.has_unsettled
    assert [event.token for event in restored.take_events()] == ["above"] and not restored.check()


def test_a_domain_can_be_forgotten_in_the_middle_of_its_removal(store: Store) -> None:
    fill(store, FIVE, "many")
    store.rm(FIVE, 0, "many")
    store.forget_domain(FIVE)
    assert store.is_settling(DOM0)
    settled(store)
    assert not store.check() and "5" not in store.directory(DOM0, 0, "/local/domain")


@pytest.fixture
def slices(monkeypatch) -> list[int]:
    """How many nodes each step of the store's has to do with, besides those that are named by a call."""
    counted: list[int] = []
    follow, depend = Engine._follow, Transaction.depend_on

    def following(self, root_before, edits, **roots) -> None:
        slices_add(len(edits))
        follow(self, root_before, edits, **roots)

    def depending(self, edits) -> None:
        slices_add(len(edits))
        depend(self, edits)

    slices_add = counted.append
    monkeypatch.setattr(Engine, "_follow", following)
    monkeypatch.setattr(Transaction, "depend_on", depending)
    return counted


def steps_of(slices: list[int], store: Store, call: Callable[[], object]) -> list[int]:
    """The sizes of what the call does at once, and of what each slice behind it does."""
    slices.clear()
    call()
    sizes = [sum(slices)]
    while store.has_unsettled:
        slices.clear()
        store.settle()
        sizes.append(sum(slices))
    return sizes


def test_no_step_has_to_do_with_more_nodes_than_a_slice_has(store: Store, slices: list[int]) -> None:
    fill(store, FIVE, "many")
    tx = store.transaction_start(FIVE)
    removal = steps_of(slices, store, lambda: store.rm(FIVE, tx, "many"))
    assert max(removal) == EDITS_PER_SLICE and sum(removal) == MANY + 1
    commit = steps_of(slices, store, lambda: store.transaction_end(FIVE, tx, True))
    assert max(commit) == EDITS_PER_SLICE and sum(commit) == MANY + 1
    for number in range(MANY):
        store.write(DOM0, 0, f"/given/{number}", b"")
        store.set_perms(DOM0, 0, f"/given/{number}", ["n5"])
    forgetting = steps_of(slices, store, lambda: store.forget_domain(FIVE))
    assert max(forgetting) == REMOVALS_PER_SLICE and sum(forgetting) >= MANY
    assert store.directory(DOM0, 0, "/given") == [] and not store.check()


def test_a_commit_that_comes_with_its_removals_depends_on_all_that_they_took(store: Store) -> None:
    """In one multicall nobody waits between them."""
    fill(store, FIVE, "many")
    tx = store.transaction_start(FIVE)
    store.write(DOM0, 0, f"/local/domain/5/many/{MANY - 1}", b"changed")
    store.rm(FIVE, tx, "many")
    with pytest.raises(StoreError) as refused:
        store.transaction_end(FIVE, tx, True)
    assert refused.value.errno == errno.EAGAIN
    assert store.read(FIVE, 0, f"many/{MANY - 1}") == b"changed" and not store.check()


def test_a_transaction_that_took_away_more_than_it_may_depend_on_cannot_commit(store: Store) -> None:
    store.set_limit("transaction_nodes_max", MANY // 2)
    fill(store, FIVE, "many")
    tx = store.transaction_start(FIVE)
    store.rm(FIVE, tx, "many")
    settled(store)
    with pytest.raises(StoreError) as refused:
        store.transaction_end(FIVE, tx, True)
    assert refused.value.errno == errno.ENOSPC
    store.set_limit("transaction_nodes_max", 3)
    fill(store, FIVE, "few", 3)
    few = store.transaction_start(FIVE)
    with pytest.raises(StoreError) as refused:
        store.rm(FIVE, few, "few")
    assert refused.value.errno == errno.ENOSPC
    assert store.read(FIVE, few, "few/0") == b""


def test_what_goes_with_a_node_above_it_while_its_owner_leaves_counts_as_gone_when_both_have_left(store: Store) -> None:
    """Two that left at once ended one broker after the other: whoever left first waited for none of what followed."""
    store.introduce(SEVEN)
    for path in ("/local/domain/7", "/local/domain/7/open"):
        store.write(DOM0, 0, path, b"")
        store.set_perms(DOM0, 0, path, ["b7"])
    fill(store, FIVE, "/local/domain/7/open")
    store.forget_domain(FIVE)
    store.rm(DOM0, 0, "/local/domain/7")
    store.forget_domain(SEVEN)
    assert store.has_unsettled
    settled(store)
    assert not store.check()
    store.introduce(FIVE)
    assert store.usage(FIVE).nodes == 0


def test_a_domain_that_comes_again_finds_nothing_of_its_predecessors(store: Store) -> None:
    fill(store, FIVE, "many")
    store.forget_domain(FIVE)
    assert store.has_unsettled
    store.introduce(FIVE)
    assert not store.has_unsettled and store.usage(FIVE).nodes == 0 and not store.check()


def test_a_check_in_the_middle_of_a_removal_raises_no_false_alarm(store: Store) -> None:
    fill(store, FIVE, "many")
    store.rm(FIVE, 0, "many")
    assert store.has_unsettled and store.check() == ""


SEVEN = DomId(7)


@pytest.fixture
def leaving() -> Callable[..., Store]:
    """A store in which a domain is being forgotten: what another owns below its home is gone and still counts, and what
    it owns elsewhere, /zz, is still there. The other is at a quota."""

    def make(before: Callable[[Store], None] = lambda _: None, **quotas: int) -> Store:
        store = Store(Quotas(**quotas))
        for domid in (FIVE, SEVEN):
            store.introduce(domid)
            store.write(DOM0, 0, f"/local/domain/{domid}", b"")
            store.set_perms(DOM0, 0, f"/local/domain/{domid}", [f"b{domid}"])
        fill(store, DOM0, "/local/domain/7")
        for number in range(3):
            store.write(FIVE, 0, f"/local/domain/7/of-five-{number}", b"v" * 100)
        store.write(DOM0, 0, "/zz/value", b"")
        store.set_perms(DOM0, 0, "/zz", ["b7"])
        store.set_perms(DOM0, 0, "/zz/value", ["n5"])
        before(store)
        store.forget_domain(SEVEN)
        assert store.has_unsettled and store.exists("/zz")
        return store

    return make


def test_what_went_with_another_domains_nodes_makes_room_at_once(leaving: Callable[..., Store]) -> None:
    store = leaving(nodes_max=5)
    assert store.usage(FIVE).nodes == 5
    store.write(FIVE, 0, "new", b"")
    assert store.has_unsettled and store.usage(FIVE).nodes == 3
    settled(store)
    assert store.usage(FIVE).nodes == 2 and store.read(FIVE, 0, "new") == b"" and not store.check()
    store = leaving(memory_bytes_max=800)
    store.write(FIVE, 0, "new", b"v" * 300)
    assert store.has_unsettled
    settled(store)
    assert store.read(FIVE, 0, "new") == b"v" * 300 and not store.check()


def test_what_is_made_below_a_node_that_is_still_to_go_goes_with_it(leaving: Callable[..., Store]) -> None:
    store = leaving(nodes_max=5)
    store.write(FIVE, 0, "/zz/new", b"")
    store.write(FIVE, 0, "/zz/value", b"v" * 300)
    settled(store)
    assert not store.exists("/zz") and store.usage(FIVE).nodes == 1 and not store.check()


def test_a_commit_at_a_quota_has_room_where_another_domain_goes(leaving: Callable[..., Store]) -> None:
    opened: list[int] = []

    def before(store: Store) -> None:
        opened.clear()
        opened.append(store.transaction_start(FIVE))
        store.write(FIVE, opened[0], "/zz/new", b"")
        opened.append(store.transaction_start(FIVE))
        store.write(FIVE, opened[1], "mine", b"")
        store.write(FIVE, 0, "more", b"")

    store = leaving(before, nodes_max=6)
    for tx in opened:
        store.transaction_end(FIVE, tx, True)
    settled(store)
    assert store.read(FIVE, 0, "mine") == b"" and not store.exists("/zz") and not store.check()


MANY_WATCHES = 5 * WATCHES_PER_SLICE


def watched(store: Store) -> None:
    for number in range(MANY_WATCHES):
        store.watch(DOM0, f"/seen/{number % 7}", f"{number}", connection=-2)
    store.watch(DOM0, "/seen/0", "another's", connection=-3)
    store.transaction_start(DOM0, connection=-2)
    store.take_events()


@pytest.fixture
def unlisted(monkeypatch) -> list[int]:
    """How many watches each step takes off the lists."""
    counted: list[int] = []
    unlist = Watches.unlist

    def counting(self, watches) -> None:
        some = list(watches)
        counted.append(len(some))
        unlist(self, some)

    monkeypatch.setattr(Watches, "unlist", counting)
    return counted


def test_a_connection_with_many_watches_is_over_at_once_and_nobody_waits_for_the_lists(
    store: Store, unlisted: list[int]
) -> None:
    watched(store)
    store.close_connection(DOM0, -2)
    assert (store.usage(DOM0).watches, store.usage(DOM0).transactions) == (1, 0)
    assert store.has_unsettled and not store.is_settling(DOM0)
    store.write(DOM0, 0, "/seen/0/x", b"")
    assert [event.token for event in store.take_events()] == ["another's"]
    settled(store)
    assert max(unlisted) == WATCHES_PER_SLICE and sum(unlisted) == MANY_WATCHES
    assert store.nodes_and_watches() == store.nodes() + 1 and not store.check()


def test_whoever_resets_many_watches_waits_and_may_set_them_again(store: Store) -> None:
    watched(store)
    store.reset_connection(DOM0, -2)
    assert store.is_settling(DOM0)
    store.watch(DOM0, "/seen/1", "1", connection=-2)  # in the same multicall
    store.take_events()
    store.write(DOM0, 0, "/seen/1/x", b"")
    assert [event.token for event in store.take_events()] == ["1"]
    settled(store)
    store.write(DOM0, 0, "/seen/1/x", b"")
    assert [event.token for event in store.take_events()] == ["1"]
    assert pickle.loads(pickle.dumps(store)).statistics() == store.statistics()


def nearly_full(store: Store, what: str) -> None:
    """Domain 5, which has more than others, may reach a quota with its next call."""
    for name in ("a", "b"):
        store.write(FIVE, 0, name, b"a value of some length")
    before = store.usage(FIVE)
    if what == "nodes":
        store.set_limit("nodes_max", before.nodes + store.unprivileged_limits.depth_max - 1)
    elif what == "bytes":
        store.set_limit("memory_bytes_max", before.bytes + call_bytes(store.unprivileged_limits) - 1)
    else:
        tx = store.transaction_start(FIVE)
        store.write(FIVE, tx, "in/a/transaction", b"")
        store.set_limit("nodes_max", before.nodes + 2 + store.unprivileged_limits.depth_max)


@pytest.mark.parametrize("what", ["nodes", "bytes", "a commit"])
def test_whose_next_call_may_reach_a_quota_waits_for_what_is_under_way_and_not_for_what_is_begun_meanwhile(
    store: Store, what: str
) -> None:
    fill(store, DOM0, "/first")
    fill(store, DOM0, "/second")
    store.rm(DOM0, 0, "/first")
    assert not store.has_to_wait(FIVE), "it may have much more"
    nearly_full(store, what)
    assert store.has_to_wait(FIVE) and not store.has_to_wait(SEVEN) and not store.is_settling(FIVE)
    store.rm(DOM0, 0, "/second")
    slices = 0
    while store.has_to_wait(FIVE):
        store.settle()
        slices += 1
    assert store.has_unsettled and slices <= MANY // EDITS_PER_SLICE + 1
    assert not store.has_to_wait(FIVE), "whichever of its doors is asked next"
    store.settle()
    assert store.has_to_wait(FIVE), "it has had its turn; now it waits for the others"
    settled(store)
    assert not store.has_to_wait(FIVE) and not store.check()


@pytest.mark.parametrize("in_transaction", [False, True])
def test_no_call_adds_more_than_is_reckoned_with(store: Store, in_transaction: bool) -> None:
    limits, home = store.unprivileged_limits, store.get_domain_path(FIVE)
    tx = store.transaction_start(FIVE) if in_transaction else 0
    short = "/x" * (limits.depth_max - home.count("/") - 1)
    before = store.usage(FIVE).bytes
    store.write(FIVE, tx, f"{'x' * (limits.path_bytes_max - len(short))}{short}", b"v" * (limits.node_bytes_max - 40))
    added = store.usage(FIVE).bytes - before
    assert call_bytes(limits) // (2 if in_transaction else 4) < added <= call_bytes(limits)


def test_who_waits_for_a_quota_waits_anew_for_what_is_begun_when_all_was_done(store: Store) -> None:
    nearly_full(store, "nodes")
    for path in ("/first", "/second"):
        fill(store, DOM0, path)
        store.rm(DOM0, 0, path)
        assert store.has_to_wait(FIVE)
        settled(store)
