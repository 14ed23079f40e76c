"""The domains that the store knows, and what it keeps for each: birth, connection, transactions."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator

from hvd.broker.store.errors import StoreError
from hvd.broker.store.permissions import DOM0_PRINCIPAL, Living, Principal
from hvd.broker.store.transactions import Transaction
from hvd.broker.store.tree import Node
from hvd.transport.ids import DOM0, DOMID_FIRST_RESERVED, DomId
from hvd.transport.records import dataclass, field

_TRANSACTION_ID_MAX = (1 << 32) - 1


@dataclass(slots=True)
class Client:
    """One domain, from its creation until it is forgotten."""

    who: Principal
    introduced: bool
    target: Principal | None = None
    """SET_TARGET: a domain whose nodes this one may use as if they were its own; it is a device model's."""
    transactions: dict[int, Transaction] = field(default_factory=dict)
    last_transaction: int = 0

    def transaction(self, tx: int) -> Transaction:
        """ENOENT for an id that is not open."""
        if tx not in self.transactions:
            raise StoreError(errno.ENOENT, f"domain {self.who.domid} has no transaction {tx}")
        return self.transactions[tx]

    def start(self, snapshot: Node, transactions_max: int, nodes_max: int, connection: int = 0) -> int:
        """Open a transaction: its id, which is never 0 and not in use."""
        if len(self.transactions) >= transactions_max:
            raise StoreError(errno.ENOSPC, f"domain {self.who.domid} has {transactions_max} transactions open already")
        tx = self.last_transaction % _TRANSACTION_ID_MAX + 1
        while tx in self.transactions:
            tx = tx % _TRANSACTION_ID_MAX + 1
        self.last_transaction = tx
        self.transactions[tx] = Transaction(snapshot, snapshot, nodes_max, connection)
        return tx

    def end(self, tx: int) -> Transaction:
        """The transaction, which is not open any more. ENOENT for an id that is not open."""
        transaction = self.transaction(tx)
        del self.transactions[tx]
        return transaction

    def drop_connection(self, connection: int) -> list[Transaction]:
        """Its open transactions, which are as if they had never been."""
        return [self.end(tx) for tx, each in list(self.transactions.items()) if each.connection == connection]

    def held_bytes(self) -> int:
        """What its open transactions hold."""
        return sum(transaction.held_bytes for transaction in self.transactions.values())


ClientRow = tuple[Principal, bool, Principal | None, int]
"""All of a client but its transactions."""


class Domains:
    """The table, dom0 always in it. A domid that comes again is another domain: it gets another birth."""

    def __init__(self) -> None:
        self._clients = {DOM0: Client(DOM0_PRINCIPAL, introduced=True)}
        self._principals = {DOM0: DOM0_PRINCIPAL}
        self._births = 0

    def create(self, domid: DomId) -> Client:
        """The domain exists from now on, if it did not; EINVAL for dom0 and for reserved numbers."""
        if not 0 < domid < DOMID_FIRST_RESERVED:
            raise StoreError(errno.EINVAL, f"{domid} is not a guest's domid")
        if domid not in self._clients:
            self._births += 1
            self._principals[domid] = Principal(domid, self._births)
            self._clients[domid] = Client(self._principals[domid], introduced=False)
        return self._clients[domid]

    def forget(self, domid: DomId) -> None:
        """It does not exist any more."""
        del self._clients[domid], self._principals[domid]

    def rows(self) -> list[ClientRow]:
        """Of all, as they are now."""
        return [(each.who, each.introduced, each.target, each.last_transaction) for each in self]

    def without_clients(self) -> Domains:
        """The table before `take` of its rows."""
        empty = Domains()
        empty._births = self._births
        empty._clients, empty._principals = {}, {}
        return empty

    def take(self, rows: Iterable[ClientRow]) -> None:
        """Who were in the table that these rows are of."""
        for who, introduced, target, last_transaction in rows:
            self._principals[who.domid] = who
            self._clients[who.domid] = Client(who, introduced, target, {}, last_transaction)

    def __getitem__(self, domid: DomId) -> Client:
        """ENOENT for a domain that does not exist."""
        client = self._clients.get(domid)
        if client is None:
            raise StoreError(errno.ENOENT, f"the store knows no domain {domid}: create_domain or introduce comes first")
        return client

    def __iter__(self) -> Iterator[Client]:
        """In the order of creation."""
        return iter(self._clients.values())

    def get(self, domid: DomId) -> Client | None:
        """None for a domain that does not exist."""
        return self._clients.get(domid)

    @property
    def living(self) -> Living:
        """Who is who at the moment."""
        return self._principals
