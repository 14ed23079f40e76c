"""Answers to what was not asked yet: each is given once, what is stale is asked anew, what is left is given back."""

import errno
import os
from pathlib import Path

import pytest

from hvd.domains.ahead import Ahead
from hvd.domains.grants import Grants
from hvd.transport import messages as m
from hvd.transport.channels import create_channel
from hvd.transport.codec import pack_call, unpack_call
from hvd.transport.hypercalls import HypercallError
from hvd.transport.ids import DomId, GrantRef, Handle, Port
from hvd.transport.multicall import ask_all
from hvd.transport.pages import create_extent

PEER = DomId(7)
WATCH = m.StoreWatch("/a/state", "/a/state", True)
READ, MEDIUM = m.StoreReadAll("backend/a"), m.PhysdevOpenMedium(PEER, "vbd", 768)
MAP, BIND = m.GnttabMap(PEER, GrantRef(9), 1, True), m.EvtchnBindInterdomain(PEER, Port(3))


class Hypervisor:
    """It answers what is asked of it now, and remembers that."""

    def __init__(self):
        self.asked = []
        self.at_once = 64

    def call(self, message):
        calls = [unpack_call(call) for call in message.calls] if isinstance(message, m.Multicall) else [message]
        calls = calls[: self.at_once]
        self.asked += calls
        return [[0, "asked", 0] for _ in calls]


@pytest.fixture
def hypervisor():
    return Hypervisor()


@pytest.fixture
def grants(hypervisor):
    return Grants(hypervisor.call)


@pytest.fixture(autouse=True)
def no_descriptor_is_left():
    before = set(Path("/proc/self/fd").iterdir())
    yield
    assert set(Path("/proc/self/fd").iterdir()) <= before


def pages(count=1):
    descriptor = create_extent(count, "hvd-test")
    value = {"handle": 5, "extent": 4, "ref": 9, "count": 1, "first_page": 0, "pages": count, "readonly": False}
    return value, [descriptor]


def channel(*, closed=False):
    made = create_channel()
    if closed:
        os.pwrite(made.page_fd, b"\1", 128 + 12)
    for descriptor in (made.ends[0].rx, made.ends[0].tx):
        os.close(descriptor)
    return {"port": 6, "side": 1}, [made.page_fd, made.ends[1].rx, made.ends[1].tx]


def made_of(grants, answers):
    return Ahead({pack_call(call): answer for call, answer in answers.items()}, grants)


def test_a_multicall_of_which_all_is_answered_is_not_made(hypervisor, grants):
    medium = os.memfd_create("medium")
    known = made_of(grants, {WATCH: (None, []), READ: ({"state": b"2"}, []), MEDIUM: (None, [medium])})
    found = ask_all(lambda message: known.ask(message, hypervisor.call), [WATCH, READ, MEDIUM])
    assert found == [(0, None, []), (0, {"state": b"2"}, []), (0, None, [medium])]
    assert hypervisor.asked == []
    os.close(medium)


def test_of_one_of_which_some_is_answered_the_rest_is_asked_and_each_answer_is_in_its_place(hypervisor, grants):
    medium = os.memfd_create("medium")
    known = made_of(grants, {MEDIUM: (None, [medium])})
    found = ask_all(lambda message: known.ask(message, hypervisor.call), [WATCH, MEDIUM, READ])
    assert [answered.value for answered in found] == ["asked", None, "asked"]
    assert hypervisor.asked == [WATCH, READ]
    os.close(medium)


def test_an_answer_is_given_once(hypervisor, grants):
    known = made_of(grants, {READ: ({"state": b"2"}, [])})
    for wanted in ({"state": b"2"}, "asked"):
        (found,) = ask_all(lambda message: known.ask(message, hypervisor.call), [READ])
        assert found.value == wanted


