"""Guests' vifs and the driver domain of their switch in one process: real pages, doorbells, rings; no hypervisor."""

import os
import socket
import time
from typing import Any

import pytest

from hvd.domains.attaching import Attached
from hvd.domains.grants import MappedPages, SharedPages
from hvd.domains.net.backend import NetBackend
from hvd.domains.net.frontend import NetFrontend
from hvd.domains.runtime import Runtime
from hvd.transport.channels import Waiter, create_channel, open_endpoint
from hvd.transport.errors import PeerFault
from hvd.transport.hypercalls import HypercallError
from hvd.transport.ids import DomId, ExtentId, GrantRef, Handle
from hvd.transport.pages import Extent, create_extent
from hvd.transport.protocols.net import chosen_mac

DRIVER = DomId(1)


class Pages:
    """The grants of all: an extent by the first of its refs."""

    leaving = False

    def __init__(self):
        self.extents = {}
        self.next_ref = 100
        self.mapped = 0

    def share(self, peer, pages):
        descriptor = create_extent(pages, "hvd-test-net")
        extent = Extent.map(descriptor, pages, writable=True)
        os.close(descriptor)
        ref = GrantRef(self.next_ref)
        self.next_ref += pages + 10
        self.extents[ref] = extent
        return SharedPages(ExtentId(ref), ref, extent)

    def give_back(self, shared):
        self.extents.pop(shared.ref).close()

    def _find(self, ref):
        for first, extent in self.extents.items():
            if first <= ref < first + len(extent):
                return first, extent
        raise HypercallError(2, f"no grant {ref}", "GnttabMap")

    def map(self, dom, ref, count=1, *, writable=True):
        first, extent = self._find(ref)
        index, pages = (0, len(extent)) if count == 0 else (ref - first, count)
        self.mapped += 1
        return MappedPages(Handle(1), ExtentId(first), GrantRef(first + index), pages, extent.pages(index, pages))

    def unmap(self, mapped):
        mapped.view.release()
        self.mapped -= 1


class Domain:
    """What a device needs of its domain."""

    wait: Any = Runtime.wait
    _sleep: Any = Runtime._sleep
    wait_until: Any = Runtime.wait_until
    deliver: Any = Runtime.deliver
    watch_fd: Any = Runtime.watch_fd
    unwatch_fd: Any = Runtime.unwatch_fd
    raise_again: Any = Runtime.raise_again
    stands_by = False

    def __init__(self, machine, domid):
        self.machine, self.domid, self.name = machine, domid, f"domain{domid}"
        self.grants = machine.pages
        self.store = machine
        self.waiter = Waiter(0)
        self._handlers = {}
        self._raised = set()

    def system_time_ns(self):
        return time.monotonic_ns()

    def alloc_unbound(self, remote, handler):
        port = self.machine.new_channel()
        return self._bind(port, 0, handler)

    def attach(self, peer, refs, ports, runs=()):
        if unknown := [port for port, _ in ports if port not in self.machine.channels]:
            raise HypercallError(22, f"no port {unknown[0]}", "EvtchnBindInterdomain")
        pages = [self.grants.map(peer, ref) for ref in refs]
        whole = [self.grants.map(peer, ref, 0) for ref in runs]
        return Attached(pages, whole, [self._bind(port, 1, handler) for port, handler in ports])

    detach: Any = Runtime.detach

    def _bind(self, port, side, handler):
        page, ends = self.machine.channels[port]
        endpoint = open_endpoint(page, side, os.dup(ends[side].rx), os.dup(ends[side].tx))
        self.waiter.add(port, endpoint)
        self._handlers[port] = handler
        self.machine.endpoints.append(endpoint)
        return port, endpoint

    def open_uplink(self, network):
        device, host = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        self.machine.uplinks.setdefault(network, []).append((device, host))
        return device.fileno(), 1500

    def close_port(self, port):
        self.waiter.remove(port)
        del self._handlers[port]
        self._raised.discard(port)


