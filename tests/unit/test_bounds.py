"""Bounds that stand in one line of a module each: what happens one beyond."""

import errno

import pytest

from hvd.domains.block.backend import ring_refs
from hvd.domains.store import TRANSACTION_TRIES, StoreClient, TransactionConflict
from hvd.transport import messages as m
from hvd.transport.codec import BadMessage, pack_call, pack_request, unpack_request
from hvd.transport.errors import PeerFault
from hvd.transport.hypercalls import HypercallError
from hvd.transport.multicall import MULTICALL_MAX
from hvd.transport.protocols.block import RING_PAGE_ORDER_MAX


def test_a_multicall_has_at_most_multicall_max_entries():
    call = pack_call(m.StoreRead(0, "/local"))
    packed = pack_request(m.Multicall([call] * MULTICALL_MAX), 1, 0, 0)
    assert unpack_request(packed)[3].calls == [call] * MULTICALL_MAX
    with pytest.raises(BadMessage, match="Multicall"):
        unpack_request(pack_request(m.Multicall([call] * (MULTICALL_MAX + 1)), 1, 0, 0))


def test_a_transaction_is_tried_transaction_tries_times():
    commits = []

    def call(message):
        """A store in which somebody else always commits first."""
        if isinstance(message, m.StoreTransactionEnd):
            commits.append(message.commit)
            raise HypercallError(errno.EAGAIN, "conflict", "StoreTransactionEnd")
        return 1

    with pytest.raises(TransactionConflict):
        StoreClient(call).transaction(lambda tx: None)
    assert commits == [True] * TRANSACTION_TRIES


def test_a_block_ring_has_at_most_16_pages():
    def keys(order):
        refs = {f"ring-ref{i}": str(8 + i) for i in range(1 << order)}
        return refs | {"ring-page-order": str(order)}

    assert len(ring_refs(keys(RING_PAGE_ORDER_MAX))) == 16
    with pytest.raises(PeerFault, match="ring-page-order"):
        ring_refs(keys(RING_PAGE_ORDER_MAX + 1))
