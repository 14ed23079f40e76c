"""The short way against the long one: whatever is asked of two stores, nobody can tell which of them has it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvd.broker.store import Quotas, Store, StoreError, direct
from hvd.broker.store.children import CHUNK_MAX
from hvd.broker.store.direct import READS_MAX
from hvd.broker.store.mandatory import STORE_WRITE
from hvd.broker.store.paths import join
from hvd.broker.store.permissions import DOM0_ONLY
from hvd.broker.store.tree import Node, leaf, lookup, replace, subtree, with_content
from hvd.transport import xs_wire
from hvd.transport._native import read_all, rewritten, way_to
from hvd.transport.errors import LocalError
from hvd.transport.ids import DOM0, DomId
from hvd.transport.xs_wire import Type

FIVE, SEVEN = DomId(5), DomId(7)
PATHS = ["/", "/a", "/a/b", "x", "x/y", "shared", "open", "seen", "/bad//", "@releaseDomain"]
PATHS += [f"/local/domain/5/{name}" for name in ("x", "shared", "open", "seen")]
LISTS = [["n5"], ["n5", "r7"], ["n5", "b7"], ["r0"], ["b5"], ["n7", "r5"], ["w0"]]
VALUES = [b"", b"v", b"a longer value", b"x" * 150, b"x" * 250]
WHO = st.sampled_from([DOM0, FIVE, SEVEN, DomId(9)])
CALLS = st.one_of(
    st.tuples(st.just("write"), WHO, st.just(0), st.sampled_from(PATHS), st.sampled_from(VALUES)),
    st.tuples(st.just("read"), WHO, st.just(0), st.sampled_from(PATHS)),
    st.tuples(st.just("set_perms"), WHO, st.just(0), st.sampled_from(PATHS), st.sampled_from(LISTS)),
    st.tuples(st.just("rm"), WHO, st.just(0), st.sampled_from(PATHS)),
    st.tuples(st.just("watch"), WHO, st.sampled_from(PATHS), st.just("token")),
    st.tuples(st.just("transaction_start"), WHO),
    st.tuples(st.just("write"), WHO, st.just(1), st.sampled_from(PATHS), st.sampled_from(VALUES)),
    st.tuples(st.just("transaction_end"), WHO, st.just(1), st.booleans()),
)


class Policy:
    """Domain 7 may write what is domain 5's and not read it, 5 may hear nothing of 7. It counts its noes."""

    def __init__(self) -> None:
        self.denials = 0

    def permits(self, source: DomId, target: DomId, wanted: int) -> bool:
        return (source, target) != (FIVE, SEVEN) and ((source, target) != (SEVEN, FIVE) or wanted == STORE_WRITE)

    def allows(self, source: DomId, target: DomId, wanted: int) -> bool:
        return self.permits(source, target, wanted) or self._no()

    def allows_all_who_may(self, source: DomId, wanted: int, target: DomId, able: int) -> bool:
        return source == DOM0 or self._no()

    def _no(self) -> bool:
        self.denials += 1
        return False


def made(policy: Policy | None) -> Store:
    store = Store(Quotas(nodes_max=8, node_bytes_max=240, memory_bytes_max=520, transactions_max=2), policy=policy)
    for guest in (FIVE, SEVEN):
        store.introduce(guest)
        store.mkdir(DOM0, 0, f"/local/domain/{guest}")
        store.set_perms(DOM0, 0, f"/local/domain/{guest}", [f"n{guest}"])
    for name, permissions in (("x", ["n5"]), ("shared", ["n5", "b7"]), ("open", ["b5"]), ("seen", ["n5", "r7"])):
        store.write(FIVE, 0, name, b"first")
        store.set_perms(FIVE, 0, name, permissions)
    for who, path in ((DOM0, "/"), (FIVE, "x"), (SEVEN, "/local/domain/5")):
        store.watch(who, path, "from the beginning")
    store.take_events()
    return store


