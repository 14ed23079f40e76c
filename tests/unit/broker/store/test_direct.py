"""The short way against the long one: whatever is asked of two stores, nobody can tell which of them has it."""

from __future__ import annotations

from dataclasses import replace as replaced
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvd.broker.store import Quotas, Store, StoreError, direct
from hvd.broker.store.children import CHUNK_MAX
from hvd.broker.store.direct import PLAIN_MAX
from hvd.broker.store.mandatory import STORE_WRITE
from hvd.broker.store.paths import join
from hvd.broker.store.permissions import DOM0_ONLY
from hvd.broker.store.tree import HEADER_BYTES, PERMISSION_BYTES, Node, leaf, lookup, replace, subtree, with_content
from hvd.transport import xs_wire
from hvd.transport._native import answer_plain, rewritten, way_to
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


# ---- by the wire -----------------------------------------------------------------------------------------------------

WIRE_PATHS = [b"/a"] * 3 + [b"/a/b"] * 3 + [
    b"/full/of", b"/", b"/wide/7", b"/long", b"/none", b"/a/", b"//a", b"", b"x", b"/a/\xff", b"/" + b"n" * 200,
    b"/" + b"m" * 126, b"/" + b"m" * 127, b"@releaseDomain", b"/a b", b"/watched", b"/watched/below", b"/full/of/it",
]  # fmt: skip
ENDS = [b"\0", b"\0", b"", b"\0/b\0", b"\0v", b"\0other", b"\0a longer value\0", b"\0" * 99]
PAYLOADS = st.tuples(st.sampled_from(WIRE_PATHS), st.sampled_from(ENDS)).map(b"".join)
WIRE = st.one_of(
    st.builds(
        xs_wire.pack, st.sampled_from([Type.READ, Type.WRITE, Type.WRITE, Type.DIRECTORY, 2 + 256, 11 + 256]),
        st.integers(0, 2**32 - 1), st.sampled_from([0, 0, 0, 0, 1]), PAYLOADS,
    ),
    st.binary(max_size=20),
)  # fmt: skip


def asked_by_wire() -> Store:
    store = Store(privileged=Quotas(memory_bytes_max=2**20, node_bytes_max=2**16))
    for path in ("/a/b", "/watched/below", "/full/of/it", "/" + "n" * 200, "/" + "m" * 126, "/" + "m" * 127):
        store.write(DOM0, 0, path, b"value")
    store.write(DOM0, 0, "/long", b"x" * (xs_wire.PAYLOAD_MAX + 1))
    for number in range(CHUNK_MAX + 1):
        store.write(DOM0, 0, f"/wide/{number}", b"")
    store.introduce(FIVE)
    store.set_perms(DOM0, 0, "/a/b", ["n5"])
    store.watch(DOM0, "/watched", "token")
    store.take_events()
    return store


@given(messages=st.lists(WIRE, max_size=6), cut=st.integers(0, 30), at=st.integers(0, 20), room=st.integers(0, 30))
def test_requests_by_the_wire_are_answered_as_one_by_one_until_something_else_comes(
    messages: list[bytes], cut: int, at: int, room: int
) -> None:
    stream = b"".join(messages)
    stream = stream[: len(stream) - cut] if cut < len(stream) else stream
    together, singly = asked_by_wire(), asked_by_wire()
    for store in (together, singly):
        engine = store._engine
        most = max(engine.memory_of(DOM0), engine.memory_of(FIVE)) + room
        engine.privileged = replaced(engine.privileged, memory_bytes_max=most)
    replies, end, wrote = together.answer_plain(stream, at)
    expected, written = b"", 0
    while at < end:
        found = xs_wire.split(stream, at)
        assert found is not None and not found[0].tx_id
        message, at = found
        path, nul, value = message.payload.partition(b"\0")
        answer = b"OK\0"
        if message.type == Type.WRITE:
            singly.write(DOM0, 0, path.decode(), value)
            written += 1
        else:
            assert message.type == Type.READ and nul and not value
            answer = singly.read(DOM0, 0, path.decode())
        expected += xs_wire.pack(message.type, message.req_id, 0, answer)
    assert (replies, wrote) == (expected, written > 0)
    assert together._engine.root == singly._engine.root and not together.has_events and not singly.has_events
    assert together.statistics() == singly.statistics() and not together.check()


