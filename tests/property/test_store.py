"""The store against a plain dictionary: any calls of several domains, inside and outside of transactions.

The model has no index, no version and no counter. A transaction is a copy of the dictionary, a log of calls and
answers, and the marks of what it looked at; a commit replays the log on the committed dictionary, and must find the
same answers there. A commit fails exactly if what it looked at was changed by somebody else. Events are found by asking
every watch.
"""

import errno
import pickle
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from hvd.broker.store import Quotas, Store, StoreError, sweeps
from hvd.transport.ids import DOM0, DomId

GUESTS = [DomId(1), DomId(2)]
CONNECTIONS = [0, 2, -2]
"""By hypercall, by a domain's socket, by the host's."""
QUOTAS = Quotas(nodes_max=5, watches_max=3, transactions_max=2)
PATHS = ["/", "/a", "/a/b", "/a/b/c", "/local/domain/1", "/local/domain/2/b", "b", "b/c", "b/c/d", "c", "/bad//path"]


class Entry(NamedTuple):
    """One node of the model."""

    value: bytes
    permissions: tuple[tuple[DomId, str], ...]


Tree = dict[str, Entry]
Marks = set[tuple[str, str]]
"""("node", path) for a node's content and existence, ("list", path) for the names of its children."""
Answer = Any


def parent_of(path: str) -> str:
    return path[: path.rfind("/")] or "/"


def is_below(path: str, above: str) -> bool:
    return above in ("/", path) or path.startswith(f"{above}/")


def canonical(domid: DomId, path: str) -> str:
    return path if path.startswith("/") else f"/local/domain/{domid}/{path}"


def rights(entry: Entry, domid: DomId) -> set[str]:
    owner, others = entry.permissions[0]
    if domid in (DOM0, owner):
        return {"r", "w", "owner"}
    letter = next((letter for named, letter in entry.permissions[1:] if named == domid), others)
    return {"n": set(), "r": {"r"}, "w": {"w"}, "b": {"r", "w"}}[letter]


def owned(tree: Tree, domid: DomId) -> int:
    return sum(entry.permissions[0][0] == domid for entry in tree.values())


def refuse(number: int) -> Any:
    raise StoreError(number, "by the model")


def answer(call: Callable[[], Any]) -> Answer:
    try:
        return call()
    except StoreError as error:
        return errno.errorcode[error.errno]


class Model:
    """What calls mean, on one dictionary."""

    def __init__(self, tree: Tree, has_room: Callable[[DomId, int], bool]) -> None:
        self.tree = tree
        self.has_room = has_room
        self.looked_at: Marks = set()
        self.changed: Marks = set()
        self.fired: dict[str, bool] = {}
        """The paths that watches hear of; whether only those on exactly this path do."""

    def call(self, domid: DomId, name: str, path: str, argument: Any) -> Answer:
        path = canonical(domid, path)
        if "//" in path:
            return "EINVAL"
        return answer(lambda: getattr(self, name)(domid, path, argument))

    def fire(self, path: str, *, exactly: bool) -> None:
        self.fired[path] = exactly and self.fired.get(path, True)

    def find(self, domid: DomId, path: str, *wanted: str) -> Entry | None:
        self.looked_at.add(("node", path))
        if path in self.tree:
            return self.tree[path] if set(wanted) <= rights(self.tree[path], domid) else refuse(errno.EACCES)
        ancestor = parent_of(path)
        while ancestor not in self.tree:
            self.looked_at.add(("node", ancestor))
            ancestor = parent_of(ancestor)
        self.looked_at.add(("node", ancestor))
        return None if set(wanted) & rights(self.tree[ancestor], domid) else refuse(errno.EACCES)

    def get(self, domid: DomId, path: str, *wanted: str) -> Entry:
        return self.find(domid, path, *wanted) or refuse(errno.ENOENT)

    def put(self, path: str, entry: Entry) -> None:
        self.changed.add(("node", path))
        if path not in self.tree:
            self.changed.add(("list", parent_of(path)))
        self.tree[path] = entry

    def read(self, domid: DomId, path: str, _: None) -> bytes:
        return self.get(domid, path, "r").value

    def directory(self, domid: DomId, path: str, _: None) -> list[str]:
        self.get(domid, path, "r")
        self.looked_at.add(("list", path))
        return [other[len(path.rstrip("/")) + 1 :] for other in self.tree if other != "/" and parent_of(other) == path]

    def get_perms(self, domid: DomId, path: str, _: None) -> list[str]:
        return [f"{letter}{named}" for named, letter in self.get(domid, path, "r").permissions]

    def write(self, domid: DomId, path: str, value: bytes) -> None:
        entry = self.find(domid, path, "w")
        if entry is None:
            self.create(domid, path, value)
        else:
            self.put(path, entry._replace(value=value))
            self.fire(path, exactly=False)

    def mkdir(self, domid: DomId, path: str, _: None) -> None:
        if self.find(domid, path, "w") is None:
            self.create(domid, path, b"")

    def create(self, domid: DomId, path: str, value: bytes) -> None:
        missing = [path]
        while parent_of(missing[0]) not in self.tree:
            missing.insert(0, parent_of(missing[0]))
        self.looked_at |= {("node", new) for new in missing}
        (owner, others), *rest = self.tree[parent_of(missing[0])].permissions
        if domid != DOM0:
            owner = domid
            if not self.has_room(domid, len(missing)):
                refuse(errno.ENOSPC)
        for new in missing:
            self.put(new, Entry(value if new == path else b"", ((owner, others), *rest)))
        self.fire(path, exactly=False)

    def rm(self, domid: DomId, path: str, _: None) -> None:
        if self.find(domid, path, "w") is None:
            if parent_of(path) not in self.tree:
                refuse(errno.ENOENT)
        elif path == "/":
            refuse(errno.EINVAL)
        else:
            self.remove(path)

    def remove(self, path: str) -> None:
        for gone in [other for other in self.tree if is_below(other, path)]:
            self.looked_at |= {("node", gone), ("list", gone)}
            self.changed.add(("node", gone))
            self.fire(gone, exactly=gone != path)
            del self.tree[gone]
        self.changed.add(("list", parent_of(path)))

    def set_perms(self, domid: DomId, path: str, permissions: tuple[tuple[DomId, str], ...]) -> None:
        entry = self.get(domid, path, "w", "owner")
        if domid != DOM0 and permissions[0][0] != entry.permissions[0][0]:
            refuse(errno.EPERM)
        self.put(path, entry._replace(permissions=permissions))
        self.fire(path, exactly=False)


