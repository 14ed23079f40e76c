"""The life of a domain as the store sees it: created, introduced, dead, released, forgotten."""

import pytest

from hvd.broker.store import Store, StoreError, WatchEvent
from hvd.broker.store.domains import Domains
from hvd.transport.ids import DOM0, DOMID_FIRST_RESERVED, DomId

FIVE, SEVEN, NINE = DomId(5), DomId(7), DomId(9)


def watching(store: Store) -> Store:
    store.watch(DOM0, "@introduceDomain", "in")
    store.watch(DOM0, "@releaseDomain", "out")
    store.take_events()
    return store


def heard(store: Store) -> list[str]:
    return [event.token for event in store.take_events() if event.domid == DOM0]


def test_dom0_is_there_from_the_beginning_and_nobody_else() -> None:
    store = Store()
    assert store.is_introduced(DOM0)
    assert store.directory(DOM0, 0, "/") == []
    assert store.get_perms(DOM0, 0, "/") == ["n0"]
    for call in (
        lambda: store.read(FIVE, 0, "/"),
        lambda: store.write(FIVE, 0, "x", b""),
        lambda: store.watch(FIVE, "x", "t"),
        lambda: store.transaction_start(FIVE),
        lambda: store.close_domain(FIVE),
        lambda: store.release(FIVE),
    ):
        with pytest.raises(StoreError, match="ENOENT: the store knows no domain 5"):
            call()
    assert store.statistics() == Store().statistics()


def test_a_created_domain_may_be_named_and_may_call_but_is_not_introduced() -> None:
    store = Store()
    store.create_domain(FIVE)
    store.create_domain(FIVE)
    store.write(DOM0, 0, "/a", b"")
    store.set_perms(DOM0, 0, "/a", ["n5"])
    store.write(FIVE, 0, "/a", b"mine")
    assert not store.is_introduced(FIVE)


def test_introducing_is_heard_once_and_again_only_resets_the_connection() -> None:
    store = watching(Store())
    store.introduce(FIVE)
    assert heard(store) == ["in"]
    assert store.is_introduced(FIVE)
    store.watch(FIVE, "x", "t")
    store.introduce(FIVE)
    assert store.take_events() == []
    assert store.statistics().domains[FIVE].watches == 0


def test_releasing_ends_watches_and_transactions_and_keeps_nodes_and_their_accounts(store: Store) -> None:
    watching(store)
    store.write(FIVE, 0, "x", b"kept")
    store.watch(FIVE, "x", "t")
    tx = store.transaction_start(FIVE)
    store.release(FIVE)
    assert heard(store) == ["out"]
    assert not store.is_introduced(FIVE)
    assert store.read(DOM0, 0, "/local/domain/5/x") == b"kept"
    domain = store.statistics().domains[FIVE]
    assert (domain.nodes, domain.watches, domain.transactions, domain.events) == (2, 0, 0, 0)
    with pytest.raises(StoreError, match="ENOENT: "):
        store.transaction_end(FIVE, tx, True)
    with pytest.raises(StoreError, match="ENOENT: "):
        store.release(FIVE)


def test_a_new_incarnation_finds_its_nodes_and_rights_but_no_watches_or_transactions(store: Store) -> None:
    watching(store)
    store.write(DOM0, 0, "/shared", b"v")
    store.set_perms(DOM0, 0, "/shared", ["n0", "b5"])
    store.watch(FIVE, "/shared", "t")
    tx = store.transaction_start(FIVE)
    store.write(FIVE, tx, "/shared", b"never")
    store.close_domain(FIVE)
    assert store.take_events() == []
    assert store.is_introduced(FIVE)
    assert store.read(FIVE, 0, "/shared") == b"v"
    store.write(DOM0, 0, "/shared", b"w")
    assert store.take_events() == []
    with pytest.raises(StoreError, match="ENOENT: "):
        store.transaction_end(FIVE, tx, True)
    assert store.transaction_start(FIVE) != tx, "an id of the dead incarnation does not mean a transaction of this one"


def test_resetting_watches_is_the_domains_own_business(store: Store) -> None:
    for domid in (FIVE, SEVEN):
        store.watch(domid, "x", "t")
        store.transaction_start(domid)
    store.reset_watches(FIVE)
    domains = store.statistics().domains
    assert (domains[FIVE].watches, domains[FIVE].transactions, domains[FIVE].events) == (0, 0, 0)
    assert (domains[SEVEN].watches, domains[SEVEN].transactions, domains[SEVEN].events) == (1, 1, 1)


