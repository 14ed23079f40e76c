"""What each call does, as rows: who calls, in which transaction, what, and what comes of it."""

from typing import Any

import pytest

from hvd.broker.store import Store, StoreError
from hvd.transport.ids import DOM0, DomId

Row = tuple[int, str, str, Any]
"""The caller; a transaction's name or "-"; the call, as words; its result, None, or the name of an errno."""

HOME = "/local/domain/5"
OK = None

ROWS: dict[str, list[Row]] = {
    "a value is read as it was written": [
        (0, "-", "write /a/b value", OK),
        (0, "-", "read /a/b", b"value"),
        (0, "-", "read /a", b""),
        (0, "-", "write /a/b", OK),
        (0, "-", "read /a/b", b""),
        (0, "-", "write / root", OK),
        (0, "-", "read /", b"root"),
    ],
    "a relative path begins at the caller's home": [
        (5, "-", "write data/x 1", OK),
        (0, "-", "read /local/domain/5/data/x", b"1"),
        (7, "-", "read data/x", "ENOENT"),
        (0, "-", "write name dom0", OK),
        (0, "-", "read /local/domain/0/name", b"dom0"),
    ],
    "an invalid path is refused by every call": [
        (0, "-", f"{call} /a//b", "EINVAL") for call in ("read", "write", "mkdir", "rm", "directory", "get_perms")
    ]
    + [(0, "-", "set_perms /a/ n0", "EINVAL"), (0, "-", "read @releaseDomain", "EINVAL")],
    "children are listed in the order of their creation": [
        (0, "-", "write /d/z 1", OK),
        (0, "-", "mkdir /d/a", OK),
        (0, "-", "write /d/m/below 1", OK),
        (0, "-", "directory /d", ["z", "a", "m"]),
        (0, "-", "write /d/z 2", OK),
        (0, "-", "directory /d", ["z", "a", "m"]),
        (0, "-", "rm /d/z", OK),
        (0, "-", "write /d/z 3", OK),
        (0, "-", "directory /d", ["a", "m", "z"]),
        (0, "-", "directory /d/a", []),
        (0, "-", "directory /d/x", "ENOENT"),
    ],
    "making what exists changes nothing": [
        (0, "-", "write /a 1", OK),
        (0, "-", "set_perms /a r5", OK),
        (0, "-", "mkdir /a", OK),
        (0, "-", "read /a", b"1"),
        (0, "-", "get_perms /a", ["r5"]),
        (7, "-", "mkdir /a", "EACCES"),
    ],
    "removing takes all below along, and needs the parent only": [
        (0, "-", "write /a/b/c 1", OK),
        (0, "-", "rm /a/b", OK),
        (0, "-", "read /a/b/c", "ENOENT"),
        (0, "-", "rm /a/b", OK),
        (0, "-", "rm /a/b/c", "ENOENT"),
        (0, "-", "rm /", "EINVAL"),
        (5, "-", "rm /", "EACCES"),
    ],
    "a guest sees and changes nothing that is not its own": [
        (0, "-", "write /a/b 1", OK),
        (5, "-", "read /a/b", "EACCES"),
        (5, "-", "write /a/b 2", "EACCES"),
        (5, "-", "mkdir /a/c", "EACCES"),
        (5, "-", "rm /a/b", "EACCES"),
        (5, "-", "directory /", "EACCES"),
        (5, "-", "get_perms /a", "EACCES"),
        (5, "-", "set_perms /a n5", "EACCES"),
        (5, "-", "read /local/domain/7/x", "EACCES"),
        (7, "-", f"read {HOME}", "EACCES"),
    ],
    "only who may look learns that something does not exist": [
        (5, "-", "read missing/deep/down", "ENOENT"),
        (7, "-", f"read {HOME}/missing", "EACCES"),
        (5, "-", "set_perms . r5", "EINVAL"),
        (5, "-", f"set_perms {HOME} n5 r7", OK),
        (7, "-", f"read {HOME}/missing", "ENOENT"),
        (7, "-", f"write {HOME}/missing x", "EACCES"),
        (7, "-", f"rm {HOME}/missing", "EACCES"),
        (7, "-", f"set_perms {HOME}/missing n7", "EACCES"),
        (5, "-", f"set_perms {HOME} n5 w7", OK),
        (7, "-", f"set_perms {HOME}/missing n7", "ENOENT"),
        (5, "-", f"set_perms {HOME} n5", OK),
        (7, "-", f"set_perms {HOME}/missing n7", "EACCES"),
    ],
    "reading and writing are separate rights": [
        (5, "-", "write in 1", OK),
        (5, "-", "write out 1", OK),
        (5, "-", "set_perms in w5", OK),
        (5, "-", "set_perms out r5", OK),
        (7, "-", f"write {HOME}/in 2", OK),
        (7, "-", f"read {HOME}/in", "EACCES"),
        (7, "-", f"read {HOME}/out", b"1"),
        (7, "-", f"directory {HOME}/out", []),
        (7, "-", f"get_perms {HOME}/out", ["r5"]),
        (7, "-", f"write {HOME}/out 2", "EACCES"),
        (5, "-", "read in", b"2"),
    ],
    "a node may be open below one that is closed": [
        (0, "-", "write /closed/open 1", OK),
        (0, "-", "set_perms /closed/open n0 b5", OK),
        (5, "-", "read /closed/open", b"1"),
        (5, "-", "write /closed/open/mine 2", OK),
        (5, "-", "read /closed", "EACCES"),
        (5, "-", "get_perms /closed/open/mine", ["n5", "b5"]),
        (0, "-", "read /closed/open/mine", b"2"),
    ],
    "a guest owns what it creates, and dom0 creates for the parent's owner": [
        (5, "-", f"set_perms {HOME} n5 b7", OK),
        (7, "-", f"write {HOME}/x/y 1", OK),
        (0, "-", f"get_perms {HOME}/x", ["n7", "b7"]),
        (0, "-", f"get_perms {HOME}/x/y", ["n7", "b7"]),
        (5, "-", f"read {HOME}/x/y", "EACCES"),
        (5, "-", f"rm {HOME}/x", "EACCES"),
        (0, "-", f"write {HOME}/z 1", OK),
        (0, "-", f"get_perms {HOME}/z", ["n5", "b7"]),
    ],
    "removing asks for the right to write the node alone": [
        (0, "-", f"write {HOME}/x/secret 1", OK),
        (0, "-", f"set_perms {HOME}/x/secret n0", OK),
        (5, "-", "rm x/secret", "EACCES"),
        (5, "-", "rm x", OK),
        (0, "-", f"read {HOME}/x/secret", "ENOENT"),
    ],
    "permissions are the owner's and dom0's": [
        (5, "-", "write x 1", OK),
        (5, "-", "set_perms x n5 b7", OK),
        (7, "-", f"set_perms {HOME}/x n7", "EACCES"),
        (5, "-", "set_perms x n7", "EPERM"),
        (0, "-", f"set_perms {HOME}/x n7", OK),
        (5, "-", "read x", "EACCES"),
        (7, "-", f"write {HOME}/x 2", OK),
        (0, "-", f"set_perms {HOME}/x n99", "ENOENT"),
        (0, "-", f"set_perms {HOME}/x n7 r99", OK),
        (0, "-", f"get_perms {HOME}/x", ["n7", "r99"]),
        (0, "-", f"set_perms {HOME}/x n7", OK),
        (0, "-", f"set_perms {HOME}/x z0", "EINVAL"),
        (0, "-", f"set_perms {HOME}/x", "EINVAL"),
        (0, "-", f"get_perms {HOME}/x", ["n7"]),
    ],
    "an unknown transaction is refused by every call": [
        (5, "unknown", f"{call} x", "ENOENT") for call in ("read", "write", "mkdir", "rm", "directory", "get_perms")
    ]
    + [(5, "unknown", "set_perms x n5", "ENOENT"), (5, "unknown", "end", "ENOENT"), (5, "-", "end", "ENOENT")],
    "permissions hold inside a transaction too": [
        (5, "T", "start", OK),
        (5, "T", "write x 1", OK),
        (5, "T", "read /local/domain/7", "EACCES"),
        (5, "T", "write /a 1", "EACCES"),
        (5, "T", "set_perms x n7", "EPERM"),
        (5, "T", "get_perms x", ["n5"]),
        (5, "T", "end", OK),
        (5, "-", "read x", b"1"),
    ],
    "two transactions of one domain do not see each other": [
        (5, "T", "start", OK),
        (5, "U", "start", OK),
        (5, "T", "write x 1", OK),
        (5, "U", "read x", "ENOENT"),
        (5, "U", "write y 1", OK),
        (5, "T", "end", OK),
        (5, "U", "end", "EAGAIN"),
        (5, "-", f"directory {HOME}", ["x"]),
    ],
}


