"""A core of a domain that lives on: paused for it, let go when it is over, whoever wants what meanwhile."""

from __future__ import annotations

import pytest

from hvd.broker import live_dumps
from hvd.broker.dispatch import handle
from hvd.broker.domain import Life
from hvd.broker.errors import Refused
from hvd.transport import messages as m
from hvd.transport.ids import DOM0


@pytest.fixture
def guest(board):
    return board.boot("guest", on_crash="preserve")


def call(board, message):
    return handle(board.h, DOM0, message, board.now).value


def dump(board, guest):
    call(board, m.DomctlDumpCore(guest, "/tmp/guest.core"))


def over(board, guest, said="core: /tmp/guest.core"):
    domain = board.h.domains[guest]
    live_dumps.over(board.h, guest, domain.incarnation, said, board.now)


def heard(board) -> list[str]:
    return [event.detail for _, event in board.hardware.named("publish") if event.event == "core dumped"]


def life(board, guest) -> Life:
    found: Life = board.h.domains[guest].life
    return found


def test_a_domain_stands_still_while_its_core_is_written_and_then_goes_on(board, guest):
    dump(board, guest)
    assert life(board, guest) is Life.PAUSED
    assert [call[0] for call in board.hardware.named("signal_domain", "dump_live_domain")][-2:] == [
        "signal_domain", "dump_live_domain",
    ]  # fmt: skip
    board.after(5 * 10**9)
    over(board, guest)
    assert life(board, guest) is Life.RUNNING
    assert board.h.domains[guest].clock.paused_ns == 5 * 10**9
    assert heard(board) == ["core: /tmp/guest.core"]


def test_one_that_was_paused_stays_so(board, guest):
    call(board, m.DomctlPause(guest))
    dump(board, guest)
    over(board, guest, "no core: No space left on device")
    assert life(board, guest) is Life.PAUSED
    assert heard(board) == ["no core: No space left on device"]


@pytest.mark.parametrize(
    ("wishes", "then"),
    [
        ([m.DomctlPause], Life.PAUSED),
        ([m.DomctlPause, m.DomctlUnpause], Life.RUNNING),
        ([m.DomctlUnpause], Life.RUNNING),
    ],
)
def test_who_pauses_or_unpauses_it_meanwhile_has_his_way_when_it_is_over(board, guest, wishes, then):
    dump(board, guest)
    for wish in wishes:
        call(board, wish(guest))
        assert life(board, guest) is Life.PAUSED
    over(board, guest)
    assert life(board, guest) is then


def test_a_second_pause_is_refused_as_ever(board, guest):
    call(board, m.DomctlPause(guest))
    dump(board, guest)
    with pytest.raises(Refused, match="is paused: cannot pause"):
        call(board, m.DomctlPause(guest))


def test_one_core_at_a_time(board, guest):
    dump(board, guest)
    with pytest.raises(Refused, match=r"is being written to /tmp/guest\.core"):
        call(board, m.DomctlDumpCore(guest, "/tmp/other.core"))
    over(board, guest)
    dump(board, guest)


@pytest.mark.parametrize("path", ["", "guest.core", "./x", "/", "/tmp/", "/tmp/.", "/..", "/tmp/a\0b"])
def test_what_is_no_absolute_path_of_a_file_is_refused_before_the_machine_hears_of_it(board, guest, path):
    with pytest.raises(Refused, match="is no absolute path of a file"):
        call(board, m.DomctlDumpCore(guest, path))
    assert life(board, guest) is Life.RUNNING


def test_what_does_not_run_has_nothing_to_dump(board, guest):
    board.dies(guest)
    with pytest.raises(Refused, match="is preserved: there is nothing to dump"):
        dump(board, guest)
    waiting = board.create("waiting")
    with pytest.raises(Refused, match="is starting: there is nothing to dump"):
        dump(board, waiting)


def test_whoever_waits_for_the_core_of_one_that_dies_hears_of_it(board, guest):
    dump(board, guest)
    incarnation = board.h.domains[guest].incarnation
    board.dies(guest)
    live_dumps.over(board.h, guest, incarnation, "core: /tmp/guest.core", board.now)
    assert heard(board) == ["no core: it ended before its core was written"]


def test_a_successor_is_not_let_go_for_its_predecessors_core(board):
    guest = board.boot("guest", on_crash="restart")
    dump(board, guest)
    incarnation = board.h.domains[guest].incarnation
    board.dies(guest)
    board.started(guest)
    call(board, m.DomctlPause(guest))
    live_dumps.over(board.h, guest, incarnation, "core: /tmp/guest.core", board.now)
    assert life(board, guest) is Life.PAUSED


def test_one_that_is_asked_to_stop_meanwhile_stops_when_it_goes_on(board, guest):
    dump(board, guest)
    board.h.request_shutdown(guest, reboot=False, grace_ms=5000, now_ns=board.now)
    assert life(board, guest) is Life.PAUSED
    over(board, guest)
    assert life(board, guest) is Life.RUNNING
