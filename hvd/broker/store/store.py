"""Every call that a domain or the broker makes on XenStore, without input or output.

No clock, no random source: the same calls on equal stores give equal results and equal stores, so that the broker can
rebuild its store from a snapshot (pickle) and a journal. Two things follow for the journal. Calls with tx = 0 that read
change nothing. Calls inside a transaction all count, reads and refused calls too, because its commit depends on them.

The semantics are those of Xen 4.17's xenstored (docs/misc/xenstore.txt), but: a transaction conflicts only over what it
read or wrote, not over siblings of it; an event about a changed value goes to those who may read the node, one about a
node that came or went also to those who may read its parent.
"""

import errno
from collections.abc import Callable
from itertools import islice

from hvd.broker.store import direct, operations, paths
from hvd.broker.store.changes import Change
from hvd.broker.store.children import names_at
from hvd.broker.store.engine import INTRODUCE, RELEASE, Engine
from hvd.broker.store.errors import StoreError
from hvd.broker.store.mandatory import Policy
from hvd.broker.store.operations import Call
from hvd.broker.store.permissions import OWNER, Permissions, may, parse, to_texts
from hvd.broker.store.quotas import PRIVILEGED, UNPRIVILEGED, Quotas
from hvd.broker.store.record import KEPT_IN_BYTES
from hvd.broker.store.transactions import Direct, View
from hvd.broker.store.upkeep import Upkeep
from hvd.broker.store.watches import Watch, check_token, size_of
from hvd.transport.ids import DOM0, DomId