def run(store: Store, transactions: dict[str, int], caller: int, tx_name: str, words: str) -> Any:
    domid, tx = DomId(caller), transactions.get(tx_name, 0)
    match words.split(" "):
        case ["start"]:
            transactions[tx_name] = store.transaction_start(domid)
            return None
        case ["end"]:
            return store.transaction_end(domid, tx, True)
        case ["write", path, *value]:
            return store.write(domid, tx, path, " ".join(value).encode())
        case ["set_perms", path, *permissions]:
            return store.set_perms(domid, tx, path, permissions)
        case [call, path]:
            return getattr(store, call)(domid, tx, path)
    raise AssertionError(words)


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS.keys())
def test_rows(store: Store, rows: list[Row]) -> None:
    transactions = {"unknown": 4711}
    for row in rows:
        caller, tx_name, words, expected = row
        try:
            result = run(store, transactions, caller, tx_name, words)
        except StoreError as error:
            result = str(error).partition(":")[0]
        assert result == expected, row


def test_an_error_carries_an_errno_and_a_sentence(store: Store) -> None:
    with pytest.raises(StoreError) as refusal:
        store.read(DOM0, 0, "/missing")
    assert (refusal.value.errno, str(refusal.value)) == (2, "ENOENT: /missing does not exist")


def test_a_refused_call_changes_nothing(store: Store) -> None:
    store.write(DomId(5), 0, "x", b"1")
    before = store.statistics()
    for call in (
        lambda: store.write(DomId(5), 0, "/a/b", b""),
        lambda: store.write(DomId(5), 0, "y/z", b"v" * 5000),
        lambda: store.set_perms(DomId(5), 0, "x", ["n7"]),
        lambda: store.rm(DOM0, 0, "/missing/deep"),
        lambda: store.read(DomId(7), 0, "/local/domain/5/x"),
    ):
        with pytest.raises(StoreError):
            call()
    assert store.statistics() == before


