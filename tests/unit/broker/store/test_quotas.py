"""Every bound of the store: what is refused when it is reached, and that dom0 works on."""

import errno
from collections.abc import Callable

import pytest

from hvd.broker.store import PRIVILEGED, Quotas, Store, StoreError
from hvd.broker.store.record import KEPT_IN_BYTES
from hvd.broker.store.transactions import NAMED_MAX
from hvd.transport.ids import DOM0, DomId

FIVE, SEVEN = DomId(5), DomId(7)
HOME = "/local/domain/5"


def nodes_of(store: Store, domid: DomId) -> int:
    return store.statistics().domains[domid].nodes


def test_the_defaults_are_xens_and_of_memory_its_lower_one() -> None:
    quotas = Quotas()
    assert (quotas.nodes_max, quotas.watches_max, quotas.transactions_max, quotas.transaction_nodes_max) == (
        1000,
        128,
        10,
        1024,
    )
    assert (quotas.node_bytes_max, quotas.path_bytes_max, quotas.permissions_max) == (2048, 2048, 5)
    assert quotas.memory_bytes_max == 2_097_152


def test_a_guest_owns_so_many_nodes_and_no_more_until_it_removes_some(small_store: Store) -> None:
    for number in range(5):
        small_store.mkdir(FIVE, 0, f"{number}")
    for refused in ("new", "0/below", "a/whole/chain"):
        with pytest.raises(StoreError, match="ENOSPC: "):
            small_store.mkdir(FIVE, 0, refused)
    assert nodes_of(small_store, FIVE) == 6
    small_store.write(FIVE, 0, "0", b"rewriting is no growth")
    small_store.rm(FIVE, 0, "0")
    small_store.mkdir(FIVE, 0, "new")


def test_a_chain_that_does_not_fit_leaves_no_part_of_it(small_store: Store) -> None:
    with pytest.raises(StoreError, match="ENOSPC: "):
        small_store.mkdir(FIVE, 0, "a/b/c/d/e/f")
    assert small_store.directory(FIVE, 0, HOME) == []
    assert nodes_of(small_store, FIVE) == 1


def test_a_guest_is_stopped_in_other_guests_homes_too(small_store: Store) -> None:
    small_store.set_perms(SEVEN, 0, "/local/domain/7", ["b7"])
    for number in range(5):
        small_store.mkdir(FIVE, 0, f"/local/domain/7/{number}")
    with pytest.raises(StoreError, match="ENOSPC: "):
        small_store.mkdir(FIVE, 0, "/local/domain/7/new")
    small_store.mkdir(SEVEN, 0, "own")


def test_dom0_may_give_more_than_the_quota_but_the_guest_adds_nothing_to_it(small_store: Store) -> None:
    for number in range(20):
        small_store.mkdir(DOM0, 0, f"{HOME}/{number}")
    assert nodes_of(small_store, FIVE) == 21
    with pytest.raises(StoreError, match="ENOSPC: "):
        small_store.mkdir(FIVE, 0, "new")
    small_store.rm(FIVE, 0, "0")
    with pytest.raises(StoreError, match="ENOSPC: "):
        small_store.mkdir(FIVE, 0, "new")


def test_nodes_in_a_transaction_count_while_it_is_open(small_store: Store) -> None:
    small_store.mkdir(FIVE, 0, "a")
    tx = small_store.transaction_start(FIVE)
    small_store.mkdir(FIVE, tx, "b/c/d/e")
    with pytest.raises(StoreError, match="ENOSPC: "):
        small_store.mkdir(FIVE, tx, "f")
    small_store.rm(FIVE, tx, "a")
    small_store.mkdir(FIVE, tx, "f")
    small_store.transaction_end(FIVE, tx, True)
    assert nodes_of(small_store, FIVE) == 6


def test_transactions_that_fit_one_by_one_do_not_get_past_the_quota_together(small_store: Store) -> None:
    first, second = small_store.transaction_start(FIVE), small_store.transaction_start(FIVE)
    small_store.mkdir(FIVE, first, "a/b/c")
    small_store.mkdir(FIVE, second, "d/e/f")
    small_store.transaction_end(FIVE, first, True)
    with pytest.raises(StoreError, match="ENOSPC: "):
        small_store.transaction_end(FIVE, second, True)
    assert nodes_of(small_store, FIVE) == 4
    assert small_store.directory(FIVE, 0, HOME) == ["a"]


