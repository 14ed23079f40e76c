"""Devices that come and go on live domains: what the store shows at each step, who is told, and who may say no."""

from __future__ import annotations

import pytest

from hvd.broker.dispatch import handle
from hvd.broker.domain import Life
from hvd.broker.errors import Refused
from hvd.transport import messages as m
from hvd.transport.ids import DOM0, DomId
from hvd.transport.limits import DEVICES_MAX
from hvd.transport.messages import DeviceConfig
from hvd.transport.upcalls import TOOLSTACK

DISK = DeviceConfig("vbd", 51728, "driver", {"dev": "xvdb", "params": "/images/b", "mode": "w"}, {"handle": "1"})
FRONT, BACK = "/local/domain/2/device/vbd/51728", "/local/domain/1/backend/vbd/2/51728"


@pytest.fixture
def guest(board):
    board.boot("driver", driver_domain=True)
    return board.boot("guest")


def call(board, message, caller=DOM0):
    return handle(board.h, caller, message, board.now).value


def attach(board, guest, device=DISK):
    call(board, m.DomctlAttach(guest, device))


def detach(board, guest, *, force=False):
    call(board, m.DomctlDetach(guest, "vbd", 51728, force))


def node(board, path):
    try:
        return board.h.store.read(DOM0, 0, path).decode()
    except Exception:  # noqa: BLE001 - it is not there
        return None


def write(board, dom, path, value):
    call(board, m.StoreWrite(0, path, value), dom)


def announced(board):
    told = [event for _, event in board.hardware.named("publish")]
    return [(event.event, event.detail) for event in told if "tach" in event.event]


def is_attached(board, guest):
    return [d.devid for d in board.h.domains[guest].config.devices] == [51728]


def connect(board, guest):
    write(board, DomId(1), f"{BACK}/state", b"4")
    write(board, guest, f"{FRONT}/state", b"4")


def test_an_attached_device_is_in_the_store_and_its_domain_is_told_without_having_asked(board, guest):
    attach(board, guest)
    assert (node(board, f"{FRONT}/state"), node(board, f"{FRONT}/backend")) == ("1", BACK)
    assert (node(board, f"{BACK}/params"), node(board, f"{BACK}/online")) == ("/images/b", "1")
    assert ("device/vbd/51728", TOOLSTACK) in board.h.upcalls[guest].unsent
    assert ("events_pending", guest) in board.hardware.calls
    assert announced(board) == [("attached", "vbd 51728")]


def test_an_attached_device_is_there_at_the_next_start_too(board, guest):
    attach(board, guest)
    board.dies(guest)
    assert node(board, f"{FRONT}/state") == "1"


def test_one_that_does_not_run_finds_the_device_when_it_starts(board, guest):
    board.h.domains[guest].life = Life.FAILED
    attach(board, guest)
    assert node(board, f"{FRONT}/state") is None
    assert is_attached(board, guest)


@pytest.mark.parametrize(
    ("device", "text"),
    [
        (DISK, "has a device vbd 51728 already: detach that first, or attach this by another number"),
        (DeviceConfig("vbd", 1, "nobody"), "names 'nobody' as its backend"),
        (DeviceConfig("vbd", 1, "guest"), "no other domain"),
        (DeviceConfig("no name", 1, "driver"), "no name 1"),
    ],
)
def test_a_device_that_cannot_be_is_refused_and_changes_nothing(board, guest, device, text):
    attach(board, guest)
    before = board.h.store.directory(DOM0, 0, "/local/domain/2/device"), board.h.domains[guest].config
    with pytest.raises(Refused, match=text):
        attach(board, guest, device)
    assert (board.h.store.directory(DOM0, 0, "/local/domain/2/device"), board.h.domains[guest].config) == before


def test_a_domain_has_at_most_devices_max_devices(board, guest):
    for devid in range(DEVICES_MAX):
        attach(board, guest, DeviceConfig("vbd", devid, "driver"))
    with pytest.raises(Refused, match=f"{DEVICES_MAX} devices, which is the most"):
        attach(board, guest)
    devices = [DeviceConfig("vbd", devid, "driver") for devid in range(DEVICES_MAX + 1)]
    with pytest.raises(Refused, match=f"{DEVICES_MAX} is the most"):
        board.create("other", devices=devices)


def test_a_frontend_is_asked_and_what_it_closes_is_removed_with_its_medium(board, guest):
    attach(board, guest)
    connect(board, guest)
    board.h.media.open(board.h.domain(DomId(1)), board.h.domain(guest), "vbd", 51728)
    detach(board, guest)
    assert (node(board, f"{BACK}/online"), node(board, f"{BACK}/state")) == ("0", "5")
    assert is_attached(board, guest)
    write(board, guest, f"{FRONT}/state", b"5")
    assert is_attached(board, guest)
    write(board, guest, f"{FRONT}/state", b"6")
    assert (node(board, FRONT), node(board, BACK)) == (None, None)
    assert not board.h.domains[guest].config.devices
    assert board.hardware.named("release_medium") == [("release_medium", 1)]
    assert announced(board)[-1] == ("detached", "vbd 51728")


def test_a_frontend_that_is_in_use_says_so_and_everything_is_as_before(board, guest):
    attach(board, guest)
    connect(board, guest)
    detach(board, guest)
    write(board, guest, f"{FRONT}/hvd-busy", b"3 requests are open")
    assert announced(board)[-1] == ("detach refused", "vbd 51728: 3 requests are open")
    assert (node(board, f"{BACK}/online"), node(board, f"{BACK}/state")) == ("1", "4")
    assert node(board, f"{FRONT}/hvd-busy") is None
    write(board, guest, f"{FRONT}/state", b"6")  # nobody asks any more
    assert is_attached(board, guest)