def test_so_many_plain_requests_are_answered_together() -> None:
    store = asked_by_wire()
    for message, reply in (
        (xs_wire.pack(Type.READ, 7, 0, b"/a/b\0"), xs_wire.pack(Type.READ, 7, 0, b"value")),
        (xs_wire.pack(Type.WRITE, 7, 0, b"/long\0v"), xs_wire.pack(Type.WRITE, 7, 0, b"OK\0")),
    ):
        stream = message * (PLAIN_MAX + 3)
        replies, end, _ = store.answer_plain(stream, 0)
        assert replies == reply * (end // len(message)) and PLAIN_MAX - 8 <= end // len(message) <= PLAIN_MAX
        assert store.answer_plain(stream, len(stream)) == (b"", len(stream), False)
        assert store.answer_plain(stream, len(stream) + 9) == (b"", len(stream) + 9, False)


def test_what_is_written_together_copies_so_many_names_and_no_more() -> None:
    store, path = Store(), ""
    for name in "abcdefgh":
        path += f"/{name}"
        for number in range(CHUNK_MAX - 1):
            store.write(DOM0, 0, f"{path}{number}", b"")
        store.write(DOM0, 0, path, b"")
    message = xs_wire.pack(Type.WRITE, 7, 0, f"{path}\0v".encode())
    _, end, _ = store.answer_plain(message * PLAIN_MAX, 0)
    assert end // len(message) == 4, "each copies eight directories of 256"


@pytest.mark.parametrize("watched", ["/", "/a", "/a/b"])
def test_a_write_that_somebody_watches_is_not_plain(watched: str) -> None:
    store = asked_by_wire()
    message = xs_wire.pack(Type.WRITE, 7, 0, b"/a/b\0value")
    assert store.answer_plain(message, 0)[1:] == (len(message), True)
    store.watch(FIVE, watched, "token", 9)
    assert store.answer_plain(message, 0)[1:] == (0, False)
    read = xs_wire.pack(Type.READ, 7, 0, b"/a/b\0")
    assert store.answer_plain(read, 0)[1:] == (len(read), False), "to read it is"
    store.unwatch(FIVE, watched, "token", 9)
    assert store.answer_plain(message, 0)[1:] == (len(message), True)


def wrote_plainly(store: Store, path: str, value: bytes) -> bool:
    return store.answer_plain(xs_wire.pack(Type.WRITE, 7, 0, path.encode() + b"\0" + value), 0)[2]


def test_a_node_that_would_be_too_large_is_not_written_plainly() -> None:
    store = asked_by_wire()
    engine = store._engine
    engine.privileged = replaced(engine.privileged, node_bytes_max=1000)
    room = 1000 - HEADER_BYTES - PERMISSION_BYTES - len("b\0")
    assert wrote_plainly(store, "/a", b"x" * room) and not wrote_plainly(store, "/a", b"x" * (room + 1))


def test_an_owner_is_charged_for_a_larger_value_up_to_what_it_may_hold_and_not_for_a_smaller_one_any_more() -> None:
    store = asked_by_wire()
    engine, before = store._engine, store.usage(FIVE).bytes
    engine.privileged = replaced(engine.privileged, memory_bytes_max=before + 10)
    assert not wrote_plainly(store, "/a/b", b"value" + b"x" * 11) and wrote_plainly(store, "/a/b", b"value" + b"x" * 10)
    assert store.usage(FIVE).bytes == before + 10
    assert wrote_plainly(store, "/a/b", b"") and store.usage(FIVE).bytes == before - 5
    assert wrote_plainly(store, "/a/b", b"other") and not store.check()


def test_what_is_no_tree_is_not_answered_from() -> None:
    for kind, payload in ((Type.READ, b"/a\0"), (Type.WRITE, b"/a\0v")):
        stream = xs_wire.pack(kind, 7, 0, payload)
        garbage: tuple[object, ...]
        for garbage in ((1, 2), (b"", (), {"a": 5}, 1, 1, 1), (b"", (), {"a": (5, (), {}, 1, 1, 1)}, 1, 1, 1)):
            with pytest.raises(LocalError):
                answer_plain(garbage, stream, 0, 1, {}, lambda *_: True, 999, 9)
    with pytest.raises(LocalError):
        answer_plain((b"", (), {"a": (b"v", 5, {}, 1, 1, 1)}, 1, 1, 1), stream, 0, 1, {}, lambda *_: True, 999, 9)
    with pytest.raises(LocalError):
        answer_plain((b"", (), {}, 1, 1, 1), stream, 0, 1, [], lambda *_: True, 999, 9)  # type: ignore[arg-type]
    tree: tuple[object, ...] = (b"", (), {"a": (b"v", (), {}, 1, 1, 1)}, 1, 1, 1)
    with pytest.raises(LocalError):
        answer_plain(tree, stream, 0, 1, {"a": 5}, lambda *_: True, 999, 9)
    with pytest.raises(TypeError):
        answer_plain((b"", (), {}, 1, 1, 1), stream, -1, 1, {}, lambda *_: True, 999, 9)


def test_a_value_of_an_owner_who_is_gone_goes_the_long_way():
    engine = made(None)._engine
    node = lookup(engine.root, "/local/domain/5/x")
    assert node is not None
    permissions = node.permissions
    assert engine.grow(permissions, 1)
    nobodys = permissions[0]._replace(who=permissions[0].who._replace(domid=DomId(9)))
    assert not engine.grow((nobodys,), 1)