def test_a_node_has_so_many_bytes_its_childrens_names_included(small_store: Store) -> None:
    small_store.write(FIVE, 0, "x", b"v" * 168)
    for value in (b"v" * 169, b"v" * 4000):
        with pytest.raises(StoreError, match="ENOSPC: "):
            small_store.write(FIVE, 0, "x", value)
        with pytest.raises(StoreError, match="ENOSPC: "):
            small_store.write(FIVE, 0, "y", value)
    small_store.write(FIVE, 0, "x", b"v" * 160)
    small_store.mkdir(FIVE, 0, "x/seven67")
    with pytest.raises(StoreError, match="ENOSPC: "):
        small_store.mkdir(FIVE, 0, "x/8")
    with pytest.raises(StoreError, match="ENOSPC: "):
        small_store.set_perms(FIVE, 0, "x", ["n5", "r7"])
    small_store.write(DOM0, 0, f"{HOME}/x", b"v" * 4080)


def test_nodes_on_the_way_have_so_many_bytes_too() -> None:
    store = Store(Quotas(node_bytes_max=200))
    store.introduce(FIVE)
    store.write(DOM0, 0, HOME, b"")
    store.set_perms(DOM0, 0, HOME, ["n5"])
    for path in ("x" * 168, "x/" + "y" * 168, "x/" + "y" * 168 + "/z"):
        with pytest.raises(StoreError, match="ENOSPC: "):
            store.mkdir(FIVE, 0, path)
    store.mkdir(FIVE, 0, "x/" + "y" * 167 + "/z")


def test_names_from_two_transactions_do_not_get_past_a_nodes_size_together() -> None:
    store = Store(Quotas(node_bytes_max=100))
    store.introduce(FIVE)
    store.write(DOM0, 0, HOME, b"")
    store.set_perms(DOM0, 0, HOME, ["n5"])
    first, second = store.transaction_start(FIVE), store.transaction_start(FIVE)
    store.mkdir(FIVE, first, "a" * 40)
    store.mkdir(FIVE, second, "b" * 40)
    store.transaction_end(FIVE, first, True)
    with pytest.raises(StoreError, match="ENOSPC: "):
        store.transaction_end(FIVE, second, True)
    assert store.directory(FIVE, 0, HOME) == ["a" * 40]


def test_a_node_has_so_many_permissions(small_store: Store) -> None:
    small_store.set_perms(FIVE, 0, HOME, ["n5", "r7", "r3"])
    with pytest.raises(StoreError, match="ENOSPC: "):
        small_store.set_perms(FIVE, 0, HOME, ["n5", "r7", "r3", "r0"])
    small_store.set_perms(DOM0, 0, HOME, ["n5", "r7", "r3", "r0"])


def test_a_guest_has_so_many_watches(small_store: Store) -> None:
    for number in range(3):
        small_store.watch(FIVE, f"{number}", "t")
    with pytest.raises(StoreError, match="E2BIG: "):
        small_store.watch(FIVE, "new", "t")
    small_store.unwatch(FIVE, "0", "t")
    small_store.watch(FIVE, "new", "t")
    for number in range(200):
        small_store.watch(DOM0, f"/{number}", "t")


def test_a_guest_has_so_many_transactions(small_store: Store) -> None:
    first, _ = small_store.transaction_start(FIVE), small_store.transaction_start(FIVE)
    with pytest.raises(StoreError, match="ENOSPC: "):
        small_store.transaction_start(FIVE)
    small_store.transaction_end(FIVE, first, False)
    small_store.transaction_start(FIVE)
    for _ in range(20):
        small_store.transaction_start(DOM0)


def test_a_transaction_touches_so_many_nodes(small_store: Store) -> None:
    tx = small_store.transaction_start(SEVEN)
    home = "/local/domain/7"
    small_store.read(SEVEN, tx, home)
    for number in range(7):
        with pytest.raises(StoreError, match="ENOENT: "):
            small_store.read(SEVEN, tx, f"{number}")
    for call in (small_store.read, small_store.mkdir, small_store.rm, small_store.directory):
        with pytest.raises(StoreError, match="ENOSPC: "):
            call(SEVEN, tx, "one-more")
    small_store.write(SEVEN, tx, "0", b"one of those before")
    small_store.transaction_end(SEVEN, tx, True)


