"""Orders for cores: of the dying, of those that live on, and of one that ends while it was to live on."""

from __future__ import annotations

import os
import select
import signal
import time
from pathlib import Path

import pytest

from hvd.machine import dumps
from hvd.machine.children import Child, Children
from hvd.machine.dumps import Dumps
from tests.waiting import wait_for


class Desk:
    """A machine's orders with real children and dumpers: `told` is what it says of live domains' cores."""

    def __init__(self, run_dir: Path) -> None:
        self.told: list[tuple[int, str]] = []
        self.epoll = select.epoll()
        self.children = Children(self.epoll)
        self.dumps = Dumps(str(run_dir), self.children.add, lambda child, said: self.told.append((child.domid, said)))
        self.ended: dict[int, str] = {}

    def domain(self, domid: int) -> Child:
        pid = os.posix_spawnp("sleep", ["sleep", "1000"], os.environ)  # small: no core is cut off
        child = Child("domain", pid, domid, 1)
        self.children.add(child)
        return child

    def run(self, until) -> None:
        """Reap, as the machine does, until that holds."""
        end = time.monotonic() + 30
        while not until():
            assert time.monotonic() < end
            for descriptor, _ in self.epoll.poll(1):
                child = self.children.get(descriptor)
                how = child.reap() if child is not None else None
                if child is None or how is None:
                    continue
                self.children.remove(child)
                if child.role == "dumper":
                    self.dumps.ended(child, how)
                else:
                    self.ended[child.domid] = self.dumps.died(child)

    def state(self, child: Child) -> str:
        return Path(f"/proc/{child.pid}/stat").read_text().rpartition(") ")[2][0]


@pytest.fixture
def desk(tmp_path: Path):
    made = Desk(tmp_path)
    yield made
    made.children.kill_all(time.monotonic() + 10)
    made.dumps.clear()
    made.epoll.close()


def test_a_live_domain_is_told_of_and_goes_on(desk, tmp_path):
    domain, path = desk.domain(7), tmp_path / "x.core"
    path.write_bytes(b"old")
    desk.dumps.order_live(domain, str(path))
    desk.run(lambda: desk.told)
    assert desk.told == [(7, f"core: {path}")]
    assert path.read_bytes()[:4] == b"\x7fELF"
    assert desk.state(domain) in "SR"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["x.core"]


def test_a_second_order_for_a_live_domain_is_the_same_one(desk, tmp_path):
    domain = desk.domain(7)
    desk.dumps.order_live(domain, str(tmp_path / "x.core"))
    desk.dumps.order_live(domain, str(tmp_path / "y.core"))
    desk.run(lambda: desk.told)
    assert not (tmp_path / "y.core").exists()


def test_a_live_domain_that_is_killed_meanwhile_has_no_core_and_leaves_none(desk, tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "replace", lambda *_: signal.pause())  # its dumper never comes to the core's name
    domain = desk.domain(7)
    os.kill(domain.pid, signal.SIGSTOP)
    desk.dumps.order_live(domain, str(tmp_path / "x.core"))
    wait_for(lambda: list(tmp_path.iterdir()), "its core to be begun")
    desk.dumps.abandon(domain, "it was killed while its core was written")
    domain.signal(signal.SIGKILL)
    desk.run(lambda: 7 in desk.ended)
    assert desk.ended == {7: ""}
    assert [said[:7] for _, said in desk.told] == ["no core"]
    assert list(tmp_path.iterdir()) == []


def test_one_that_ends_while_its_live_core_is_written_has_its_last_core_written_then(desk, tmp_path):
    domain = desk.domain(7)
    desk.dumps.order_live(domain, str(tmp_path / "x.core"))
    desk.dumps.order(domain, "car.1", [])
    desk.run(lambda: 7 in desk.ended)
    assert desk.ended[7] == f"core: {tmp_path / 'cores' / 'car.1.core'}"
    assert len(desk.told) == 1


def test_a_dumper_that_takes_too_long_is_ended_and_the_domain_goes_on(desk, tmp_path, monkeypatch):
    monkeypatch.setattr(dumps, "LIVE_PATIENCE_S", 0.0)
    monkeypatch.setattr(Dumps, "_be_dumper", lambda self, dump, outcome: signal.pause())
    domain = desk.domain(7)
    desk.dumps.order_live(domain, str(tmp_path / "x.core"))
    desk.dumps.expire(time.monotonic())
    desk.run(lambda: desk.told)
    assert desk.told == [(7, "no core: it was not written within 0 s")]
    assert desk.state(domain) in "SR"