class Store(Upkeep):
    """Every call may raise StoreError, and has then changed nothing but what an open transaction depends on.

    All calls but the broker's own, which end this class and make up Upkeep, name the calling domain, which must be
    known; domid 0 is privileged.
    `tx` is an open transaction of the caller, or 0. Paths are absolute, or relative to the caller's
    /local/domain/<domid>.
    """

    def __init__(
        self, quotas: Quotas = UNPRIVILEGED, privileged: Quotas = PRIVILEGED, policy: Policy | None = None
    ) -> None:
        super().__init__(Engine(quotas, privileged, policy))

    # ---- nodes -------------------------------------------------------------------------------------------------------

    def read(self, domid: DomId, tx: int, path: str) -> bytes:
        """The value of a node."""
        if not tx and (node := direct.read(self._engine, domid, path)) is not None:
            return node.value
        return operations.read(*self._prepare(domid, tx, path))

    def answer_plain(self, untrusted: bytes, at: int) -> tuple[bytes, int, bool]:
        """What dom0 asks by XenStore's wire protocol, from a place of its stream on: the replies to all plain READs and
        WRITEs one behind the other, where the first other message begins, and whether any of them was a WRITE.

        Plain is what finds the node, and to write it, nobody who watches it."""
        return direct.answer_plain(self._engine, untrusted, at)

    def exists(self, path: str) -> bool:
        """Whether domain 0 finds a node there, outside any transaction."""
        try:
            self.read(DOM0, 0, path)
        except StoreError:
            return False
        return True

    def directory(self, domid: DomId, tx: int, path: str, most: int | None = None) -> list[str]:
        """The names of a node's children, in the order of their creation. E2BIG for more than so many."""
        children = operations.directory(*self._prepare(domid, tx, path)).children
        if most is not None and len(children) > most:
            raise StoreError(errno.E2BIG, f"{path} has {len(children)} children, more than the {most} of one list")
        return list(children)

    def values(self, domid: DomId, path: str, most: int) -> dict[str, bytes]:
        """Of the children that were made first, at most so many, those that the domain may read, by name."""
        view, call, path = self._prepare(domid, 0, path)
        children = operations.directory(view, call, path).children
        first = ((name, children[name]) for name in islice(children, most))
        return {name: node.value for name, node in first if operations.may_read(call, node)}

    def directory_list(self, domid: DomId, tx: int, path: str, most: int) -> bytes:
        """The same names, each with its NUL: DIRECTORY's reply. E2BIG for more than so many bytes."""
        node = operations.directory(*self._prepare(domid, tx, path))
        if node.names_bytes > most:
            raise StoreError(errno.E2BIG, f"the names of what is in {path} take {node.names_bytes} bytes")
        return names_at(node.children, 0, most)

    def directory_part(self, domid: DomId, tx: int, path: str, offset: int) -> bytes:
        """The list's generation and names from a byte offset: DIRECTORY_PART's reply."""
        return operations.directory_part(*self._prepare(domid, tx, path), offset)

    def get_perms(self, domid: DomId, tx: int, path: str) -> list[str]:
        """["n5", "r0"]: the owner and what all others may do, then the exceptions."""
        return to_texts(operations.get_perms(*self._prepare(domid, tx, path)), self._engine.domains.living)

    def write(self, domid: DomId, tx: int, path: str, value: bytes) -> None:
        """Set a value, creating the node and its parents where they are missing."""
        if not tx and direct.write(self._engine, domid, path, value):
            return
        self._enact(domid, tx, path, lambda view, call, path: operations.write(view, call, path, value))

    def mkdir(self, domid: DomId, tx: int, path: str) -> None:
        """Create a node and its parents where they are missing."""
        self._enact(domid, tx, path, operations.mkdir)

    def rm(self, domid: DomId, tx: int, path: str) -> None:
        """Remove a node and all below it."""
        self._enact(domid, tx, path, operations.rm)

    def set_perms(self, domid: DomId, tx: int, path: str, perms: list[str]) -> None:
        """Replace a node's permissions, or those of a special path (at once, even inside a transaction)."""
        limit = self._engine.limits(domid).permissions_max
        if len(perms) > limit:
            raise StoreError(errno.ENOSPC, f"a node has at most {limit} permissions, these are {len(perms)}")
        permissions = parse(perms, self._engine.domains.living)
        if path.startswith("@"):
            self._set_special_permissions(domid, path, permissions)
            return
        self._enact(domid, tx, path, lambda view, call, path: operations.set_perms(view, call, path, permissions))

    # ---- transactions ------------------------------------------------------------------------------------------------

    def transaction_start(self, domid: DomId, connection: int = 0) -> int:
        """The id of a new transaction, which sees the tree as it is now."""
        limits = self._engine.limits(domid)
        client = self._engine.domains[domid]
        return client.start(self._engine.root, limits.transactions_max, limits.transaction_nodes_max, connection)

    def transaction_end(self, domid: DomId, tx: int, commit: bool) -> None:
        """Make a transaction's changes all at once, or drop it; it is over in any case.

        EAGAIN: something that it depends on has changed since its start. ENOSPC, ENOMEM: it would exceed a quota.
        """
        transaction = self._engine.domains[domid].end(tx)
        try:
            if commit:
                self._engine.commit(domid, transaction)
        finally:
            self._engine.leave(transaction)

    # ---- watches -----------------------------------------------------------------------------------------------------

    def watch(self, domid: DomId, path: str, token: str, connection: int = 0) -> None:
        """Ask for an event with `token` whenever something at or below `path` changes; the first comes at once."""
        engine, limits = self._engine, self._engine.limits(domid)
        who, relative = engine.domains[domid].who.domid, path[:1] not in ("/", "@")
        watch = Watch(who, self._watch_path(domid, path), token, relative, connection)
        check_token(token)
        if engine.watches.count(domid) >= limits.watches_max:
            raise StoreError(errno.E2BIG, f"domain {domid} has {limits.watches_max} watches already")
        if engine.events.count(domid) >= limits.events_max:
            raise StoreError(errno.ENOSPC, f"domain {domid} must first take its {limits.events_max} waiting events")
        engine.check_memory(domid, size_of(watch), limits)
        engine.watches.add(watch)
        engine.events.add(watch, watch.path, limits.events_max)

    def unwatch(self, domid: DomId, path: str, token: str, connection: int = 0) -> None:
        """Take a watch back. Its events that wait may still be taken. ENOENT: there is none, as on what is no path."""
        absolute = path if path.startswith(("/", "@")) else f"{paths.home(domid)}/{path}"
        self._engine.watches.remove(domid, connection, absolute, token)

    def reset_watches(self, domid: DomId) -> None:
        """RESET_WATCHES, on all the caller's connections: watches, waiting events and transactions go."""
        self._drop(domid, self._connections(domid), caller=domid)
        self._engine.events.drop(domid)

    def reset_connection(self, domid: DomId, connection: int) -> None:
        """RESET_WATCHES, on one of them."""
        self._drop(domid, [connection], caller=domid)

    def close_connection(self, domid: DomId, connection: int) -> None:
        """One of a domain's connections is over: its watches, events and transactions go.

        Nothing for a domain that is not known, since its connections may outlive it.
        """
        if domid in self._engine.domains.living:
            self._drop(domid, [connection], caller=None)

    def holds_transaction(self, domid: DomId, connection: int, tx: int) -> bool:
        """Whether this is an open transaction of this connection."""
        client = self._engine.domains.get(domid)
        return client is not None and tx in client.transactions and client.transactions[tx].connection == connection

    def get_domain_path(self, domid: DomId) -> str:
        """Where a domain's relative paths begin."""
        return paths.home(domid)

    # ---- the broker's own calls --------------------------------------------------------------------------------------

    def create_domain(self, domid: DomId) -> None:
        """The domain exists: permissions may name it and it may make calls. Nothing if it is known already."""
        self._engine.has_to_leave_first(domid)
        self._engine.domains.create(domid)

    def introduce(self, domid: DomId) -> None:
        """The domain speaks to the store: creates it if need be, fires @introduceDomain.

        For one that is introduced already, this resets the connection and fires nothing.
        """
        self._engine.has_to_leave_first(domid)
        client = self._engine.domains.create(domid)
        self.reset_watches(domid)
        if not client.introduced:
            client.introduced = True
            self._engine.fire_special(INTRODUCE)

    def release(self, domid: DomId) -> None:
        """The domain speaks to the store no more: its watches and transactions go, @releaseDomain fires.

        Its nodes stay, and count as its own, until it is forgotten. ENOENT: it is not introduced.
        """
        client = self._engine.domains[domid]
        if domid == DOM0:
            raise StoreError(errno.EINVAL, "dom0 cannot be released")
        if not client.introduced:
            raise StoreError(errno.ENOENT, f"domain {domid} is not introduced")
        self.reset_watches(domid)
        client.introduced, client.target = False, None  # as with xenstored, where it is the connection's
        self._engine.fire_special(RELEASE)

    def set_target(self, domid: DomId, target: DomId) -> None:
        """From now on the one may use what the other owns as its own. ENOENT for a domain that is not introduced."""
        for each in (domid, target):
            if not self.is_introduced(each):
                raise StoreError(errno.ENOENT, f"domain {each} is not introduced")
        self._engine.domains[domid].target = self._engine.domains[target].who

    def is_introduced(self, domid: DomId) -> bool:
        """Whether introduce was called for it, and release was not."""
        client = self._engine.domains.get(domid)
        return client is not None and client.introduced

    def close_domain(self, domid: DomId) -> None:
        """An incarnation died, the domid lives on: watches, events and transactions go, nodes and permissions stay.

        The host's connections are dom0's and none of its process.
        """
        self._drop(domid, [each for each in self._connections(domid) if each >= 0], caller=None)

    def tell_stopped(self) -> None:
        """A domain has stopped, and may keep its domid: @releaseDomain fires, as xenstored fires it at a shutdown."""
        self._engine.fire_special(RELEASE)

    def tell_started_again(self) -> None:
        """A domain that stopped runs again under its domid; Xen's would have another: @introduceDomain fires."""
        self._engine.fire_special(INTRODUCE)

    def close_connections(self) -> None:
        """The broker died that all connections by socket or ring were to."""
        for client in self._engine.domains:
            domid = client.who.domid
            self._drop(domid, [each for each in self._connections(domid) if each], caller=None)

    def _drop(self, domid: DomId, connections: list[int], *, caller: DomId | None) -> None:
        self._engine.drop_connections(self._engine.domains[domid], connections, caller)

    def _connections(self, domid: DomId) -> list[int]:
        """Those that have a watch or a transaction."""
        transactions = self._engine.domains[domid].transactions.values()
        return sorted({each.connection for each in transactions}.union(self._engine.watches.connections(domid)))

    def forget_domain(self, domid: DomId) -> None:
        """The domid is gone for good. Nothing if it is not known.

        Nodes that it owned go with all below them (XSA-419), the last of them when this is settled. Permissions that
        name it mean nobody, even if the number is used again (XSA-322). @releaseDomain fires if it was introduced.
        """
        if domid == DOM0:
            raise StoreError(errno.EINVAL, "dom0 cannot be forgotten")
        client = self._engine.domains.get(domid)
        if client is None:
            return
        self.reset_watches(domid)
        self._engine.remove_all_of(client.who)
        self._engine.domains.forget(domid)
        if client.introduced:
            self._engine.fire_special(RELEASE)

    # ---- inside ------------------------------------------------------------------------------------------------------

    def _enact(self, domid: DomId, tx: int, path: str, operation: Callable[[View, Call, str], Change | None]) -> None:
        """What an operation means, made so."""
        view, call, canonical = self._prepare(domid, tx, path)
        self._engine.enact(call, view, operation(view, call, canonical))

    def _prepare(self, domid: DomId, tx: int, path: str) -> tuple[View, Call, str]:
        call = self._engine.call(domid)
        view: View = Direct(self._engine.root)
        if tx:
            view = self._engine.domains[domid].transaction(tx)
            self._engine.sweeps.finish(view)  # what is written there again has to come behind
            self._engine.check_memory(domid, KEPT_IN_BYTES + len(path), call.limits)
        return view, call, paths.resolve(domid, path, call.limits)

    def _watch_path(self, domid: DomId, path: str) -> str:
        limits = self._engine.limits(domid)
        if not path.startswith("@"):
            return paths.resolve(domid, path, limits)
        if len(path) > limits.path_bytes_max or not path.isascii() or "\0" in path:
            raise StoreError(errno.EINVAL, f"not a special path: {path[:80]!r}")
        return path

    def _set_special_permissions(self, domid: DomId, name: str, permissions: Permissions) -> None:
        current = self._engine.special_permissions.get(name)
        if current is None:
            raise StoreError(errno.EINVAL, f"{name[:80]!r} is no special path")
        client = self._engine.domains[domid]
        if not may(current, client.who, OWNER, client.target):
            raise StoreError(errno.EACCES, f"domain {domid} may not change the permissions of {name}")
        self._engine.special_permissions[name] = permissions