def test_by_force_nobody_is_asked(board, guest):
    attach(board, guest)
    connect(board, guest)
    detach(board, guest, force=True)
    assert (node(board, FRONT), node(board, BACK)) == (None, None)


def test_whoever_dies_while_it_is_asked_has_let_go(board, guest):
    attach(board, guest)
    connect(board, guest)
    detach(board, guest)
    board.dies(guest)
    assert announced(board)[-1] == ("detached", "vbd 51728")
    assert node(board, FRONT) is None
    assert not board.h.leaving


def test_a_driver_domain_that_dies_meanwhile_changes_nothing_of_it(board, guest):
    attach(board, guest)
    connect(board, guest)
    detach(board, guest)
    board.dies(DomId(1))
    write(board, guest, f"{FRONT}/state", b"6")
    assert announced(board)[-1] == ("detached", "vbd 51728")


def test_a_device_that_is_not_there_cannot_be_taken_away(board, guest):
    with pytest.raises(Refused, match="has no device vbd 51728"):
        detach(board, guest)


def test_a_guest_may_neither_attach_nor_detach(board, guest):
    for message in (m.DomctlAttach(guest, DISK), m.DomctlDetach(guest, "vbd", 51728)):
        with pytest.raises(Refused, match="that takes domain 0"):
            call(board, message, guest)


def keep(board, guest):
    call(board, m.DomctlKeep(guest, "vbd", 51728))


@pytest.mark.parametrize(("before", "ours"), [(b"4", b"4"), (b"2", b"3")])
def test_a_request_that_is_taken_back_leaves_everything_as_before(board, guest, before, ours):
    attach(board, guest)
    write(board, DomId(1), f"{BACK}/state", before)
    write(board, guest, f"{FRONT}/state", ours)
    detach(board, guest)
    detach(board, guest)
    assert (node(board, f"{BACK}/online"), node(board, f"{BACK}/state")) == ("0", "5")
    keep(board, guest)
    assert (node(board, f"{BACK}/online"), node(board, f"{BACK}/state")) == ("1", before.decode())
    assert not board.h.leaving and is_attached(board, guest)
    assert announced(board)[-1] == ("detach refused", "vbd 51728: the request was taken back")
    write(board, guest, f"{FRONT}/state", b"6")  # nobody asks any more
    assert is_attached(board, guest)


def test_what_a_backend_has_said_since_the_request_holds_when_that_is_taken_back(board, guest):
    attach(board, guest)
    connect(board, guest)
    detach(board, guest)
    board.dies(DomId(1))
    keep(board, guest)
    assert (node(board, f"{BACK}/online"), node(board, f"{BACK}/state")) == ("1", None)


def test_a_request_that_was_made_of_a_dead_backends_device_is_taken_back_too(board, guest):
    attach(board, guest)
    connect(board, guest)
    board.dies(DomId(1))
    detach(board, guest)
    keep(board, guest)
    assert (node(board, f"{BACK}/online"), node(board, f"{BACK}/state")) == ("1", None)


@pytest.mark.parametrize("answered", [True, False])
def test_a_device_that_stays_gives_no_directory_to_a_driver_domain_that_was_destroyed(board, guest, answered):
    attach(board, guest)
    connect(board, guest)
    detach(board, guest)
    call(board, m.DomctlDestroy(DomId(1)))
    board.dies(DomId(1))
    if answered:
        write(board, guest, f"{FRONT}/hvd-busy", b"held")
    else:
        keep(board, guest)
    assert announced(board)[-1][0] == "detach refused"
    assert not board.h.store.exists("/local/domain/1")


def test_what_was_said_too_late_to_a_request_is_no_answer_to_the_next(board, guest):
    attach(board, guest)
    connect(board, guest)
    detach(board, guest)
    keep(board, guest)
    write(board, guest, f"{FRONT}/hvd-busy", b"held")
    detach(board, guest)
    assert announced(board)[-1] == ("detach refused", "vbd 51728: the request was taken back")
    write(board, guest, f"{FRONT}/state", b"6")
    assert announced(board)[-1] == ("detached", "vbd 51728")


@pytest.mark.parametrize("state", [b"5", b"6"])
def test_a_request_that_is_answered_cannot_be_taken_back(board, guest, state):
    attach(board, guest)
    connect(board, guest)
    detach(board, guest)
    write(board, guest, f"{FRONT}/state", state)
    with pytest.raises(Refused, match=r"is letting go of vbd 51728 already|nobody has asked"):
        keep(board, guest)
    assert is_attached(board, guest) == (state == b"5")


def test_nothing_is_taken_back_that_was_not_asked(board, guest):
    attach(board, guest)
    connect(board, guest)
    with pytest.raises(Refused, match="nobody has asked domain guest to let go of vbd 51728"):
        keep(board, guest)
    assert node(board, f"{BACK}/state") == "4"


def test_a_device_that_its_domain_has_not_taken_up_is_taken_away_at_once(board, guest):
    attach(board, guest)
    write(board, DomId(1), f"{BACK}/state", b"2")
    detach(board, guest)
    assert (node(board, FRONT), node(board, BACK)) == (None, None)
    assert not is_attached(board, guest) and not board.h.leaving
