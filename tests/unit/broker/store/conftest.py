"""Stores to test with: dom0 and three guests, each owning its home."""

import pytest

from hvd.broker.store import Quotas, Store
from hvd.transport.ids import DOM0, DomId

GUESTS = (DomId(3), DomId(5), DomId(7))


def store_with_guests(quotas: Quotas) -> Store:
    store = Store(quotas)
    for guest in GUESTS:
        store.introduce(guest)
        store.mkdir(DOM0, 0, store.get_domain_path(guest))
        store.set_perms(DOM0, 0, store.get_domain_path(guest), [f"n{guest}"])
    return store


@pytest.fixture
def store() -> Store:
    """With Xen's quotas."""
    return store_with_guests(Quotas())


@pytest.fixture
def small_store() -> Store:
    """With quotas that a short test can reach."""
    return store_with_guests(
        Quotas(
            nodes_max=6,
            node_bytes_max=200,
            permissions_max=3,
            path_bytes_max=64,
            depth_max=12,
            watches_max=3,
            transactions_max=2,
            transaction_nodes_max=8,
            memory_bytes_max=10_000,
            events_max=4,
        )
    )


@pytest.fixture
def tight_ceiling() -> Store:
    """Where even dom0 has little room."""
    return Store(Quotas(), privileged=Quotas(nodes_max=4, watches_max=2))
