"""The broker's descriptors: what the machine is told at once, what waits for the journal, and how many there may be."""

import errno
import fcntl
import os
import resource
from pathlib import Path
from typing import Any

import pytest

from hvd.broker import held as held_module
from hvd.broker.held import INFO, READ_ONLY, READY, UPCALL, WRITABLE, HeldDescriptors, domain_key, spare_key
from hvd.transport.descriptors import receive_message, send_message, socket_pair
from hvd.transport.ids import DomId, ExtentId
from hvd.transport.limits import DESCRIPTORS_SPARED

F_SEAL_FUTURE_WRITE = 0x10
DESCRIPTORS = Path("/proc/self/fd")


class Link:
    """The machine's end: what it was told, its descriptors closed."""

    def __init__(self):
        self.broker, self._machine = socket_pair()

    def told(self):
        messages: list[tuple[Any, ...]] = []
        while True:
            try:
                received = receive_message(self._machine)
            except BlockingIOError:
                return messages
            assert received is not None
            for descriptor in received[1]:
                os.close(descriptor)
            messages.append((*received[0], len(received[1])))

    def close(self):
        self.told()
        self.broker.close()
        self._machine.close()


@pytest.fixture
def link():
    made = Link()
    yield made
    made.close()


@pytest.fixture
def held(link):
    before = set(DESCRIPTORS.iterdir())
    made = HeldDescriptors(link.broker, {})
    yield made
    link.told()
    made.drop_unknown(set())
    made.settle()
    for _, endpoint in list(made._endpoints.items()):
        endpoint.close()
    assert set(DESCRIPTORS.iterdir()) <= before


def pipe():
    return list(os.pipe())


def is_open(descriptor):
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_what_is_held_is_told_at_once_with_its_descriptors(held, link):
    held.create_channel(7)
    held.create_extent(ExtentId(3), DomId(1), 2, readonly=False)
    held.create_extent(ExtentId(4), DomId(1), 2, readonly=True)
    held.create_domain(domain_key(DomId(5)))
    assert link.told() == [
        ("hold", "channel:7", 5), ("hold", "extent:3", 1), ("hold", "extent:4", 2), ("hold", "domain:5", 7),
    ]


def test_what_is_dropped_stays_open_and_held_until_the_command_is_in_the_journal(held, link):
    descriptors = pipe()
    held.hold("x", descriptors)
    link.told()
    held.drop("x")
    assert "x" not in held.by_key
    assert link.told() == []
    assert all(map(is_open, descriptors))
    held.settle()
    assert link.told() == [("drop", "x", 0)]
    assert not any(map(is_open, descriptors))
    held.settle()
    assert link.told() == []


def test_a_key_that_is_dropped_and_held_again_in_one_command_is_held(held, link):
    first, second = pipe(), pipe()
    held.hold("x", first)
    held.drop("x")
    held.hold("x", second)
    held.settle()
    assert link.told() == [("hold", "x", 2), ("hold", "x", 2)]
    assert held.by_key["x"] == second
    assert [is_open(first[0]), is_open(second[0])] == [False, True]


def test_a_key_that_is_held_twice_lets_go_of_what_it_named(held):
    first, second = pipe(), pipe()
    held.hold("x", first)
    held.hold("x", second)
    assert [is_open(first[0]), is_open(second[0])] == [False, True]


def test_dropping_what_is_not_held_is_nothing(held, link):
    held.drop("x")
    held.settle()
    assert link.told() == []


def test_what_no_table_mentions_is_dropped(held, link):
    held.hold("known", pipe())
    held.hold("unknown", pipe())
    link.told()
    held.drop_unknown({"known", "other"})
    held.settle()
    assert link.told() == [("drop", "unknown", 0)]
    assert set(held.by_key) == {"known"}


