"""What a transaction has touched, by path and by name."""

import copy
import pickle

import pytest

from hvd.broker.store.changes import Fires
from hvd.broker.store.record import KEPT_IN_BYTES, Depends, Record


def test_paths_stand_in_the_order_in_which_they_were_touched_and_ways_to_them_do_not() -> None:
    record = Record()
    for path in ("/a/b", "/", "/a", "/a/b"):
        record.touch(path, Depends.ON_CONTENT)
    assert list(record.by_path) == ["/a/b", "/", "/a"] and len(record) == 3
    assert record.bytes == 3 * (24 + KEPT_IN_BYTES) + len("/a/b" + "/" + "/a")
    assert record.root is record.by_path["/"] and record.root.below == {"a": record.by_path["/a"]}


def test_what_was_touched_with_one_above_it_is_not_named() -> None:
    record = Record()
    record.touch("/a/b", Depends.ON_LIST, by_name=False)
    record.touch("/a", Depends.ON_CONTENT)
    record.touch("/a/b", Depends.ON_CONTENT)
    assert (len(record), record.named) == (2, 1)
    again = pickle.loads(pickle.dumps(record))
    assert (len(again), again.named) == (2, 1)


def test_a_dependency_grows_and_never_shrinks() -> None:
    record = Record()
    record.touch("/a/b", Depends.ON_LIST)
    record.touch("/a/b", Depends.ON_CONTENT)
    assert record.by_path["/a/b"].depends is Depends.ON_LIST
    assert record.root.below is not None and record.root.below["a"].depends is Depends.ON_EXISTENCE


@pytest.mark.parametrize("copied", [lambda each: pickle.loads(pickle.dumps(each)), copy.deepcopy])
def test_a_copy_has_the_same_in_the_same_order_however_deep(copied) -> None:
    record = Record()
    for path in ("/a/b", "/a", "/x" * 1500, "/c"):
        record.touch(path, Depends.ON_CONTENT)
    record.by_path["/a"].changed, record.by_path["/a"].fires = True, Fires.ON_IT
    record.by_path["/c"].made = True
    again = copied(record)
    assert again.rows() == record.rows() and again.bytes == record.bytes
    assert again.root.below is not None and list(again.root.below) == ["a", "x", "c"]
    assert list(again.changed()) == [("/a", Fires.ON_IT)] and again.by_path["/c"].made
    assert copied(Record()).rows() == (0, [])


def test_a_snapshot_has_it_as_it_was_when_it_asked_whatever_has_been_touched_since() -> None:
    record = Record()
    record.touch("/a", Depends.ON_CONTENT)
    before = record.rows()
    record.ask_for()
    record.touch("/a", Depends.ON_LIST)
    record.by_path["/a"].changed = True
    record.touch("/b", Depends.ON_CONTENT)
    assert record.is_asked_for and record.asked_for() == before
    assert not record.is_asked_for and record.rows() != before
    record.ask_for()
    record.ask_for()
    assert record.asked_for() == record.rows()
