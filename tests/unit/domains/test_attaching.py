"""Attaching takes what a peer offers with one hypercall, and leaves nothing behind where it cannot have all of it."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hvd.domains.ahead import Ahead
from hvd.domains.attaching import attach
from hvd.domains.grants import Grants
from hvd.domains.runtime import Runtime
from hvd.transport import messages as m
from hvd.transport.channels import Waiter, create_channel
from hvd.transport.codec import pack_call, unpack_call
from hvd.transport.errors import LocalError, PeerFault
from hvd.transport.hypercalls import HypercallError
from hvd.transport.ids import DomId, GrantRef, Port
from hvd.transport.multicall import MULTICALL_MAX
from hvd.transport.pages import create_extent

PEER = DomId(7)


class Driver:
    """A domain that attaches, and the hypervisor in whose tables its mappings and ports are."""

    take_channel: Any = Runtime.take_channel
    bind: Any = Runtime.bind
    detach: Any = Runtime.detach
    close_port: Any = Runtime.close_port

    def __init__(self):
        self.hypercalls = self
        self.grants = Grants(self.call)
        self.waiter: Any = Waiter(0)
        self._handlers, self._endpoints, self._raised = {}, {}, set()
        self.made = 0
        self.at_once, self.refuses = MULTICALL_MAX, 0
        """Entries that are carried out of one hypercall; and the number of one that is refused as a whole."""
        self.held: set[str] = set()
        self.refused: set[int] = set()
        """Refs and ports that are."""
        self.unsealed: set[int] = set()
        """Refs whose pages are none that can be mapped."""

    def call(self, message):
        self.made += 1
        if isinstance(message, m.Multicall):
            if self.made == self.refuses:
                raise HypercallError(errno.EIO, "refused as a whole", "Multicall")
            answers = [self._one(unpack_call(entry)) for entry in message.calls[: self.at_once]]
            return [answer[:3] for answer in answers], [fd for *_, fds in answers for fd in fds]
        assert not self._one(message)[0]
        return None

    def _one(self, call):
        match call:
            case m.GnttabMap(ref=ref) if ref not in self.refused:
                self.held.add(f"handle {ref}")
                count = call.count or 3
                value = {"handle": ref, "extent": ref, "ref": ref, "count": count, "first_page": 0, "pages": count}
                sealed = create_extent(count, "hvd-test")
                pages = os.memfd_create("hvd-test-unsealed") if ref in self.unsealed else sealed
                if pages != sealed:
                    os.close(sealed)
                return 0, value | {"readonly": False}, 1, [pages]
            case m.EvtchnBindInterdomain(remote_port=port) if port not in self.refused:
                self.held.add(f"port {port}")
                channel = create_channel()
                for end in (channel.ends[0].rx, channel.ends[0].tx):
                    os.close(end)
                return 0, {"port": port, "side": 1}, 3, [channel.page_fd, channel.ends[1].rx, channel.ends[1].tx]
            case m.GnttabUnmap(handle=ref):
                self.held.remove(f"handle {ref}")
                return 0, None, 0, []
            case m.EvtchnClose(port=port):
                self.held.remove(f"port {port}")
                return 0, None, 0, []
        return errno.EPERM, "not yours", 0, []

    def attach(self, *refs, ports=(3, 4), runs=()):
        handlers = [(Port(port), lambda: None) for port in ports]
        runtime: Any = self
        return attach(runtime, PEER, [GrantRef(ref) for ref in refs], handlers, [GrantRef(ref) for ref in runs])


def descriptors():
    return sorted(Path("/proc/self/fd").iterdir())


@pytest.fixture
def driver():
    before = descriptors()
    made = Driver()
    yield made
    made.waiter.close()
    del made
    assert descriptors() == before


def test_all_of_it_takes_one_hypercall_and_is_given_back_whole(driver):
    attached = driver.attach(8, 9, runs=[20])
    assert driver.made == 1
    assert [len(pages.view) for pages in attached.pages] == [4096, 4096]
    assert [len(pages.view) for pages in attached.runs] == [3 * 4096]
    assert [port for port, _ in attached.ports] == [3, 4]
    driver.detach(attached)
    assert driver.held == set()
    assert driver._handlers == {}


def test_whoever_takes_a_run_unmaps_it(driver):
    attached = driver.attach(8, runs=[20])
    run = attached.runs.pop()
    driver.detach(attached)
    assert driver.held == {"handle 20"}
    driver.grants.unmap(run)
    assert driver.held == set()


@pytest.mark.parametrize("refused", [8, 9, 20, 3, 4])
def test_where_one_is_refused_there_is_none_and_the_error_is_its_own(driver, refused):
    driver.refused.add(refused)
    with pytest.raises(HypercallError, match="not yours") as error:
        driver.attach(8, 9, runs=[20])
    assert (error.value.errno, driver.held) == (errno.EPERM, set())


@pytest.mark.parametrize("ref", [8, 9, 20])
def test_where_one_cannot_be_mapped_there_is_none(driver, ref):
    driver.unsealed.add(ref)
    with pytest.raises(PeerFault):
        driver.attach(8, 9, runs=[20])
    assert driver.held == set()


@pytest.mark.parametrize("port", [3, 4])
def test_where_one_cannot_be_waited_for_there_is_none(driver, port):
    """As with a process that may have no more descriptors in its epoll set."""
    waiter = driver.waiter

    def add(number, endpoint):
        if number == port:
            raise LocalError("full")
        waiter.add(number, endpoint)

    driver.waiter = SimpleNamespace(add=add, remove=waiter.remove, close=waiter.close)
    with pytest.raises(LocalError, match="full"):
        driver.attach(8, 9)
    assert driver.held == set()


def test_more_than_one_multicall_brings_takes_more_and_is_as_whole(driver):
    refs, driver.at_once = range(100, 116), 16
    driver.detach(driver.attach(*refs))
    assert driver.made == 2 + len(refs) + 2
    driver.refused.add(4)
    with pytest.raises(HypercallError):
        driver.attach(*refs)
    assert driver.held == set()


def test_what_came_before_a_hypercall_that_is_refused_as_a_whole_is_given_back(driver):
    driver.at_once, driver.refuses = 2, 2
    with pytest.raises(HypercallError, match="refused as a whole"):
        driver.attach(1, 2, 5, 6)
    assert driver.held == set()


def test_pages_that_were_mapped_ahead_are_gone_too_where_one_is_refused(driver):
    """Else each try of a frontend that breaks the protocol and knocks again would cost its backend's domain more."""
    mapped, hypercall = m.GnttabMap(PEER, GrantRef(1), 1, True), driver.call
    _, value, _, brought = driver._one(mapped)
    known = Ahead({pack_call(mapped): (value, brought)}, driver.grants)

    def call(message):
        return known.ask(message, hypercall) if isinstance(message, m.Multicall) else hypercall(message)

    driver.call, driver.refused = call, {4}
    with pytest.raises(HypercallError):
        driver.attach(1)
    assert driver.held == set()
    driver.refused = set()
    attached = driver.attach(1)
    attached.pages[0].view[0] = 1
    driver.detach(attached)
    assert driver.held == set()
