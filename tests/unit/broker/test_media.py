"""Media: opened for who hosts the backend, as the tables say, and closed with whatever they were for."""

import errno

import pytest

from hvd.broker.dispatch import handle
from hvd.broker.errors import Refused
from hvd.transport import messages as m
from hvd.transport.messages import DeviceConfig


def disk(backend="storage", devid=1, **keys):
    return DeviceConfig("vbd", devid, backend, {"params": "/disk.img", "mode": "w"} | keys)


@pytest.fixture
def storage(board):
    return board.boot("storage", driver_domain=True)


def opened(board):
    return board.hardware.named("open_medium")


def ask(board, caller, client, kind="vbd", devid=1):
    return handle(board.h, caller, m.PhysdevOpenMedium(client, kind, devid), board.now)


@pytest.mark.parametrize(("mode", "readonly"), [("w", False), ("r", True), ("ro", True), ("w!", False)])
def test_the_backends_domain_gets_the_file_of_the_tables_in_the_mode_of_the_tables(board, storage, mode, readonly):
    client = board.boot("client", devices=[disk(mode=mode)])
    answer = ask(board, storage, client)
    assert opened(board) == [("open_medium", 1, "/disk.img", readonly)]
    assert answer.descriptors == (("medium:1", 0),)


@pytest.mark.parametrize("caller", ["client", "other"])
def test_nobody_else_gets_it(board, storage, caller):
    doms = {"client": board.boot("client", devices=[disk()]), "other": board.boot("other", driver_domain=True)}
    with pytest.raises(Refused, match="hosts no backend of vbd 1") as refused:
        ask(board, doms[caller], doms["client"])
    assert refused.value.errno == errno.EPERM
    assert opened(board) == []


@pytest.mark.parametrize(("kind", "devid"), [("vbd", 2), ("echo", 1)])
def test_a_device_that_the_tables_do_not_have_has_no_medium(board, storage, kind, devid):
    client = board.boot("client", devices=[disk()])
    with pytest.raises(Refused, match="hosts no backend"):
        ask(board, storage, client, kind, devid)


@pytest.mark.parametrize("bps", [0, 100_000])
def test_whoever_is_bound_in_what_he_may_have_of_disks_is_bound_in_that_of_the_mediums_too(board, bps):
    storage = board.boot("storage", driver_domain=True, io_bps=bps)
    ask(board, storage, board.boot("client", devices=[disk()]))
    bound = [domain.domid for _, domain in board.hardware.named("bound_new_disks")]
    assert bound == ([storage] if bps else [])


def test_what_the_store_says_does_not_matter(board, storage):
    client = board.boot("client", devices=[disk()])
    for key, value in (("params", b"/etc/shadow"), ("mode", b"w")):
        path = f"/local/domain/{storage}/backend/vbd/{client}/1/{key}"
        handle(board.h, storage, m.StoreWrite(0, path, value), board.now)
    ask(board, storage, client)
    assert opened(board) == [("open_medium", 1, "/disk.img", False)]


def test_a_device_without_a_file_has_none(board, storage):
    client = board.boot("client", devices=[DeviceConfig("echo", 0, "storage")])
    with pytest.raises(Refused, match="has no medium") as refused:
        ask(board, storage, client, "echo", 0)
    assert refused.value.errno == errno.ENOENT


def test_each_call_opens_it_afresh_and_closes_what_was_open(board, storage):
    client = board.boot("client", devices=[disk()])
    ask(board, storage, client)
    ask(board, storage, client)
    assert board.hardware.named("open_medium", "release_medium")[1:] == [
        ("release_medium", 1),  # first: it is locked against every other writer
        ("open_medium", 2, "/disk.img", False),
    ]
    assert list(board.h.media.opened.values()) == [2]


def test_when_the_host_refuses_nothing_is_open(board, storage):
    client = board.boot("client", devices=[disk()])
    ask(board, storage, client)
    board.hardware.refused.add("open_medium")
    with pytest.raises(Refused, match="the host refused"):
        ask(board, storage, client)
    assert board.h.media.opened == {}


def test_they_are_closed_when_the_backends_domain_dies(board, storage):
    client = board.boot("client", devices=[disk()])
    ask(board, storage, client)
    board.dies(storage)
    assert board.hardware.named("release_medium") == [("release_medium", 1)]
    assert list(board.h.media.opened.values()) == []


def test_they_are_closed_when_the_client_is_gone(board, storage):
    client = board.boot("client", devices=[disk()], on_crash="destroy")
    ask(board, storage, client)
    board.dies(client)
    assert board.hardware.named("release_medium") == [("release_medium", 1)]
    assert list(board.h.media.opened.values()) == []