def test_reading_outside_of_transactions_changes_nothing(store: Store) -> None:
    before = store.statistics()
    store.read(DOM0, 0, "/local")
    store.directory(DOM0, 0, "/local")
    store.get_perms(DOM0, 0, "/local")
    store.directory_part(DOM0, 0, "/local", 0)
    assert store.statistics() == before


# ---- DIRECTORY_PART ----------------------------------------------------------------------------------------------


def test_a_list_is_read_in_parts_of_whole_names_that_fit_one_message(store: Store) -> None:
    names = [f"node-{number:04}" for number in range(1000)]
    for name in names:
        store.mkdir(DOM0, 0, f"/many/{name}")
    listed, generations, ended = b"", set(), False
    while not ended:
        part = store.directory_part(DOM0, 0, "/many", len(listed))
        generation, _, rest = part.partition(b"\0")
        generations.add(generation)
        assert len(part) <= 4096
        ended = rest.endswith(b"\0\0")
        listed += rest[:-1] if ended else rest
    assert listed.decode().rstrip("\0").split("\0") == names
    assert len(generations) == 1


def test_a_list_that_ends_ends_with_an_empty_name(store: Store) -> None:
    store.mkdir(DOM0, 0, "/d/a")
    store.mkdir(DOM0, 0, "/d/b")
    generation = store.directory_part(DOM0, 0, "/d", 0).partition(b"\0")[0]
    assert generation.isdigit()
    assert store.directory_part(DOM0, 0, "/d", 0) == generation + b"\0a\0b\0\0"
    assert store.directory_part(DOM0, 0, "/d", 2) == generation + b"\0b\0\0"
    assert store.directory_part(DOM0, 0, "/d", 4) == store.directory_part(DOM0, 0, "/d", 400) == generation + b"\0\0"
    with pytest.raises(StoreError, match="EINVAL: "):
        store.directory_part(DOM0, 0, "/d", -1)


@pytest.mark.parametrize("change", ["mkdir /d/c", "rm /d/a"])
@pytest.mark.parametrize("tx_name", ["-", "T"])
def test_a_list_that_changed_has_another_generation(store: Store, change: str, tx_name: str) -> None:
    store.mkdir(DOM0, 0, "/d/a")
    before = store.directory_part(DOM0, 0, "/d", 0).partition(b"\0")[0]
    store.write(DOM0, 0, "/d", b"value")
    store.write(DOM0, 0, "/d/a/b", b"below")
    assert store.directory_part(DOM0, 0, "/d", 0).partition(b"\0")[0] == before
    transactions: dict[str, int] = {}
    if tx_name == "T":
        run(store, transactions, 0, "T", "start")
        store.mkdir(DOM0, 0, "/d/e")
    changed = {before, store.directory_part(DOM0, 0, "/d", 0).partition(b"\0")[0]}
    run(store, transactions, 0, tx_name, change)
    if tx_name == "T":
        run(store, transactions, 0, "T", "end")
    after = store.directory_part(DOM0, 0, "/d", 0).partition(b"\0")[0]
    assert after not in changed
    store.mkdir(DOM0, 0, "/d/f")
    assert store.directory_part(DOM0, 0, "/d", 0).partition(b"\0")[0] not in {*changed, after}
