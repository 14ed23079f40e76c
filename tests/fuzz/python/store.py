"""XenStore calls of four domains in any order, transactions and watches among them, under small quotas.

What must hold: a call does something or raises StoreError; no guest gets more than its quota lets it; the accounts are
what a walk through the tree counts; and the store is the same after a snapshot.
"""

from __future__ import annotations

import pickle
from collections import Counter
from contextlib import suppress

from hvd.broker.store import Store, StoreError
from hvd.broker.store.quotas import Quotas
from hvd.transport.ids import DOM0, DomId
from tests.fuzz.python.choices import Choices

STEPS_MAX = 80
SMALL = Quotas(
    nodes_max=6, node_bytes_max=160, permissions_max=3, path_bytes_max=80, depth_max=8, watches_max=4,
    transactions_max=2, transaction_nodes_max=8, memory_bytes_max=1500, events_max=6,
)  # fmt: skip
PRIVILEGED = Quotas(nodes_max=200, node_bytes_max=4096, depth_max=12, watches_max=16, transactions_max=4, events_max=32)
GUESTS = (DomId(1), DomId(2), DomId(3))
NAMES = ("a", "b", "data", "x-y", "@", "local", "domain", "1", "2", "", "..", "a b", "é", "\0", "n" * 90)
SPECIAL = ("/", "@releaseDomain", "@introduceDomain", "@what", "/local/domain/1", "/local/domain/2/data")
PERMISSIONS = ("n0", "n1", "r2", "b3", "w1", "n2", "r9", "", "n00001", "n-1", "x1")


def play(data: bytes) -> None:
    choices = Choices(data)
    store = _store()
    for _ in range(STEPS_MAX):
        if not choices.more():
            break
        caller, before = choices.pick((DOM0, *GUESTS)), _nodes(store)
        with suppress(StoreError):
            _call(choices, store, caller)
        _check_quotas(store, caller, before)
    _check_accounts(store)
    assert pickle.loads(pickle.dumps(store)).statistics() == store.statistics()


def _store() -> Store:
    store = Store(SMALL, PRIVILEGED)
    for domid in GUESTS:
        store.introduce(domid)
        store.mkdir(DOM0, 0, f"/local/domain/{domid}/data")
        store.set_perms(DOM0, 0, f"/local/domain/{domid}/data", [f"n{domid}"])
    return store


def _call(choices: Choices, store: Store, domid: DomId) -> None:
    tx = choices.below(4) if choices.flag() else 0
    match choices.below(17):
        case 0 | 1:
            store.write(domid, tx, _path(choices), choices.take(choices.below(200)))
        case 2:
            store.mkdir(domid, tx, _path(choices))
        case 3:
            store.rm(domid, tx, _path(choices))
        case 4:
            store.set_perms(domid, tx, _path(choices), [choices.pick(PERMISSIONS) for _ in range(choices.below(5))])
        case 5:
            assert len(store.read(domid, tx, _path(choices))) <= PRIVILEGED.node_bytes_max
        case 6:
            store.directory(domid, tx, _path(choices))
        case 7:
            store.directory_part(domid, tx, _path(choices), choices.number(2) - 2)
        case 8:
            store.get_perms(domid, tx, _path(choices))
        case 9:
            store.transaction_start(domid)
        case 10:
            store.transaction_end(domid, choices.below(4), choices.flag())
        case 11:
            store.watch(domid, _path(choices), choices.text(30))
        case 12:
            store.unwatch(domid, _path(choices), choices.text(30))
        case 13:
            for event in store.take_events():
                assert event.path
        case 14:
            store.reset_watches(domid)
        case 15:
            store.introduce(choices.pick(GUESTS))
        case _:
            _come_and_go(choices, store)


def _come_and_go(choices: Choices, store: Store) -> None:
    domid = choices.pick((DOM0, *GUESTS))
    if choices.flag():
        store.release(domid)
    else:
        store.forget_domain(domid)
        store.create_domain(domid)


def _path(choices: Choices) -> str:
    if choices.below(4) == 3:
        return choices.pick(SPECIAL)
    path = "/".join(choices.pick(NAMES) for _ in range(1 + choices.below(4)))
    return f"/{path}" if choices.flag() else path


def _nodes(store: Store) -> dict[DomId, int]:
    return {domid: share.nodes for domid, share in store.statistics().domains.items()}


def _check_quotas(store: Store, caller: DomId, before: dict[DomId, int]) -> None:
    """Dom0 may give a guest more nodes than its quota, and whoever has them keeps them."""
    for domid, share in store.statistics().domains.items():
        quotas = PRIVILEGED if domid == DOM0 else SMALL
        assert share.watches <= quotas.watches_max and share.transactions <= quotas.transactions_max
        assert share.events <= quotas.events_max + quotas.watches_max
        assert caller == DOM0 or share.nodes <= max(quotas.nodes_max, before.get(domid, 0)), (domid, share)


def _check_accounts(store: Store) -> None:
    owned: Counter[int] = Counter()
    paths = ["/"]
    while paths:
        path = paths.pop()
        owner, *_ = store.get_perms(DOM0, 0, path) or ["n0"]
        owned[int(owner[1:])] += 1
        paths += [f"{path.rstrip('/')}/{name}" for name in store.directory(DOM0, 0, path)]
    for domid, share in store.statistics().domains.items():
        assert share.nodes == owned[domid], (domid, share, owned)