class OpenTransaction(NamedTuple):
    """What the model keeps of one."""

    start: Tree
    model: Model
    log: list[tuple[tuple[str, str, Any], Answer]]
    commits_before: int
    connection: int


domains = st.sampled_from([DOM0, DOM0, *GUESTS])  # dom0 twice: guests are refused most of what they try
connections = st.sampled_from(CONNECTIONS)
paths = st.sampled_from(PATHS)
permission_lists = st.lists(st.tuples(domains, st.sampled_from("nrwb")), min_size=1, max_size=3).map(tuple)
Call = tuple[str, str, Any]


def calls_on(paths: st.SearchStrategy[str]) -> st.SearchStrategy[list[Call]]:
    arguments = {"write": st.binary(max_size=2), "set_perms": permission_lists}
    names = ["read", "directory", "get_perms", "mkdir", "rm", "write", "set_perms"]
    each = [st.tuples(st.just(name), paths, arguments.get(name, st.none())) for name in names]
    return st.lists(st.one_of(*each), min_size=1, max_size=4)


calls = calls_on(paths)


class StoreMachine(RuleBasedStateMachine):
    transactions = Bundle("transactions")

    def __init__(self) -> None:
        super().__init__()
        self.slices = pytest.MonkeyPatch()
        self.slices.setattr(sweeps, "EDITS_PER_SLICE", 2)
        self.store = Store(QUOTAS)
        self.tree: Tree = {"/": Entry(b"", ((DOM0, "n"),))}
        self.commits: list[Marks] = []
        self.open: dict[tuple[DomId, int], OpenTransaction] = {}
        self.watches: dict[tuple[DomId, str, str, int], bool] = {}
        """By domain, path, token and connection: whether each is relative."""

    def teardown(self) -> None:
        self.slices.undo()

    @initialize()
    def create_guests(self) -> None:
        for guest in GUESTS:
            self.store.introduce(guest)
            self.give_home(guest)

    def give_home(self, guest: DomId) -> None:
        home = f"/local/domain/{guest}"
        self.check(DOM0, 0, ("mkdir", home, None))
        self.check(DOM0, 0, ("set_perms", home, ((guest, "n"),)))

    # ---- calls ---------------------------------------------------------------------------------------------------

    @rule(domid=domains, calls=calls)
    def call_outside(self, domid: DomId, calls: list[Call]) -> None:
        for call in calls:
            self.check(domid, 0, call)

    @rule(transaction=transactions, calls=calls)
    def call_inside(self, transaction: tuple[DomId, int], calls: list[Call]) -> None:
        for call in calls:
            self.check(*transaction, call)

    @rule(data=st.data(), few=st.lists(paths, min_size=1, max_size=2), domid=domains, other=domains)
    def race(self, data: st.DataObject, few: list[str], domid: DomId, other: DomId) -> None:
        """Two domains at work on the same few paths."""
        transaction = self.start(domid)
        self.call_inside(transaction, data.draw(calls_on(st.sampled_from(few))))
        self.call_outside(other, data.draw(calls_on(st.sampled_from(few))))
        self.end(transaction, commit=True)

    def check(self, domid: DomId, tx: int, call: Call) -> None:
        name, path, argument = call
        if name == "set_perms":
            argument = [f"{letter}{named}" for named, letter in argument]
        arguments = (path,) if argument is None else (path, argument)
        result = answer(lambda: getattr(self.store, name)(domid, tx, *arguments))
        if tx == 0:
            model = Model(dict(self.tree), lambda domid, more: owned(self.tree, domid) + more <= QUOTAS.nodes_max)
            assert result == model.call(domid, *call)
            self.committed(model)
        elif (domid, tx) in self.open:
            transaction = self.open[domid, tx]
            assert result == transaction.model.call(domid, *call)
            transaction.log.append((call, result))
        else:
            assert result == "ENOENT"
        if tx != 0:
            assert self.store.take_events() == []

    def committed(self, model: Model) -> None:
        """The model's tree is the tree from now on, and whoever watches has heard."""
        before, self.tree = self.tree, model.tree
        self.commits.append(model.changed)
        self.settle()
        heard = self.store.take_events()
        assert len(heard) == len(set(heard))
        assert set(heard) == {
            (domid, path[len(f"/local/domain/{domid}/") :] if relative else path, token, connection)
            for path, exactly in model.fired.items()
            for (domid, watched, token, connection), relative in self.watches.items()
            if (path == watched if exactly else is_below(path, watched))
            if self.may_hear(domid, path, before)
        }

    def settle(self) -> None:
        """As the broker does before it serves the same domain again."""
        while self.store.has_unsettled:
            self.store.settle()

    def may_hear(self, domid: DomId, path: str, before: Tree) -> bool:
        versions = [tree[path] for tree in (before, self.tree) if path in tree]
        if any("r" in rights(entry, domid) for entry in versions):
            return True
        listed_in = self.tree if path in self.tree else before
        return len(versions) == 1 and "r" in rights(listed_in[parent_of(path)], domid)

    # ---- transactions --------------------------------------------------------------------------------------------

    @rule(target=transactions, domid=domains, connection=connections)
    def start(self, domid: DomId, connection: int = 0) -> tuple[DomId, int]:
        tx = answer(lambda: self.store.transaction_start(domid, connection))
        if domid != DOM0 and sum(holder == domid for holder, _ in self.open) == QUOTAS.transactions_max:
            assert tx == "ENOSPC"
            return domid, 4711
        start, own = dict(self.tree), dict(self.tree)

        def has_room(domid: DomId, more: int) -> bool:
            growth = owned(own, domid) - owned(start, domid)
            return owned(self.tree, domid) + growth + more <= QUOTAS.nodes_max

        assert (domid, tx) not in self.open
        self.open[domid, tx] = OpenTransaction(start, Model(own, has_room), [], len(self.commits), connection)
        assert [self.store.holds_transaction(domid, each, tx) for each in CONNECTIONS].index(True) == (
            CONNECTIONS.index(connection)
        )
        return domid, tx

    @rule(transaction=consumes(transactions), commit=st.booleans())
    def end(self, transaction: tuple[DomId, int], commit: bool) -> None:
        domid, tx = transaction
        result = answer(lambda: self.store.transaction_end(domid, tx, commit))
        if transaction not in self.open:
            assert result == "ENOENT"
            return
        own = self.open.pop(transaction)
        growth = owned(own.model.tree, domid) - owned(own.start, domid)
        if not commit:
            assert result is None
        elif self.in_conflict(own):
            assert result == "EAGAIN"
        elif domid != DOM0 and growth > 0 and owned(self.tree, domid) + growth > QUOTAS.nodes_max:
            assert result == "ENOSPC"
        else:
            assert result is None
            self.replay(domid, own)
        assert self.store.take_events() == []

    def in_conflict(self, own: OpenTransaction) -> bool:
        changed = set().union(*self.commits[own.commits_before :])
        return any(
            path in own.start or path in self.tree  # else it was missing, and is missing again
            for _, path in changed & own.model.looked_at
        )

    def replay(self, domid: DomId, own: OpenTransaction) -> None:
        model = Model(dict(self.tree), lambda _domid, _more: True)
        for call, result in own.log:
            if result != "ENOSPC":
                assert model.call(domid, *call) == result, call
        self.committed(model)

    # ---- watches -------------------------------------------------------------------------------------------------

    @rule(domid=domains, path=paths, token=st.sampled_from("tu"), connection=connections)
    def watch(self, domid: DomId, path: str, token: str, connection: int) -> None:
        result = answer(lambda: self.store.watch(domid, path, token, connection))
        key = (domid, canonical(domid, path), token, connection)
        if "//" in path:
            assert result == "EINVAL"
        elif domid != DOM0 and sum(key[0] == domid for key in self.watches) == QUOTAS.watches_max:
            assert result == "E2BIG"
        elif key in self.watches:
            assert result == "EEXIST"
        else:
            assert result is None
            self.watches[key] = not path.startswith("/")
            assert self.store.take_events() == [(domid, path, token, connection)]
        assert self.store.take_events() == []

    @rule(domid=domains, path=paths, token=st.sampled_from("tu"), connection=connections)
    def unwatch(self, domid: DomId, path: str, token: str, connection: int) -> None:
        result = answer(lambda: self.store.unwatch(domid, path, token, connection))
        known = self.watches.pop((domid, canonical(domid, path), token, connection), None) is not None
        assert result == (None if known else "ENOENT")

    # ---- lives ---------------------------------------------------------------------------------------------------

    @rule(data=st.data())
    def rare(self, data: st.DataObject) -> None:
        """One rule for all of them, so that they do not outnumber the calls."""
        events = [self.snapshot_and_restore, self.close, self.forget_and_come_again, self.hang_up, self.lose_all]
        data.draw(st.sampled_from(events))(data.draw(domains))

    def snapshot_and_restore(self, _: DomId) -> None:
        self.store = pickle.loads(pickle.dumps(self.store))

    def close(self, domid: DomId) -> None:
        """Its process died; connections of the host's are no business of it."""
        self.store.close_domain(domid)
        self.disconnect(domid, {0, 2})

    def hang_up(self, domid: DomId) -> None:
        self.store.close_connection(domid, 2)
        self.disconnect(domid, {2})

    def lose_all(self, _: DomId) -> None:
        """A broker died: what came by hypercall it has handed on."""
        self.store.close_connections()
        for domid in (DOM0, *GUESTS):
            self.disconnect(domid, {2, -2})

    def disconnect(self, domid: DomId, gone: set[int]) -> None:
        self.open = {key: own for key, own in self.open.items() if key[0] != domid or own.connection not in gone}
        self.watches = {
            key: relative for key, relative in self.watches.items() if key[0] != domid or key[3] not in gone
        }

    def forget_and_come_again(self, guest: DomId) -> None:
        if guest == DOM0:
            return
        for domid, tx in self.open:
            self.store.transaction_end(domid, tx, False)
        self.open = {}
        self.disconnect(guest, set(CONNECTIONS))
        self.store.forget_domain(guest)
        model = Model(dict(self.tree), lambda _domid, _more: True)
        for path in sorted(self.tree):
            owner, others = self.tree[path].permissions[0]
            if owner == guest and path == "/":
                model.put("/", self.tree["/"]._replace(permissions=((DOM0, others), *self.tree["/"].permissions[1:])))
                model.fire("/", exactly=False)
            elif owner == guest and path in model.tree:
                model.remove(path)
        self.committed(model)
        for path, entry in self.tree.items():
            kept = (entry.permissions[0], *(named for named in entry.permissions[1:] if named[0] != guest))
            self.tree[path] = entry._replace(permissions=kept)
        self.store.introduce(guest)
        self.give_home(guest)

    # ---- always --------------------------------------------------------------------------------------------------

    @invariant()
    def the_trees_are_equal(self) -> None:
        found, waiting = {}, ["/"]
        while waiting:
            path = waiting.pop()
            permissions = self.store.get_perms(DOM0, 0, path)
            found[path] = Entry(
                self.store.read(DOM0, 0, path), tuple((DomId(int(text[1:])), text[0]) for text in permissions)
            )
            waiting += [f"{path.rstrip('/')}/{name}" for name in self.store.directory(DOM0, 0, path)]
        assert found == self.tree

    @invariant()
    def the_accounts_are_exact(self) -> None:
        statistics = self.store.statistics()
        assert statistics.nodes == len(self.tree)
        assert statistics.watches == len(self.watches)
        for domid, domain in statistics.domains.items():
            assert domain.nodes == owned(self.tree, domid)
            assert domain.transactions == sum(holder == domid for holder, _ in self.open)
            assert domain.events == 0
            if not domain.nodes and not domain.watches and not domain.transactions:
                assert domain.bytes == 0


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=150, stateful_step_count=30)