def test_pages_are_mapped_from_the_beginning_and_taken_without_a_descriptor(hypervisor, grants):
    known = made_of(grants, {MAP: pages()})
    (found,) = ask_all(lambda message: known.ask(message, hypervisor.call), [MAP])
    mapped = grants.take(found.value, found.descriptors)
    mapped.view[0] = 1
    grants.unmap(mapped)
    assert hypervisor.asked == [m.GnttabUnmap(Handle(5))]


def test_of_pages_that_are_mapped_already_the_hypervisor_sends_no_descriptor_again(hypervisor, grants):
    """A frontend that names another page of the same extent than its backend had mapped before."""
    known = made_of(grants, {MAP: pages(2)})
    other = {"handle": 8, "extent": 4, "ref": 10, "count": 1, "first_page": 1, "pages": 2, "readonly": False}
    mapped = grants.take(other, [])
    known.give_back(hypervisor.call)
    mapped.view[0] = 1
    grants.unmap(mapped)
    assert hypervisor.asked == [m.GnttabUnmap(Handle(5)), m.GnttabUnmap(Handle(8))]


def test_what_nobody_has_asked_for_is_given_back(hypervisor, grants):
    medium = os.memfd_create("medium")
    known = made_of(grants, {
        WATCH: (None, []), READ: ({"handle": b"1", "port": b"2"}, []), MEDIUM: (None, [medium]), MAP: pages(),
        BIND: channel(),
    })  # fmt: skip
    known.give_back(hypervisor.call)
    unwatched = m.StoreUnwatch("/a/state", "/a/state")
    assert hypervisor.asked == [unwatched, m.GnttabUnmap(Handle(5)), m.EvtchnClose(Port(6))]
    known.give_back(hypervisor.call)
    assert len(hypervisor.asked) == 3


def test_a_port_whose_other_end_has_gone_is_closed_and_asked_for_anew(hypervisor, grants):
    known = made_of(grants, {BIND: channel(closed=True)})
    (found,) = ask_all(lambda message: known.ask(message, hypervisor.call), [BIND])
    assert found.value == "asked"
    assert hypervisor.asked == [m.EvtchnClose(Port(6)), BIND]


def test_one_that_is_open_is_taken_as_it_is(hypervisor, grants):
    known = made_of(grants, {BIND: channel()})
    (found,) = ask_all(lambda message: known.ask(message, hypervisor.call), [BIND])
    assert (found.value, len(found.descriptors), hypervisor.asked) == ({"port": 6, "side": 1}, 3, [])
    for descriptor in found.descriptors:
        os.close(descriptor)


def test_pages_that_cannot_be_mapped_are_given_back_at_once(hypervisor, grants):
    value, (descriptor,) = pages()
    made_of(grants, {MAP: (value | {"pages": 1 << 50}, [descriptor])})
    assert hypervisor.asked == [m.GnttabUnmap(Handle(5))]


def test_what_was_answered_is_not_lost_when_the_rest_is_refused(hypervisor, grants):
    known = made_of(grants, {READ: ({"state": b"2"}, [])})

    def refuse(message):
        raise HypercallError(errno.EAGAIN, "later", "Multicall")

    with pytest.raises(HypercallError):
        ask_all(lambda message: known.ask(message, refuse), [READ, MEDIUM])
    first, second = ask_all(lambda message: known.ask(message, hypervisor.call), [READ, MEDIUM])
    assert (first.value, second.value, hypervisor.asked) == ({"state": b"2"}, "asked", [MEDIUM])


def test_what_is_answered_behind_one_that_was_not_carried_out_is_told_with_that(hypervisor, grants):
    known, hypervisor.at_once = made_of(grants, {READ: ({"state": b"2"}, []), WATCH: ("watched", [])}), 1
    others = [m.StoreRead(0, "a"), m.StoreRead(0, "b")]
    found = ask_all(lambda message: known.ask(message, hypervisor.call), [WATCH, others[0], others[1], READ])
    assert [one.value for one in found] == ["watched", "asked", "asked", {"state": b"2"}]
    assert hypervisor.asked == others