def outcome(store: Store, call: tuple[Any, ...]) -> Any:
    try:
        return getattr(store, call[0])(*call[1:])
    except StoreError as error:
        return str(error)
    finally:
        store.settle()


@pytest.mark.parametrize("with_policy", [False, True])
@settings(max_examples=150)
@given(calls=st.lists(CALLS, min_size=5, max_size=30))
def test_both_ways_answer_alike_and_leave_the_same_store(with_policy: bool, calls: list[tuple[Any, ...]]) -> None:
    policies = (Policy(), Policy()) if with_policy else (None, None)
    short, long = made(policies[0]), made(policies[1])
    for call in calls:
        expected = _by_the_long_way(long, call)
        assert outcome(short, call) == expected, call
        assert short.take_events() == long.take_events()
        assert short.statistics() == long.statistics()
    assert not short.check()
    assert tree_of(short) == tree_of(long)
    if policies[0] is not None and policies[1] is not None:
        assert policies[0].denials == policies[1].denials, "what is audited is the same as well"


@pytest.mark.parametrize("who", [FIVE, DOM0])
@pytest.mark.parametrize("path", PATHS)
def test_whatever_value_follows_another_is_answered_alike(path: str, who: DomId) -> None:
    for first in VALUES:
        for second in VALUES:
            short, long = made(Policy()), made(Policy())
            for call in (("write", who, 0, path, first), ("write", FIVE, 0, "seen", second),
                         ("write", who, 0, path, second), ("read", who, 0, path)):  # fmt: skip
                expected = _by_the_long_way(long, call)
                assert outcome(short, call) == expected, (first, call)
            assert (short.statistics(), short.take_events()) == (long.statistics(), long.take_events())


def _by_the_long_way(store: Store, call: tuple[Any, ...]) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(direct, "read", lambda *_: None)
        patch.setattr(direct, "write", lambda *_: False)
        return outcome(store, call)


def tree_of(store: Store, path: str = "/") -> list[Any]:
    found: list[Any] = [(path, store.read(DOM0, 0, path), store.directory_part(DOM0, 0, path, 0))]
    for name in store.directory(DOM0, 0, path):
        found += tree_of(store, f"{path.rstrip('/')}/{name}")
    return found


NAMES = st.lists(st.sampled_from(["a", "b", "7", "299", "far"]), max_size=4)


@given(made=st.lists(NAMES, max_size=8), asked=NAMES, wide=st.lists(NAMES, max_size=2))
def test_the_native_way_and_rewriting_are_those_of_the_tree(
    made: list[list[str]], asked: list[str], wide: list[list[str]]
) -> None:
    root = leaf(b"", DOM0_ONLY, 1)
    for names in (*made, *([*names, str(each)] for names in wide for each in range(CHUNK_MAX + 50))):
        for depth in range(1, len(names) + 1):
            if lookup(root, join(names[:depth])) is None:
                root = replace(root, join(names[:depth]), leaf(b"v", DOM0_ONLY, 2), 3)
    path, node = join(asked), lookup(root, join(asked))
    way = way_to(root, path)
    assert (way is None) == (node is None)
    if way is not None and node is not None:
        assert [id(each) for each in way] == [id(lookup(root, join(asked[:depth]))) for depth in range(len(asked) + 1)]
        changed, after = rewritten(way, path, b"new", 9)
        expected = replace(root, path, with_content(node, b"new", node.permissions, 9), 9)
        assert changed == expected and type(changed) is Node and lookup(changed, path) is after
        assert dict(subtree("/", changed)).keys() == dict(subtree("/", root)).keys()


@pytest.mark.parametrize(
    "call",
    [
        lambda root: way_to((1, 2), "/a"), lambda root: rewritten([], "/", b"", 1),
        lambda root: rewritten([root, root], "/a/b", b"", 1), lambda root: rewritten([(), root], "/a", b"", 1),
        lambda root: rewritten([root, 5], "/a", b"", 1),
    ],
)  # fmt: skip
def test_what_is_no_node_and_no_way_is_refused(call: Any) -> None:
    with pytest.raises(LocalError):
        call(leaf(b"", DOM0_ONLY, 1))


