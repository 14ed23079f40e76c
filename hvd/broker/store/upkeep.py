"""What the broker asks of the store for itself: what is still to be done, how much there is and may be, snapshots."""

from collections.abc import Iterator
from contextlib import AbstractContextManager

from hvd.broker.store import paths
from hvd.broker.store.domains import Client
from hvd.broker.store.engine import Engine
from hvd.broker.store.events import WatchEvent
from hvd.broker.store.packing import Packing
from hvd.broker.store.parts import Collected, Part
from hvd.broker.store.quotas import Quotas
from hvd.broker.store.record import KEPT_IN_BYTES
from hvd.broker.store.statistics import DomainStatistics, StoreStatistics
from hvd.broker.store.tree import HEADER_BYTES, PERMISSION_BYTES
from hvd.transport.ids import DOMID_FIRST_RESERVED, DomId
from hvd.transport.records import replace


def call_bytes(limits: Quotas) -> int:
    """What one call may add: a value, and the longest path of which only the first name is long, and none exists.

    In a transaction each of these is a node of its own and one that it depends on.
    """
    node = HEADER_BYTES + PERMISSION_BYTES * limits.permissions_max + len(paths.home(DomId(DOMID_FIRST_RESERVED)))
    return 2 * limits.depth_max * (node + limits.path_bytes_max + KEPT_IN_BYTES) + limits.node_bytes_max