def test_xsa_419_what_a_forgotten_domain_owned_goes_with_all_below_wherever_it_is(store: Store) -> None:
    watching(store)
    store.set_perms(SEVEN, 0, "/local/domain/7", ["b7"])
    store.write(FIVE, 0, "/local/domain/7/foreign/deep", b"")
    store.write(SEVEN, 0, "/local/domain/7/own", b"")
    store.write(DOM0, 0, "/backend", b"")
    store.set_perms(DOM0, 0, "/backend", ["n5", "b7"])
    store.write(SEVEN, 0, "/backend/frontends", b"")
    store.watch(DOM0, "/backend/frontends", "below")
    store.watch(DOM0, "/local/domain/7", "elsewhere")
    store.take_events()
    store.forget_domain(FIVE)
    assert store.take_events() == [
        WatchEvent(DOM0, "/backend/frontends", "below"),
        WatchEvent(DOM0, "/local/domain/7/foreign", "elsewhere"),
        WatchEvent(DOM0, "@releaseDomain", "out"),
    ]
    assert store.directory(DOM0, 0, "/") == ["local"]
    assert store.directory(DOM0, 0, "/local/domain") == ["3", "7"]
    assert store.directory(DOM0, 0, "/local/domain/7") == ["own"]
    assert FIVE not in store.statistics().domains
    assert store.statistics().nodes == 3 + 3


def test_xsa_322_a_later_domain_with_the_same_domid_has_no_rights_and_no_nodes(store: Store) -> None:
    store.write(DOM0, 0, "/given", b"v")
    store.set_perms(DOM0, 0, "/given", ["n0", "b5", "r7"])
    store.watch(DOM0, "/given", "t")
    store.forget_domain(FIVE)
    assert store.get_perms(DOM0, 0, "/given") == ["n0", "r7"]
    store.introduce(FIVE)
    assert store.get_perms(DOM0, 0, "/given") == ["n0", "r7"]
    store.watch(FIVE, "/given", "t")
    store.take_events()
    store.write(DOM0, 0, "/given", b"w")
    assert [event.domid for event in store.take_events()] == [DOM0]
    for call in (lambda: store.read(FIVE, 0, "/given"), lambda: store.write(FIVE, 0, "/given", b"")):
        with pytest.raises(StoreError, match="EACCES: "):
            call()


def test_a_child_made_after_a_domain_was_forgotten_does_not_bring_its_rights_back(store: Store) -> None:
    store.write(DOM0, 0, "/given", b"v")
    store.set_perms(DOM0, 0, "/given", ["n0", "b5"])
    store.forget_domain(FIVE)
    store.introduce(FIVE)
    store.write(DOM0, 0, "/given/child", b"secret")
    with pytest.raises(StoreError, match="EACCES: "):
        store.read(FIVE, 0, "/given/child")


def test_a_root_that_a_forgotten_domain_owned_goes_back_to_dom0(store: Store) -> None:
    store.set_perms(DOM0, 0, "/", ["r5"])
    store.forget_domain(FIVE)
    assert store.get_perms(DOM0, 0, "/") == ["r0"]
    assert store.directory(DOM0, 0, "/local/domain") == ["3", "7"]


def test_forgetting_is_heard_once_and_forgetting_the_unknown_is_nothing(store: Store) -> None:
    watching(store)
    store.release(FIVE)
    store.forget_domain(FIVE)
    store.forget_domain(SEVEN)
    assert heard(store) == ["out"], "the two waited together"
    store.forget_domain(SEVEN)
    store.create_domain(NINE)
    store.forget_domain(NINE)
    assert heard(store) == []


def test_a_forgotten_domain_cannot_call(store: Store) -> None:
    store.forget_domain(FIVE)
    with pytest.raises(StoreError, match="ENOENT: "):
        store.mkdir(FIVE, 0, "/x")


def test_dom0_cannot_be_released_forgotten_or_introduced_nor_reserved_numbers_be_used() -> None:
    store = Store()
    for call in (store.release, store.forget_domain, store.introduce, store.create_domain):
        with pytest.raises(StoreError, match="EINVAL: "):
            call(DOM0)
    for domid in (DomId(DOMID_FIRST_RESERVED), DomId(-1), DomId(65535)):
        for call in (store.introduce, store.create_domain):
            with pytest.raises(StoreError, match="EINVAL: "):
                call(domid)


def test_a_birth_is_never_used_twice() -> None:
    domains = Domains()
    first = domains.create(FIVE).who
    assert domains.create(FIVE).who is first
    domains.forget(FIVE)
    assert FIVE not in domains.living
    assert domains.create(FIVE).who != first
    assert [client.who.domid for client in domains] == [DOM0, FIVE]


def test_a_domains_path_needs_no_domain() -> None:
    assert Store().get_domain_path(DomId(1234)) == "/local/domain/1234"