def test_dom0_touches_as_many_one_by_one_and_removes_more_at_once() -> None:
    store = Store()
    for number in range(NAMED_MAX + 5):
        store.write(DOM0, 0, f"/gone/{number}", b"")
    tx = store.transaction_start(DOM0)
    store.rm(DOM0, tx, "/gone")
    while store.has_unsettled:
        store.settle()
    for number in range(NAMED_MAX - 2):  # /gone and the root are two
        store.write(DOM0, tx, f"/{number}", b"")
    with pytest.raises(StoreError) as refused:
        store.write(DOM0, tx, "/one-more", b"")
    assert refused.value.errno == errno.ENOSPC and "at most 1024 nodes" in refused.value.text
    store.write(DOM0, tx, "/0", b"again")
    store.write(DOM0, 0, "/others", b"")
    store.transaction_end(DOM0, tx, True)
    assert not store.check() and not store.exists("/gone/0")
    assert store.read(DOM0, 0, "/0") == b"again" and store.exists("/others")


def test_a_guests_nodes_watches_and_transactions_share_its_memory() -> None:
    store = Store(Quotas(memory_bytes_max=1000 + 2 * KEPT_IN_BYTES, node_bytes_max=1000))
    store.introduce(FIVE)
    store.mkdir(DOM0, 0, HOME)
    store.set_perms(DOM0, 0, HOME, ["n5"])
    store.write(FIVE, 0, "a", b"v" * 400)
    store.watch(FIVE, "w", "t" * 200)
    tx = store.transaction_start(FIVE)
    store.write(FIVE, tx, "b", b"v" * 100)
    used = store.statistics().domains[FIVE].bytes
    assert 800 < used - 2 * KEPT_IN_BYTES < 1000
    growths: list[Callable[[], None]] = [
        lambda: store.write(FIVE, 0, "c", b"v" * 150),
        lambda: store.write(FIVE, tx, "c", b"v" * 150),
        lambda: store.write(FIVE, 0, "a", b"v" * 600),
        lambda: store.watch(FIVE, "w", "t" * 190),
    ]
    for grow in growths:
        with pytest.raises(StoreError, match="ENOMEM: "):
            grow()
    assert store.statistics().domains[FIVE].bytes - used <= 2 * (24 + KEPT_IN_BYTES + len(HOME) + 2), (
        "only what the transaction touched"
    )
    store.write(FIVE, 0, "a", b"")
    store.write(FIVE, 0, "c", b"v" * 150)


def test_a_transaction_cannot_pin_memory_by_reading_what_is_not_there() -> None:
    store = Store(Quotas(memory_bytes_max=20_000))
    store.introduce(FIVE)
    store.mkdir(DOM0, 0, HOME)
    store.set_perms(DOM0, 0, HOME, ["n5"])
    tx = store.transaction_start(FIVE)
    refusals = []
    for number in range(100):
        with pytest.raises(StoreError) as refusal:
            store.read(FIVE, tx, f"{number}".rjust(2000, "x"))
        refusals.append(refusal.value.errno)
    assert refusals == [errno.ENOENT] * 7 + [errno.ENOMEM] * 93
    assert store.statistics().domains[FIVE].bytes < 22_000


def test_transactions_that_fit_one_by_one_do_not_get_past_the_memory_together() -> None:
    store = Store(Quotas(memory_bytes_max=5000, node_bytes_max=3000))
    store.introduce(FIVE)
    store.mkdir(DOM0, 0, HOME)
    store.set_perms(DOM0, 0, HOME, ["n5"])
    tx = store.transaction_start(FIVE)
    store.write(FIVE, tx, "a", b"v" * 2500)
    store.write(DOM0, 0, f"{HOME}/b", b"v" * 2600)
    with pytest.raises(StoreError, match="ENOMEM: "):
        store.transaction_end(FIVE, tx, True)
    assert store.directory(FIVE, 0, HOME) == ["b"]


def test_even_dom0_meets_a_ceiling(tight_ceiling: Store) -> None:
    assert PRIVILEGED.nodes_max > 100 * Quotas().nodes_max
    tight_ceiling.mkdir(DOM0, 0, "/a/b/c")
    with pytest.raises(StoreError, match="ENOSPC: "):
        tight_ceiling.mkdir(DOM0, 0, "/d")
    tight_ceiling.watch(DOM0, "/a", "t")
    tight_ceiling.watch(DOM0, "/b", "t")
    with pytest.raises(StoreError, match="E2BIG: "):
        tight_ceiling.watch(DOM0, "/c", "t")
