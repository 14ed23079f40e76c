"""The committed state of the store and the only ways to change it: quotas checked, accounts settled, watches fired."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import copy
from functools import partial
from itertools import islice
from typing import Any

from hvd.broker.store import mandatory, paths
from hvd.broker.store.accounts import Accounts, Growth, Tally, add, growth_of
from hvd.broker.store.changes import Change, Edit, Fires, Removal
from hvd.broker.store.departures import Departures
from hvd.broker.store.domains import Client, Domains
from hvd.broker.store.errors import StoreError
from hvd.broker.store.events import Events
from hvd.broker.store.merge import Versions, merge
from hvd.broker.store.operations import Call
from hvd.broker.store.packing import Packed, Packing, pack, unpack
from hvd.broker.store.parts import Collected, Part, in_parts
from hvd.broker.store.permissions import DOM0_ONLY, READ, Permissions, Principal, given_to_dom0, may
from hvd.broker.store.quotas import Quotas
from hvd.broker.store.record import Record
from hvd.broker.store.remains import Remains
from hvd.broker.store.sweeps import EDITS_PER_SLICE, REMOVALS_PER_SLICE, WATCHES_PER_SLICE, Sweep, Sweeps
from hvd.broker.store.transactions import Transaction, View
from hvd.broker.store.tree import Node, content_bytes, leaf, lookup, replace, subtree, with_content
from hvd.broker.store.watches import Watches
from hvd.transport.ids import DOM0, DomId

NODES_CHECKED_AT_ONCE = 200
"""About a third of a millisecond."""
INTRODUCE = "@introduceDomain"
RELEASE = "@releaseDomain"


class Engine:
    """What the store's calls work on."""

    def __init__(self, quotas: Quotas, privileged: Quotas, policy: mandatory.Policy | None = None) -> None:
        self.quotas = quotas
        self.privileged = privileged
        self._policy = policy
        self.generation = 1
        """Of the last change; each change, inside a transaction or not, gets the next."""
        self.root = leaf(b"", DOM0_ONLY, self.generation)
        self.accounts = Accounts(self.root)
        self.domains = Domains()
        self.watches = Watches()
        self.events = Events()
        self.sweeps = Sweeps()
        self._departures = Departures()
        self.leaving: set[DomId] = set()
        """Domains that are forgotten, and whose nodes are still being removed."""
        self.remains = Remains()
        self._check: Iterator[str | None] | None = None
        self._parts_follow = False
        self.special_permissions: dict[str, Permissions] = {INTRODUCE: DOM0_ONLY, RELEASE: DOM0_ONLY}

    def limits(self, domid: DomId) -> Quotas:
        """What bounds this domain."""
        return self.privileged if domid == DOM0 else self.quotas

    def call(self, domid: DomId) -> Call:
        """A call by this domain, now."""
        client = self.domains[domid]
        return Call(client.who, self.limits(domid), self.generation + 1, self._policy, client.target)

    def check_some(self) -> str | None:
        """What is wrong with the accounts, "" when they are what a walk through the tree counts; None: ask again.

        It begins when nothing is under way, and is about that moment. It changes nothing.
        """
        if self._check is None:
            if self.sweeps:
                return None
            self._check = self._checking()
        verdict = next(self._check)
        if verdict is not None:
            self._check = None
        return verdict

    def _checking(self) -> Iterator[str | None]:
        held = {client.who.domid: copy(self.accounts.of(client.who.domid)) for client in self.domains}
        counted: Growth = {}
        root = self.root
        edits = (Edit(path, None, node, Fires.NOBODY) for path, node in subtree("/", root))
        while some := list(islice(edits, NODES_CHECKED_AT_ONCE)):
            add(counted, growth_of(some))
            if len(some) == NODES_CHECKED_AT_ONCE:
                yield None
        wrong = [domid for domid, tally in held.items() if counted.get(domid, Tally()) != tally]
        if root is not self.root:  # by now nobody else may have it any more
            self.remains.add(root)
        yield f"the accounts of domains {wrong} are wrong" if wrong else ""

    # ---- changes -----------------------------------------------------------------------------------------------------

    def enact(self, call: Call, view: View, change: Change | None) -> None:
        """Make an operation's change, in its transaction or for all to see. ENOSPC, ENOMEM: it would exceed a quota."""
        if change is None:
            return
        if change.node is None:  # what only takes away exceeds nothing
            if isinstance(view, Transaction):
                self._take_away(call, view, change)
            else:
                self._remove(call, change)
            self.generation = call.generation
            return
        growth = growth_of(change.edits)
        self.sweeps.edits += sum(1 for _ in change.edits)
        if isinstance(view, Transaction):
            self._check_nodes(growth, view.growth, call.limits)
            incoming = sum(content_bytes(edit.path, edit.after) for edit in change.edits if edit.after is not None)
            self.check_memory(call.who.domid, incoming, call.limits)
        else:
            self._check_nodes(growth, {}, call.limits)
            self._check_bytes(growth, call.limits)
        self.generation = call.generation
        if isinstance(view, Transaction):
            view.adopt(change, call.generation)
        else:
            root = replace(self.root, change.path, change.node, call.generation)
            self._settle(call.who.domid, root, change.edits, growth)

    def _take_away(self, call: Call, view: Transaction, change: Change) -> None:
        """A removal in a transaction. ENOSPC if that depends on too many nodes, as far as the first slice shows."""
        edits = iter(change.edits)
        first = list(islice(edits, EDITS_PER_SLICE))
        self.sweeps.edits += len(first)
        view.depend_on(first)
        view.take_away(change.path, first, call.generation)
        if len(first) == EDITS_PER_SLICE:
            self.sweeps.add(Sweep(call.who.domid, edits, view.depend_on_removed, about=view))

    def commit(self, domid: DomId, transaction: Transaction) -> None:
        """Make all changes of a transaction that is over. EAGAIN, ENOSPC, ENOMEM: none of them is made."""
        self.sweeps.finish(transaction)  # its removals were in the same multicall
        if transaction.doomed:
            raise StoreError(errno.ENOSPC, transaction.doomed)
        call, root, too_large = self.call(domid), transaction.root, ""
        if transaction.snapshot is not self.root:
            versions = Versions(transaction.snapshot, transaction.root, self.root)
            root, too_large = merge(transaction.record, versions, call.generation, call.limits)
        if transaction.root is transaction.snapshot:
            return
        if any(self.domains.living.get(owner.domid) != owner for owner in transaction.given_to):
            raise StoreError(errno.EAGAIN, "the transaction gives a node to a domain that is gone")
        self._check_nodes(transaction.growth, {}, call.limits)
        self._check_bytes(transaction.growth, call.limits)
        if too_large:
            raise StoreError(errno.ENOSPC, f"{too_large} would be too large with what others have put there")
        if transaction.snapshot is not self.root:
            self.generation = call.generation
        record, transaction.record = transaction.record, Record()
        self._settle(domid, root, transaction.edits_of(record), transaction.growth, record)

    def remove_all_of(self, who: Principal) -> None:
        """A domain is forgotten: what it owned goes with all below, but the root goes to dom0. It takes its time."""
        self.leaving.add(who.domid)
        follow = partial(self._follow, self.root)
        finish = partial(self.sweeps.afterwards, DOM0, partial(self._is_forgotten, who.domid))  # some go with others'
        sweep = Sweep(DOM0, self._removals_of(who), follow, finish, REMOVALS_PER_SLICE)
        self._begin(sweep, now=not self.sweeps)  # some of what is under way may be about its nodes

    def _is_forgotten(self, domid: DomId) -> None:
        self.accounts.forget(domid)
        self.leaving.remove(domid)

    def has_to_leave_first(self, domid: DomId) -> None:
        """A domain is to be made whose predecessor of that number still has nodes: not any more."""
        if domid in self.leaving:
            self.settle_all()

    def _removals_of(self, who: Principal) -> Iterator[Edit]:
        """Makes each removal when it comes to it."""
        for path in self.accounts.owned_by(who.domid):
            node = lookup(self.root, path)
            if node is not None and node.permissions[0].who == who:  # else it went with a node above it
                self.generation += 1
                yield from self._give_to_dom0(node) if path == "/" else self._without(path, node)

    def _without(self, path: str, node: Node) -> Iterator[Edit]:
        self.root = replace(self.root, path, None, self.generation)
        return self._departures.of(Removal(path, node), self.accounts)

    def _give_to_dom0(self, root: Node) -> list[Edit]:
        self.root = with_content(root, root.value, given_to_dom0(root.permissions), self.generation)
        edits = [Edit("/", root, self.root, Fires.ON_IT_AND_ABOVE)]
        self.accounts.count(growth_of(edits))
        return edits

    def _remove(self, call: Call, change: Change) -> None:
        """A removal for all to see. Who owns how much follows too."""
        assert isinstance(change.edits, Removal)
        before, self.root = self.root, replace(self.root, change.path, None, call.generation)
        edits = self._departures.of(change.edits, self.accounts)
        sweep = Sweep(call.who.domid, edits, partial(self._follow, before), partial(self._forget, before, None))
        self._begin(sweep, now=not self.sweeps.is_for(call.who.domid))

    def _settle(
        self, caller: DomId, root: Node, edits: Iterable[Edit], growth: Growth, record: Record | None = None
    ) -> None:
        """Any other change of the tree. Watches and lists of paths follow, at once if it is a small one.

        `record`: of the edits, if any.
        """
        before, self.root = self.root, root
        self.accounts.count(growth)
        if isinstance(edits, list) and len(edits) < EDITS_PER_SLICE:
            self._follow(before, edits)
            return
        follow = partial(self._follow, before, root_after=root)
        self._begin(Sweep(caller, iter(edits), follow, partial(self._forget, before, record)), now=True)

    def _forget(self, root: Node, record: Record | None) -> None:
        self.remains.add(root)
        if record is not None:
            self.remains.add_record(record)

    def _begin(self, sweep: Sweep[Any], *, now: bool) -> None:
        """`now`: its first slice. The others in turn."""
        if now:
            self.sweeps.edits += sweep.advance()
        if not sweep.done:
            self.sweeps.add(sweep)

    def drop_connections(self, client: Client, connections: Iterable[int], caller: DomId | None) -> None:
        """What these have set and opened is gone, and their events; lists of watches follow, while `caller` waits."""
        domid = client.who.domid
        for connection in connections:
            for transaction in client.drop_connection(connection):
                self.leave(transaction)
            self.watches.drop_connection(domid, connection)
            self.events.drop_connection(domid, connection)
        sweep = Sweep(caller, self.watches.dropped(), self.watches.unlist, per_slice=WATCHES_PER_SLICE)
        self._begin(sweep, now=True)

    def leave(self, transaction: Transaction) -> None:
        """It is over: what only it has is let go in time."""
        self.remains.add_record(transaction.record)
        for root in (transaction.snapshot, transaction.root):
            if root is not self.root:
                self.remains.add(root)

    def _follow(self, root_before: Node, edits: list[Edit], *, root_after: Node | None = None) -> None:
        """Lists of owned paths and watches hear of these edits; `root_after`: of a change that is older than this."""
        self.accounts.note(edits, self.root)
        for edit in edits:
            if edit.fires:
                self.fire(root_before, edit, root_after or self.root)

    def settle_some(self) -> None:
        """Go on with what is under way."""
        self.sweeps.go_on()

    def settle_all(self) -> None:
        """Nothing is under way any more."""
        while self.sweeps:
            self.settle_some()

    # ---- quotas ------------------------------------------------------------------------------------------------------

    def _check_nodes(self, growth: Growth, already: Growth, limits: Quotas) -> None:
        """ENOSPC if an owner would have too many; `already` is what the same transaction has added so far."""
        for owner, more in growth.items():
            nodes = self.accounts.of(owner).nodes + already.get(owner, Tally()).nodes + more.nodes
            if more.nodes > 0 and nodes > limits.nodes_max:
                if self._departures.count_all():
                    self._check_nodes(growth, already, limits)
                    return
                raise StoreError(errno.ENOSPC, f"domain {owner} would own {nodes} nodes of {limits.nodes_max}")

    def _check_bytes(self, growth: Growth, limits: Quotas) -> None:
        for owner, more in growth.items():
            if more.bytes > 0:
                self.check_memory(owner, more.bytes, limits)

    def check_memory(self, domid: DomId, incoming: int, limits: Quotas) -> None:
        """ENOMEM if a domain cannot hold so many bytes more."""
        size = self.memory_of(domid) + incoming
        if size > limits.memory_bytes_max and self._departures.count_all():
            size = self.memory_of(domid) + incoming
        if size > limits.memory_bytes_max:
            raise StoreError(errno.ENOMEM, f"domain {domid} would hold {size} bytes of {limits.memory_bytes_max}")

    def grow(self, permissions: Permissions, growth: int) -> bool:
        """A value that dom0 writes is larger by so much: its owner is charged, unless that is more than it may hold.

        Or it is gone: whose its nodes are then is being settled, and the long way says so.
        """
        owner = permissions[0].who.domid
        if self.domains.get(owner) is None:
            return False
        if growth > 0 and self.memory_of(owner) + growth > self.privileged.memory_bytes_max:
            return False
        self.accounts.count({owner: Tally(bytes=growth)})
        return True

    def memory_of(self, domid: DomId) -> int:
        """What counts against a domain's memory_bytes_max."""
        return self.accounts.of(domid).bytes + self.watches.bytes(domid) + self.domains[domid].held_bytes()

    # ---- events ------------------------------------------------------------------------------------------------------

    def fire(self, root_before: Node, edit: Edit, root_after: Node) -> None:
        """Tell those who watch it, and might know then."""
        watches = self.watches.on if edit.fires is Fires.ON_IT else self.watches.on_or_above
        heard_by: dict[DomId, bool] = {}
        for watch in watches(edit.path):
            domid = watch.domid
            if domid not in heard_by:
                heard_by[domid] = self._may_hear(self.domains[domid], root_before, edit, root_after)
            if heard_by[domid]:
                self.events.add(watch, edit.path, self.limits(domid).events_max)

    def _may_hear(self, client: Client, root_before: Node, edit: Edit, root_after: Node) -> bool:
        """Whether it tells only what one may see: a readable node, or a change in a readable list (XSA-115)."""
        path, before, after, _ = edit
        who, target = client.who, client.target
        told = [node for node in (before, after) if node is not None]
        if not any(may(node.permissions, who, READ, target) for node in told):
            if (before is None) == (after is None):
                return False
            parent = lookup(root_before if after is None else root_after, paths.parent(path))
            if parent is None or not may(parent.permissions, who, READ, target):
                return False
            told.append(parent)
        return all(mandatory.allows(self._policy, who.domid, node.permissions, READ) for node in told)

    def fire_special(self, name: str) -> None:
        """@introduceDomain or @releaseDomain has happened; dom0 decides by their permissions who else hears."""
        for watch in self.watches.on(name):
            client = self.domains[watch.domid]
            if may(self.special_permissions[name], client.who, READ, client.target):
                self.events.add(watch, name, self.limits(watch.domid).events_max)

    # ---- snapshots ---------------------------------------------------------------------------------------------------

    def _transactions(self) -> list[Transaction]:
        return [transaction for client in self.domains for transaction in client.transactions.values()]

    @contextmanager
    def in_parts(self, packing: Packing | None, *, watches: bool) -> Iterator[Iterator[Part]]:
        """A pickle that is made in here has no trees, watches and clients: they follow in these parts."""
        self.settle_all()
        self._parts_follow = True
        told = self.watches.in_order() if watches else []
        try:
            yield in_parts(self._roots(), told, self.domains, self.remains, packing)
        finally:
            self._parts_follow = False

    def take_parts(self, collected: Collected) -> None:
        """What a pickle had none of."""
        assert collected.packed is not None
        self.watches = Watches()
        for watch in collected.watches:
            self.watches.add(watch)
        self.domains.take(collected.clients)
        for domid, tx, row in collected.transactions:
            self.domains[domid].transactions[tx] = Transaction.of_row(row)
        for domid, tx, rows in collected.touched:
            self.domains[domid].transactions[tx].record.add(rows)
        self._take_trees(collected.packed)

    def _take_trees(self, packed: Packed) -> None:
        roots = iter(unpack(packed))
        self.root = next(roots)
        self.accounts = Accounts(self.root)
        for transaction in self._transactions():
            transaction.snapshot, transaction.root = next(roots), next(roots)

    def _roots(self) -> list[Node]:
        return [self.root, *(root for each in self._transactions() for root in (each.snapshot, each.root))]

    def __getstate__(self) -> dict[str, Any]:
        """All trees in one flat table, which knows neither depth nor copies; the accounts follow from the tree."""
        self.settle_all()
        apart = {"root", "accounts", "sweeps", "remains", "_check", "_departures", "_parts_follow"}
        if self._parts_follow:
            apart.add("watches")
        state = {name: value for name, value in self.__dict__.items() if name not in apart}
        if self._parts_follow:
            return {**state, "domains": self.domains.without_clients()}
        return {**state, "packed": pack(self._roots())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({name: value for name, value in state.items() if name != "packed"})
        self.sweeps = Sweeps()
        self._departures = Departures()
        self.remains = Remains()
        self._check = None
        self._parts_follow = False
        if "packed" in state:
            self._take_trees(state["packed"])