class Vif:
    """A guest's frontend and its backend, of which there may be another."""

    def __init__(self, machine, domid, back_keys, front_keys):
        self.machine = machine
        self.path = f"/local/domain/{DRIVER}/backend/vif/{domid}/0"
        guest: Any = Domain(machine, domid)
        self.guest = guest
        self.front = NetFrontend(guest, DRIVER, {"handle": "0", "backend": self.path, **front_keys})
        base = {"frontend": f"/local/domain/{domid}/device/vif/0", "domain": f"guest{domid}", "hvd-guard": "0"}
        self.back_keys = base | back_keys
        self.faults: list[PeerFault] = []
        self.front.on_fault = self.faults.append
        self.mac = chosen_mac(domid, 0) if "mac" not in front_keys else self.front.mac
        self.offer()

    def offer(self):
        self.back = NetBackend(self.machine.driver, DomId(self.guest.domid), self.back_keys)
        self.back.on_fault = self._closed
        self.features = self.back.features()

    def _closed(self, fault):
        self.faults.append(fault)
        self.back.detach()

    def connect(self):
        keys = self.front.publish(self.features)
        for path, value in keys.items():
            directory, _, name = path.rpartition("/")
            self.machine.nodes.setdefault(f"{self.back_keys['frontend']}/{directory}", {})[name] = value
        self.front.published(self.features)
        self.back.attach({key: value for key, value in keys.items() if "/" not in key})
        self.front.connected(self.features)

    def kill_backend(self):
        """As the hypervisor does: the dead one's ports and mappings go."""
        self.front.backend_gone()
        self.back.detach()
        self.offer()


class Machine:
    """One driver domain, and its guests."""

    def __init__(self):
        self.pages = Pages()
        self.channels = {}
        self.endpoints = []
        self.nodes = {}
        self.watches = {}
        self.texts = {}
        self.uplinks = {}
        self.driver: Any = Domain(self, DRIVER)
        self.vifs = []

    def new_channel(self):
        port = 10 + len(self.channels)
        channel = create_channel()
        self.channels[port] = channel.page_fd, channel.ends
        return port

    def read_all(self, path):
        return self.nodes.get(path, {})

    def watch(self, path, handler):
        self.watches[path] = handler
        handler(path)
        return path

    def afterwards(self, handler):
        handler()

    def unwatch(self, token):
        del self.watches[token]

    def read_text(self, path):
        return self.texts.get(path, "")

    def write(self, path, value):
        """By the driver domain, relative to its home."""
        path = f"/local/domain/{DRIVER}/{path}"
        self.texts[path] = str(value)
        if path in self.watches:
            self.watches[path](path)

    def vif(self, domid, *, connect=True, front=None, **back):
        keys = {key.replace("_", "-"): value for key, value in back.items()}
        vif = Vif(self, domid, keys, front or {})
        self.vifs.append(vif)
        if connect:
            vif.connect()
        return vif

    def run(self):
        """Until nobody has anything to do: handlers, and native turns, of which no wait tells."""
        while any([self._wait(self.driver), *(self._wait(vif.guest) for vif in self.vifs)]):
            continue

    @staticmethod
    def _wait(domain):
        before = domain.waiter.statistics().delivered
        return domain.wait(0) or domain.waiter.statistics().delivered != before

    def close(self):
        for vif in self.vifs:
            if vif.front.front is not None:
                vif.front.backend_gone()
                vif.back.detach()
                vif.front.close()
            vif.guest.waiter.close()
        self.driver.waiter.close()
        for ends in self.uplinks.values():
            for end in (end for pair in ends for end in pair):
                end.close()
        for endpoint in self.endpoints:
            endpoint.close()
        for page, ends in self.channels.values():
            for descriptor in (page, *(fd for end in ends for fd in (end.rx, end.tx))):
                os.close(descriptor)


@pytest.fixture
def machine():
    machine = Machine()
    yield machine
    machine.close()
    assert machine.pages.mapped == 0 and not machine.pages.extents

