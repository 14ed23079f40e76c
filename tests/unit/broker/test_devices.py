"""A domain's directories in XenStore: what the toolstack writes, who may do what there, and what a death leaves."""

import pytest

from hvd.broker import hotplug
from hvd.broker.store import StoreError
from hvd.transport.ids import DOM0
from hvd.transport.messages import DeviceConfig

VBD = DeviceConfig("vbd", 51712, "drv", {"params": "disk.img"}, {"device-type": "disk"})


@pytest.fixture
def drv(board):
    return board.boot("drv", on_crash="preserve")


@pytest.fixture
def guest(board, drv):
    return board.boot("guest", devices=[VBD], on_crash="preserve")


@pytest.fixture
def paths(drv, guest):
    return f"/local/domain/{guest}/device/vbd/51712", f"/local/domain/{drv}/backend/vbd/{guest}/51712"


def values(board, path):
    store = board.h.store
    return {name: store.read(DOM0, 0, f"{path}/{name}").decode() for name in store.directory(DOM0, 0, path)}


def exists(board, path):
    try:
        board.h.store.read(DOM0, 0, path)
    except StoreError:
        return False
    return True


def test_both_directories_point_at_each_other_and_begin_in_initialising(board, drv, guest, paths):
    front, back = paths
    assert values(board, front) == {
        "backend": back, "backend-id": str(drv), "handle": "51712", "device-type": "disk", "state": "1",
    }  # fmt: skip
    assert values(board, back) == {
        "frontend": front, "frontend-id": str(guest), "online": "1", "domain": "guest", "params": "disk.img",
        "state": "1",
    }  # fmt: skip


def test_each_end_owns_its_directory_and_the_other_may_read_it(board, drv, guest, paths):
    front, back = paths
    perms = board.h.store.get_perms
    assert perms(DOM0, 0, front) == perms(DOM0, 0, f"{front}/state") == [f"n{guest}", f"r{drv}"]
    assert perms(DOM0, 0, back) == perms(DOM0, 0, f"{back}/state") == [f"n{drv}", f"r{guest}"]


def test_a_domain_may_write_its_data_but_not_its_name_nor_its_console(board, guest):
    home = f"/local/domain/{guest}"
    board.h.store.write(guest, 0, f"{home}/data/x", b"1")
    for path in (f"{home}/name", f"{home}/console/port", f"{home}/x"):
        with pytest.raises(StoreError):
            board.h.store.write(guest, 0, path, b"1")


def test_a_new_incarnation_of_a_guest_finds_its_directories_afresh_and_its_backend_as_it_was(board, guest, paths):
    front, back = paths
    home = f"/local/domain/{guest}"
    board.h.store.write(guest, 0, f"{home}/data/old", b"1")
    board.h.store.write(guest, 0, f"{front}/ring-ref", b"8")
    board.h.store.write(DOM0, 0, f"{back}/sectors", b"99")
    board.dies(guest)
    board.h.request_shutdown(guest, reboot=True, grace_ms=0, now_ns=board.now)
    assert not exists(board, f"{home}/data/old")
    assert not exists(board, f"{front}/ring-ref")
    assert values(board, front)["state"] == "1"
    assert values(board, back)["sectors"] == "99"
    assert values(board, home)["incarnation"] == "2"


def test_a_device_is_whole_where_its_driver_domain_has_said_something_of_one_that_had_gone(board, drv, guest, paths):
    front, back = paths
    hotplug.detach(board.h, guest, "vbd", 51712, force=True)
    board.h.store.write(drv, 0, f"{back}/error", b"said too late")
    board.h.store.write(drv, 0, f"{back}/state", b"6")
    hotplug.attach(board.h, guest, VBD)
    assert values(board, back) == {
        "frontend": front, "frontend-id": str(guest), "online": "1", "domain": "guest", "params": "disk.img",
        "state": "1",
    }  # fmt: skip
    assert board.h.store.get_perms(DOM0, 0, back) == [f"n{drv}", f"r{guest}"]


def test_a_new_incarnation_of_a_backend_finds_the_devices_it_is_to_serve(board, drv, paths):
    _, back = paths
    board.dies(drv)
    assert "state" not in values(board, back)
    board.h.request_shutdown(drv, reboot=True, grace_ms=0, now_ns=board.now)
    assert values(board, back)["params"] == "disk.img"


def test_a_destroyed_domain_leaves_nothing_in_the_store(board, drv, guest, paths):
    board.h.destroy(guest, board.now)
    board.dies(guest)
    for path in (f"/local/domain/{guest}", *paths):
        assert not exists(board, path)
    assert exists(board, f"/local/domain/{drv}/backend")
    board.h.destroy(drv, board.now)
    board.dies(drv)
    board.h.store.take_events()
    assert board.h.store.directory(DOM0, 0, "/local/domain") == [str(DOM0)]


def test_a_destroyed_backend_takes_its_directories_and_leaves_its_guests(board, drv, guest, paths):
    front, back = paths
    board.h.destroy(drv, board.now)
    board.dies(drv)
    assert not exists(board, back)
    assert exists(board, front)


def test_those_whose_backend_has_died_are_told_to_hurry_ahead_of_what_they_are_told_of_it(board):
    """Others are not: neither who has no device of it, nor who is not there to hear."""
    drv = board.boot("drv")
    front, gone = board.boot("ivi", devices=[VBD]), board.boot("hud", devices=[VBD], on_crash="preserve")
    board.boot("bystander")
    board.dies(gone)
    board.hardware.calls.clear()
    board.dies(drv)
    assert [domain.domid for _, domain in board.hardware.named("hurry")] == [front]
    first, *_ = board.hardware.named("hurry", "events_pending")
    assert first[0] == "hurry"
