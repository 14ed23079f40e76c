"""What is counted of a machine's descriptors: what it would keep for ever, not how many of the living it watches."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from hvd.toolstack.cluster.errors import NotReached
from hvd.toolstack.faults import conservation
from hvd.toolstack.faults.conservation import AGREEING, TABLES, Census, census, settled


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "1000"]) as made:
        yield made
        made.kill()


def census_of_us() -> Census:
    """Ours, as of a machine whose tables are empty."""
    info: dict[str, Any] = dict.fromkeys(TABLES, 0) | {"made_ahead": True}
    cluster: Any = SimpleNamespace(
        info=lambda: info, quotas=list, infos=dict, connection=SimpleNamespace(machine_pid=os.getpid())
    )
    return census(cluster)


def descriptors() -> int:
    counts = census_of_us().counts
    return sum(number for name, number in counts.items() if name.startswith("descriptors of the machine: "))


def test_how_many_threads_of_the_living_are_watched_is_not_counted_and_a_watch_on_the_dead_is(
    child: subprocess.Popen[bytes],
) -> None:
    """A thread that was not there yet when its process was ready is not watched: that is a matter of time."""
    before = descriptors()
    watches = [os.pidfd_open(child.pid) for _ in range(3)]
    try:
        assert descriptors() == before
        child.kill()
        child.wait()
        assert descriptors() == before + len(watches)
    finally:
        for watch in watches:
            os.close(watch)


def test_an_account_of_the_living_is_not_counted_and_one_of_the_dead_is(child: subprocess.Popen[bytes]) -> None:
    before = descriptors()
    with open(f"/proc/{child.pid}/stat", "rb"):
        assert descriptors() == before
        child.kill()
        child.wait()
        assert descriptors() == before + 1


def test_what_else_is_held_is_counted() -> None:
    before = descriptors()
    with open(os.devnull) as one, open(os.devnull) as other:
        assert one.fileno() != other.fileno() and descriptors() == before + 2


class Looks:
    """What is counted, look by look; the last for ever."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *counts: dict[str, int]) -> None:
        self.left, self.taken = list(counts), 0
        monkeypatch.setattr(conservation, "census", self.look)
        monkeypatch.setattr(conservation, "BETWEEN_LOOKS_S", 0)

    def look(self, cluster: Any) -> Census:
        self.taken += 1
        return Census({"made ahead": 1} | (self.left.pop(0) if len(self.left) > 1 else self.left[0]))


def test_a_cluster_is_at_rest_when_looks_agree_and_nothing_is_made_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = Looks(monkeypatch, {"ports": 2}, *[{"ports": 3, "made ahead": 0}] * 9, {"ports": 3})
    rest: Any = None
    assert settled(rest).counts == {"made ahead": 1, "ports": 3}
    assert looks.taken == 1 + 9 + 1 + AGREEING


def test_one_that_does_not_come_to_rest_says_what_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    Looks(monkeypatch, *[{"ports": number} for number in range(conservation.LOOKS + 1)])
    rest: Any = None
    with pytest.raises(NotReached, match=r"not come to rest in 400 looks at it; what last changed: ports 399 -> 400"):
        settled(rest)


def test_counts_are_told_by_kind() -> None:
    memory = [os.memfd_create(f"hvd-extent-{number}") for number in range(3)]
    before = census_of_us()
    memory += [os.memfd_create("hvd-extent-9"), os.memfd_create("hvd-trace")]
    try:
        changed = census_of_us().difference(before)
        assert changed == {
            "descriptors of the machine: /memfd:hvd-extent": (3, 4),
            "descriptors of the machine: /memfd:hvd-trace": (0, 1),
            "shared memory objects: /memfd:hvd-extent": (3, 4),
            "shared memory objects: /memfd:hvd-trace": (0, 1),
        }
    finally:
        for descriptor in memory:
            os.close(descriptor)


def test_a_second_journal_is_one_in_the_making_and_a_third_is_too_many() -> None:
    journals = [os.memfd_create("hvd-journal")]
    try:
        before = census_of_us()
        journals.append(os.memfd_create("hvd-journal"))
        assert not census_of_us().difference(before)
        journals.append(os.memfd_create("hvd-journal"))
        assert census_of_us().difference(before) == {"shared memory objects: /memfd:hvd-journal": (2, 3)}
    finally:
        for journal in journals:
            os.close(journal)