class Upkeep:
    """The half of `Store` that no domain calls."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # ---- what is still to be done ------------------------------------------------------------------------------------

    @property
    def has_unsettled(self) -> bool:
        """Whether accounts and watches have yet to follow a change of many nodes: call `settle` again."""
        return bool(self._engine.sweeps)

    def come_to_an_end(self) -> None:
        """There is to be nothing to settle before long, whatever domains do: each may make one such change meanwhile.

        Or two that take turns would always leave something. No state of the store's, as with `has_to_wait`.
        """
        self._engine.sweeps.come_to_an_end()

    def follows(self, domid: DomId) -> bool:
        """Whether its next call is too early by what the tables alone say: something is still to follow of a change of
        its own, or it may reach a quota, for which all that is under way would be counted at once."""
        sweeps = self._engine.sweeps
        return bool(sweeps) and (sweeps.is_for(domid) or self._is_nearly_full(domid))

    def is_settling(self, domid: DomId) -> bool:
        """Whether this domain made that change: until it is settled its next call would be too early."""
        sweeps = self._engine.sweeps
        return sweeps.is_for(domid) or sweeps.has_begun_the_last(domid)

    def has_to_wait(self, domid: DomId) -> bool:
        """Whether its next call is too early for whatever reason: it made that change, or the call may reach a quota.

        Who reaches one has all that is gone counted at once first. No state of the store's: it is about whose turn it
        is, and no answer depends on it.
        """
        sweeps = self._engine.sweeps
        if not sweeps:
            return False
        return self.is_settling(domid) or (self._is_nearly_full(domid) and sweeps.has_to_wait(domid))

    def _is_nearly_full(self, domid: DomId) -> bool:
        """Whether one call more may reach a quota: a path of new nodes, or a commit."""
        engine, client = self._engine, self._engine.domains.get(domid)
        if client is None:
            return False
        limits, tally = engine.limits(domid), engine.accounts.of(domid)
        growths = [each.growth[domid] for each in client.transactions.values() if domid in each.growth]
        nodes = tally.nodes + limits.depth_max + sum(max(0, each.nodes) for each in growths)
        size = engine.memory_of(domid) + call_bytes(limits) + sum(max(0, each.bytes) for each in growths)
        return nodes > limits.nodes_max or size > limits.memory_bytes_max

    @property
    def awaits_settling(self) -> bool:
        """Whether there is something to settle, or what settling has fired is still to be told.

        A domain that is made again has everything settled at once: then nobody has told it.
        """
        return self.has_unsettled or self.has_events

    def settle(self) -> None:
        """Let them follow by some nodes more."""
        self._engine.settle_some()

    @property
    def has_remains(self) -> bool:
        """Whether there are nodes that nobody needs any more: `let_go` of some. It is no change."""
        return bool(self._engine.remains)

    def let_go(self) -> None:
        """To free many at once would hold everybody up."""
        self._engine.remains.let_go()

    @property
    def has_events(self) -> bool:
        """Whether there is something for `take_events`."""
        return bool(self._engine.events)

    @property
    def work(self) -> int:
        """What it has had to do, ever, in units of two microseconds or so: two for an edit, one for who hears of it."""
        return 2 * self._engine.sweeps.edits + self._engine.events.fired

    def take_events(self) -> list[WatchEvent]:
        """All watch events since the last call, in firing order; equal ones of one domain came together."""
        return self._engine.events.take()

    # ---- how much there is, and may be -------------------------------------------------------------------------------

    def nodes_and_watches(self) -> int:
        """How many there are: how large a snapshot is."""
        return self.nodes() + len(self._engine.watches)

    def nodes(self) -> int:
        """How many there are."""
        return self._engine.accounts.nodes()

    def statistics(self) -> StoreStatistics:
        """What there is now."""
        domains = {client.who.domid: self._statistics_of(client) for client in self._engine.domains}
        return StoreStatistics(
            generation=self._engine.generation,
            nodes=self._engine.accounts.nodes(),
            watches=sum(domain.watches for domain in domains.values()),
            transactions=sum(domain.transactions for domain in domains.values()),
            events=sum(domain.events for domain in domains.values()),
            events_shortened=self._engine.events.shortened,
            domains=domains,
        )

    def usage(self, domid: DomId) -> DomainStatistics:
        """What it holds; nothing before it is introduced."""
        client = self._engine.domains.get(domid)
        return DomainStatistics(False, 0, 0, 0, 0, 0) if client is None else self._statistics_of(client)

    def limits(self, domid: DomId) -> Quotas:
        """What a domain may hold."""
        return self._engine.limits(domid)

    @property
    def unprivileged_limits(self) -> Quotas:
        """What every guest may hold."""
        return self._engine.quotas

    def set_limit(self, name: str, value: int) -> None:
        """Change one of them; who holds more already keeps it."""
        self._engine.quotas = replace(self._engine.quotas, **{name: value})

    def check_some(self) -> str | None:
        """What is wrong with the accounts; "" when they are what a walk through the tree counts; None: ask again."""
        return self._engine.check_some()

    def check(self) -> str:
        """The same at once: settles all."""
        self._engine.settle_all()
        while (verdict := self._engine.check_some()) is None:
            pass
        return verdict

    def _statistics_of(self, client: Client) -> DomainStatistics:
        domid = client.who.domid
        return DomainStatistics(
            introduced=client.introduced,
            nodes=self._engine.accounts.of(domid).nodes,
            bytes=self._engine.memory_of(domid),
            watches=self._engine.watches.count(domid),
            transactions=len(client.transactions),
            events=self._engine.events.count(domid),
        )

    # ---- snapshots ---------------------------------------------------------------------------------------------------

    def in_parts(
        self, packing: Packing | None = None, *, watches: bool = True
    ) -> AbstractContextManager[Iterator[Part]]:
        """Pickles made in it have no trees, watches and clients; they follow in these parts, for `take_parts`.

        What a packing has made rows of before is not among them, nor are watches if they are not asked for.
        """
        return self._engine.in_parts(packing, watches=watches)

    def watches_version(self) -> int:
        """As long as it is the same, so are the watches; in this broker."""
        return self._engine.watches.version

    def forget_packing(self, packing: Packing) -> None:
        """No snapshot needs it any more: its trees are let go in time."""
        self._engine.remains.add_packing(packing)

    def take_parts(self, collected: Collected) -> None:
        """What such a pickle has none of."""
        self._engine.take_parts(collected)