def test_it_is_the_way_of_dom0_and_of_an_owner_whom_nobody_else_writes_to() -> None:
    engine = made(Policy())._engine
    assert direct.read(engine, DOM0, "/local/domain/5/x") is not None
    assert direct.write(engine, FIVE, "x", b"mine")
    assert direct.read(engine, SEVEN, "/local/domain/5/x") is None
    assert not direct.write(engine, FIVE, "new", b"")


# ---- reads by the wire -----------------------------------------------------------------------------------------------

WIRE = st.one_of(
    st.builds(
        xs_wire.pack,
        st.sampled_from([Type.READ, Type.READ, Type.READ, Type.WRITE, 2 + 256]),
        st.integers(0, 2**32 - 1),
        st.sampled_from([0, 0, 0, 1]),
        st.sampled_from(
            [b"/a\0", b"/a/b\0", b"/\0", b"/wide/7\0", b"/long\0", b"/none\0", b"/a/\0", b"//a\0", b"/a", b"/a\0/b\0",
             b"", b"\0", b"x\0", b"/a/\xff\0", b"/" + b"n" * 200 + b"\0", b"@releaseDomain\0", b"/a b\0"]
        ),
    ),
    st.binary(max_size=20),
)  # fmt: skip


@pytest.fixture(scope="module")
def read_from() -> Store:
    store = Store()
    store.write(DOM0, 0, "/a/b", b"value")
    store.write(DOM0, 0, "/long", b"x" * (xs_wire.PAYLOAD_MAX + 1))
    store.write(DOM0, 0, "/" + "n" * 200, b"behind a long path")
    for number in range(CHUNK_MAX + 1):
        store.write(DOM0, 0, f"/wide/{number}", b"")
    return store


@given(messages=st.lists(WIRE, max_size=6), cut=st.integers(0, 30), at=st.integers(0, 20))
def test_reads_by_the_wire_are_answered_as_one_by_one_until_something_else_comes(
    read_from: Store, messages: list[bytes], cut: int, at: int
) -> None:
    stream = b"".join(messages)
    stream = stream[: len(stream) - cut] if cut < len(stream) else stream
    replies, end = read_from.read_all(stream, at)
    expected = b""
    while at < end:
        found = xs_wire.split(stream, at)
        assert found is not None and found[0].type == Type.READ and not found[0].tx_id
        value = read_from.read(DOM0, 0, found[0].payload[:-1].decode())
        expected += xs_wire.pack(Type.READ, found[0].req_id, 0, value)
        at = found[1]
    assert replies == expected


def test_so_many_reads_of_plain_paths_are_answered_together(read_from: Store) -> None:
    stream = xs_wire.pack(Type.READ, 7, 0, b"/a/b\0") * (READS_MAX + 3)
    replies, end = read_from.read_all(stream, 0)
    assert replies == xs_wire.pack(Type.READ, 7, 0, b"value") * READS_MAX
    assert end == len(stream) // (READS_MAX + 3) * READS_MAX
    write = xs_wire.pack(Type.WRITE, 1, 0, b"/a\0v")
    assert read_from.read_all(write + stream, 0) == (b"", 0)
    assert read_from.read_all(stream, len(stream)) == (b"", len(stream))
    assert read_from.read_all(stream, len(stream) + 9) == (b"", len(stream) + 9)


def test_what_is_no_tree_is_not_read() -> None:
    stream = xs_wire.pack(Type.READ, 7, 0, b"/a\0")
    for garbage in ((1, 2), (b"", (), {"a": 5}, 1, 1, 1)):
        with pytest.raises(LocalError):
            read_all(garbage, stream, 0, 9)
    with pytest.raises(TypeError):
        read_all((1, 2), stream, -1, 9)
