"""What there is between domains, as a listing tells it: in parts, and of numbers that domains wrote themselves."""

from __future__ import annotations

import struct

import pytest

from hvd.broker import listing
from hvd.broker.dispatch import handle
from hvd.transport import messages as m
from hvd.transport.ids import DOM0, DomId
from hvd.transport.messages import DeviceConfig

DISK = DeviceConfig("vbd", 51712, "driver", {"dev": "xvda"}, {})
FRONT = "/local/domain/2/device/vbd/51712"


@pytest.fixture
def guest(board):
    board.boot("driver", driver_domain=True)
    return board.boot("guest", devices=[DISK])


def call(board, message):
    return handle(board.h, DOM0, message, board.now).value


def all_of(board, message):
    rows, first = [], 0
    while first is not None:
        part = call(board, message(DomId(first)))
        rows += part["rows"]
        first = part["next"]
    return rows


def publish(board, guest, **keys):
    for key, value in keys.items():
        board.h.store.write(guest, 0, f"{FRONT}/{key.replace('_', '-')}", str(value).encode())


def test_each_port_says_where_it_leads(board, guest):
    port = board.h.channels.alloc_unbound(guest, DomId(1))
    rows = {row["port"]: row for row in all_of(board, m.SysctlEvtchns) if row["domid"] == guest}
    assert (rows[1]["status"], rows[1]["virq"], rows[1]["remote_domid"]) == ("virq", 128, None)
    assert (rows[port]["status"], rows[port]["remote_domid"], rows[port]["remote_port"]) == ("unbound", 1, None)
    bound = board.h.channels.bind_interdomain(DomId(1), guest, port)
    rows = {(row["domid"], row["port"]): row for row in all_of(board, m.SysctlEvtchns)}
    assert (rows[guest, port]["remote_domid"], rows[guest, port]["remote_port"]) == (1, bound)


def test_only_a_port_that_leads_to_another_domain_says_how_much_was_sent_through_it(board, guest):
    board.hardware.events_sent = lambda channel, side: 10 * channel + side
    port = board.h.channels.alloc_unbound(guest, DomId(1))
    assert all(row["sent"] is None for row in all_of(board, m.SysctlEvtchns) if row["domid"] == guest)
    board.h.channels.bind_interdomain(DomId(1), guest, port)
    binding = board.h.channels.ports[guest][port]
    rows = {(row["domid"], row["port"]): row for row in all_of(board, m.SysctlEvtchns)}
    assert rows[guest, port]["sent"] == 10 * binding.channel + binding.side
    assert rows[guest, 1]["sent"] is None


def test_each_extent_says_to_whom_and_who_has_it(board, guest):
    extent = board.h.grants.allocate(guest, DomId(1), 4, readonly=True)
    ref = board.h.grants.share(guest, extent.id, 0, 4)
    board.h.grants.map(DomId(1), guest, ref, 2, writable=False)
    (row,) = [row for row in all_of(board, m.SysctlGrants) if row["extent"] == extent.id]
    assert (row["domid"], row["peer"], row["pages"], row["readonly"]) == (guest, 1, 4, True)
    assert (row["refs"], row["mapped"]) == ([[ref, 4]], [[1, ref, 2]])


def test_a_ring_says_what_its_page_says(board, guest, monkeypatch):
    extent = board.h.grants.allocate(guest, DomId(1), 2, readonly=False)
    ref = board.h.grants.share(guest, extent.id, 0, 2)
    publish(board, guest, ring_ref=ref + 1, event_channel=7, state=4)
    words = struct.pack("<4I", 10, 1, 8, 2)
    read = []

    def read_extent(*where: int) -> bytes:
        read.append(where)
        return words

    monkeypatch.setattr(board.hardware, "read_extent", read_extent)
    (row,) = all_of(board, m.SysctlRings)
    assert read == [(extent.id, 4096, 16)]
    assert (row["name"], row["state"], row["port"], row["backend"]) == ("xvda", 4, 7, 1)
    assert (row["req_prod"], row["req_event"], row["rsp_prod"], row["rsp_event"]) == (10, 1, 8, 2)


@pytest.mark.parametrize("ref", ["", "x", "0", "99", "-1", "4294967296", "9" * 30])
def test_a_ring_ref_that_is_none_is_no_ring(board, guest, ref):
    publish(board, guest, ring_ref=ref)
    (row,) = all_of(board, m.SysctlRings)
    assert (row["req_prod"], row["rsp_prod"]) == (None, None)


@pytest.mark.parametrize(("order", "pages"), [("2", 4), ("99", 16), ("x", 1)])
def test_a_ring_of_many_pages_is_read_at_its_first(board, guest, order, pages):
    publish(board, guest, ring_page_order=order)
    assert all_of(board, m.SysctlRings)[0]["pages"] == pages


def test_a_long_listing_comes_in_parts(board, guest, monkeypatch):
    monkeypatch.setattr(listing, "ROWS_MAX", 2)
    whole = {(row["domid"], row["port"]) for row in all_of(board, m.SysctlEvtchns)}
    assert len(whole) == sum(len(ports) for ports in board.h.channels.ports.values())
    assert call(board, m.SysctlEvtchns(DomId(0)))["next"] == 1
    assert call(board, m.SysctlEvtchns(DomId(2)))["next"] is None