# ---- bounds ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(link, monkeypatch):
    """A broker that may have 40 descriptors, of which it spares 20."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (40, 40))
    made = HeldDescriptors(link.broker, {})
    yield made
    link.told()
    made.drop_unknown(set())
    made.settle()


def test_some_descriptors_are_always_spared_and_the_call_that_wants_one_is_refused(small, link):
    """A channel costs its five and two to ring both its sides. Half are spared where DESCRIPTORS_SPARED is more."""
    assert DESCRIPTORS_SPARED > 20
    small.create_channel(1)
    small.create_channel(2)
    before = len(list(DESCRIPTORS.iterdir()))
    with pytest.raises(OSError, match="14 of 40 descriptors are in use") as raised:
        small.create_channel(3)
    assert raised.value.errno == errno.EMFILE
    assert len(list(DESCRIPTORS.iterdir())) == before
    assert [key for _, key, _ in link.told()] == ["channel:1", "channel:2"]


def test_what_was_let_go_makes_room(small):
    small.create_channel(1)
    small.create_channel(2)
    small.release_channel(1)
    small.settle()
    small.create_channel(3)
    with pytest.raises(OSError, match="descriptors are in use"):
        small.create_channel(4)


def test_what_was_inherited_counts(link, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (40, 40))
    inherited = {"channel:1": [*pipe(), *pipe(), *pipe()][:5], "extent:1": pipe()}
    made = HeldDescriptors(link.broker, dict(inherited))
    with pytest.raises(OSError, match="9 of 40"):
        made.hold("x", [*pipe(), *pipe(), *pipe(), *pipe(), *pipe(), *pipe()])
    made.drop_unknown(set())
    made.settle()


# ---- what is made ----------------------------------------------------------------------------------------------------


def seals_refused(descriptor):
    try:
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, F_SEAL_FUTURE_WRITE)
    except PermissionError:
        return True
    return False


def test_a_writable_extent_cannot_be_sealed_by_those_it_is_handed_to(held):
    held.create_extent(ExtentId(1), DomId(1), 1, readonly=False)
    assert seals_refused(held.extent(ExtentId(1)))
    os.pwrite(held.extent(ExtentId(1)), b"x", 0)


def test_a_read_only_extent_is_written_until_it_is_sealed_and_by_nobody_after(held):
    held.create_extent(ExtentId(1), DomId(1), 1, readonly=True)
    writable, read_only = held.by_key["extent:1"]
    assert held.by_key["extent:1"][WRITABLE] == writable
    os.pwrite(writable, b"x", 0)
    held.seal_extent(ExtentId(1))
    with pytest.raises(PermissionError):
        os.pwrite(writable, b"y", 0)
    assert os.pread(held.by_key["extent:1"][READ_ONLY], 1, 0) == b"x"
    assert seals_refused(writable)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.pwrite(read_only, b"y", 0)


def test_the_brokers_endpoint_rings_the_side_it_names_and_goes_with_the_channel(held):
    held.create_channel(1)
    _, rx_0, _, rx_1, _ = held.by_key["channel:1"]
    held.endpoint(1, 1).kick()
    assert os.read(rx_1, 10)
    with pytest.raises(BlockingIOError):
        os.read(rx_0, 1)
    assert held.endpoint(1, 1) is held.endpoint(1, 1)
    held.release_channel(1)
    held.settle()
    assert held._endpoints == {}


def test_a_domains_descriptors_are_its_sockets_its_pipe_and_its_page(held):
    held.create_domain(domain_key(DomId(5)))
    descriptors = held.by_key["domain:5"]
    assert not os.get_blocking(descriptors[UPCALL])
    with held.shared_info(domain_key(DomId(5))) as page:
        page[0] = 7
    assert os.pread(descriptors[INFO], 1, 0) == b"\7"
    assert seals_refused(descriptors[INFO])


@pytest.mark.parametrize("failing", ["create_extent", "open_read_only", "seal_seals"])
def test_a_domain_that_the_host_refuses_half_way_leaves_nothing_open(held, link, monkeypatch, failing):
    def refuse(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    before = set(DESCRIPTORS.iterdir())
    monkeypatch.setattr(held_module, failing, refuse)
    with pytest.raises(OSError, match="Too many open files"):
        held.create_domain(domain_key(DomId(5)))
    assert set(DESCRIPTORS.iterdir()) == before
    assert link.told() == []


def test_the_next_journal_is_never_refused_however_few_descriptors_are_left(small):
    small.hold("journal", [os.open("/dev/null", os.O_RDONLY)])
    with pytest.raises(OSError, match="descriptors are in use"):
        for channel in range(1, 9):
            small.create_channel(channel)
    small.hold("journal", [os.open("/dev/null", os.O_RDONLY)])
    assert len(small.by_key["journal"]) == 1


def test_what_is_renamed_takes_the_place_of_what_had_the_name_and_costs_nothing(held, link):
    held.create_domain(domain_key(DomId(5)))
    held.create_domain(spare_key(DomId(5)))
    spare, used = held.by_key["spare:5"], held.used
    link.told()
    held.rename("spare:5", "domain:5")
    assert held.by_key["domain:5"] is spare
    assert "spare:5" not in held.by_key
    assert held.used == used - len(spare)
    held.settle()
    assert link.told() == [("hold", "domain:5", 7), ("drop", "spare:5", 0)]
    assert os.fstat(spare[UPCALL])


def test_what_was_made_for_the_next_is_whosever_comes_and_counts_from_then_on(held, link):
    held.make_ready()
    held.make_ready()
    made = held.by_key[READY]
    assert (held.used, held.count(), link.told()) == (0, 0, [("hold", READY, len(made))])
    held.create_domain(domain_key(DomId(1)))
    held.settle()
    assert held.by_key == {domain_key(DomId(1)): made}
    assert (held.used, held.count()) == (len(made), len(made))
    assert link.told() == [("hold", domain_key(DomId(1)), len(made)), ("drop", READY, 0)]
    held.drop(domain_key(DomId(1)))
    assert held.used == 0


def test_what_was_made_for_the_next_is_not_taken_past_the_most(held):
    held.make_ready()
    ready = list(held.by_key[READY])
    held.most = len(ready) - 1
    with pytest.raises(OSError, match="descriptors are in use"):
        held.create_domain(domain_key(DomId(1)))
    assert held.by_key == {READY: ready}


def test_what_was_made_for_the_next_is_still_there_when_the_machine_cannot_be_told_whose_it_is(held, link):
    held.make_ready()
    ready = list(held.by_key[READY])
    with pytest.raises(BlockingIOError):
        while True:
            send_message(held._link, ["hold", "more"])
    with pytest.raises(OSError):
        held.create_domain(domain_key(DomId(1)))
    assert (held.by_key, held.used) == ({READY: ready}, 0)
    link.told()
    held.create_domain(domain_key(DomId(1)))
    assert (held.by_key, held.used) == ({domain_key(DomId(1)): ready}, len(ready))


def test_what_is_dropped_together_is_one_message_to_the_machine(held, link):
    for key in ("x", "y"):
        held.hold(key, pipe())
    link.told()
    held.drop("x")
    held.drop("y")
    held.settle()
    assert link.told() == [("drop", "x", "y", 0)]
