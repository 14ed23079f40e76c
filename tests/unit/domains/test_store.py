"""A store client that asks for much at once: few hypercalls, and what a peer wrote is no reason to fail."""

import errno
from typing import Any

import pytest

from hvd.domains.store import StoreClient
from hvd.transport import messages as m
from hvd.transport.codec import unpack_call
from hvd.transport.hypercalls import HypercallError
from hvd.transport.multicall import MULTICALL_MAX


class Broker:
    """Answers each call by a table, and counts hypercalls."""

    def __init__(self, answers=None):
        self.answers = answers or {}
        self.at_once = MULTICALL_MAX
        self.hypercalls = []

    def call(self, message):
        self.hypercalls.append(message)
        if isinstance(message, m.Multicall):
            return [[*self._answer(unpack_call(entry)), 0] for entry in message.calls[: self.at_once]]
        code, value = self._answer(message)
        if code:
            raise HypercallError(code, value, type(message).__name__)
        return value

    def _answer(self, call):
        return self.answers.get((type(call), call.path), [0, None if isinstance(call, m.StoreWatch) else {}])


def test_directories_are_read_64_in_a_hypercall_and_one_that_is_not_there_is_empty():
    broker = Broker({(m.StoreDirectory, f"d{n}"): [0, [str(n)]] for n in range(100)})
    found = StoreClient(broker.call).read_directories([f"d{n}" for n in range(99)])
    assert (found, len(broker.hypercalls)) == ([[str(n)] for n in range(99)], -(-99 // MULTICALL_MAX))
    assert StoreClient(Broker({(m.StoreDirectory, "no"): [errno.ENOENT, "none"]}).call).read_directories(["no"]) == [[]]


def test_a_directory_of_more_names_than_a_list_has_is_not_taken_for_empty():
    broker = Broker({(m.StoreDirectory, "many"): [errno.E2BIG, "too many"], (m.StoreDirectory, "few"): [0, ["1"]]})
    with pytest.raises(HypercallError, match="too many"):
        StoreClient(broker.call).read_directories(["few", "many"])


def test_what_is_followed_is_watched_first_then_read_in_one_hypercall():
    broker = Broker({(m.StoreReadAll, "b"): [0, {"state": b"2"}], (m.StoreReadAll, "c"): [errno.ENOENT, "none"]})
    client = StoreClient(broker.call)
    heard: list[Any] = []
    tokens, keys, others = client.follow([("a/state", heard.append)], ["b", "c"], [m.StoreUnwatch("d", "token")])
    assert (keys, [answered.errno for answered in others]) == ([{"state": "2"}, {}], [0])
    (multicall,) = broker.hypercalls
    kinds = [m.StoreWatch, m.StoreReadAll, m.StoreReadAll, m.StoreUnwatch]
    assert [type(unpack_call(entry)) for entry in multicall.calls] == kinds
    assert isinstance(tokens[0], str)
    client.deliver("a/state", tokens[0], {"state": b"4"})
    client.deliver("a/state", tokens[0])
    assert heard == [{"state": "4"}, None]


def test_a_watch_that_is_refused_is_said_and_the_others_stand():
    broker = Broker({(m.StoreWatch, "b"): [errno.E2BIG, "too many"]})
    client = StoreClient(broker.call)
    heard: list[Any] = []
    first, second = client.follow([("a", heard.append), ("b", heard.append)], []).tokens
    assert isinstance(first, str)
    assert isinstance(second, HypercallError)
    assert second.errno == errno.E2BIG
    client.deliver("", "")
    assert heard == [None]


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_what_a_preempted_hypercall_left_is_asked_for_anew(at_once):
    broker = Broker({(m.StoreReadAll, f"a{n}"): [0, {"n": b"%d" % n}] for n in range(5)})
    broker.at_once = at_once
    assert StoreClient(broker.call).read_all_of([f"a{n}" for n in range(5)]) == [{"n": str(n)} for n in range(5)]
    assert len(broker.hypercalls) == -(-5 // at_once)


@pytest.mark.parametrize("at_once", [2, 64])
def test_of_several_directories_each_is_told_what_came_of_it(at_once):
    broker = Broker({(m.StoreWrite, "b/x"): [errno.EACCES, "no"], (m.StoreWrite, "c/x"): [errno.ENOSPC, "full"]})
    broker.at_once = at_once
    entries = [(path, dict.fromkeys(("x", "y", "z"), 1)) for path in "abcd"]
    said = StoreClient(broker.call).write_several([*entries, ("e", {})])
    assert [error and error.errno for error in said] == [None, errno.EACCES, errno.ENOSPC, None, None]


def test_who_follows_a_node_has_its_path_for_a_token_unless_another_watch_has_it():
    client = StoreClient(Broker().call)
    tokens = [client.follow([("/a/state", print)], []).tokens[0] for _ in range(2)]
    assert tokens[0] == "/a/state"
    assert tokens[1] not in ("/a/state", "")


def test_a_watch_may_bring_keys_and_one_that_does_not_is_told_of_the_path():
    broker = Broker()
    client = StoreClient(broker.call)
    heard: list[Any] = []
    with_keys, plain = client.watch_keys("a/state", heard.append), client.watch("b", heard.append)
    assert [call.keys for call in broker.hypercalls] == [True, False]
    client.deliver("a/state", with_keys, {"state": b"1"})
    client.deliver("b/c", plain)
    client.deliver("", "")
    assert heard == [{"state": "1"}, "b/c", None, "b"]


@pytest.mark.parametrize("lost", [False, True])
def test_what_an_event_brought_before_an_earlier_one_was_read_about_is_not_taken_for_newer(lost):
    """Whoever is told alone reads what there is by then; what was sent meanwhile is older, and would be a way back."""
    client = StoreClient(Broker().call)
    heard: list[Any] = []
    token = client.watch_keys("a/state", heard.append)
    client.deliver(*(("", "") if lost else ("a/state", token)))
    client.deliver("a/state", token, {"state": b"1"})
    client.delivered()
    assert heard == [None, None]
    client.deliver("a/state", token, {"state": b"2"})
    client.delivered()
    assert heard == [None, None, None], "it may have been sent before the first was read about"
    client.delivered()
    client.deliver("a/state", token, {"state": b"3"})
    assert heard[3:] == [{"state": "3"}]
