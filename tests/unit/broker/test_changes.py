"""What is changed of a domain that exists: names wherever they stand, and what its next start is made of."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hvd.broker.dispatch import handle
from hvd.broker.errors import Refused
from hvd.transport import messages as m
from hvd.transport.codec import decode
from hvd.transport.ids import DOM0
from hvd.transport.messages import DeviceConfig, DomainConfig, GroupConfig

from .conftest import Board


@pytest.fixture
def driver(board):
    return board.boot("driver", driver_domain=True)


@pytest.fixture
def guest(board, driver):
    return board.boot("guest", after=["driver"], devices=[DeviceConfig("echo", 0, "driver")])


def call(board, message):
    return handle(board.h, DOM0, message, board.now).value


def config(board, dom) -> DomainConfig:
    found: DomainConfig = decode(DomainConfig, call(board, m.DomctlGetConfig(dom)), "config")
    return found


def test_a_renamed_backend_is_named_so_by_those_that_use_it(board, driver, guest):
    call(board, m.DomctlRename(driver, "storage"))
    found = config(board, guest)
    assert (found.after, [device.backend for device in found.devices]) == (["storage"], ["storage"])
    assert board.h.store.read(DOM0, 0, "/local/domain/1/name") == b"storage"
    board.dies(driver)
    board.started(driver)
    board.h.domain_ready(driver, board.now)
    assert board.h.domains[driver].name == "storage"


def test_a_renamed_guest_is_named_so_in_its_backends_directories(board, driver, guest):
    call(board, m.DomctlRename(guest, "ivi"))
    assert board.h.store.read(DOM0, 0, "/local/domain/1/backend/echo/2/0/domain") == b"ivi"
    assert config(board, guest).name == "ivi"
    told = [event for _, event in board.hardware.named("publish")]
    assert (guest, "renamed", "it was guest") in [(event.domid, event.event, event.detail) for event in told]


def test_a_renamed_member_is_restarted_with_its_group():
    board = Board(GroupConfig("g", ["a", "b"], strategy="one_for_all"))
    board.boot("Domain-0")
    a, b = board.boot("a"), board.boot("b")
    call(board, m.DomctlRename(a, "x"))
    assert [domain["group"] for domain in call(board, m.DomctlList())] == ["", "g", "g"]
    board.dies(b)
    assert (board.h.domains[a].life.name, board.h.waits_for(board.h.domains[b])) == ("DYING", ["x"])


def test_no_domain_can_have_a_groups_name():
    board = Board(GroupConfig("g", ["a"]))
    board.boot("Domain-0")
    a = board.boot("a")
    with pytest.raises(Refused, match="'g' is a group's name"):
        call(board, m.DomctlRename(a, "g"))
    with pytest.raises(Refused, match="'g' is a group's name"):
        board.create("g")


@pytest.mark.parametrize(
    ("dom", "name", "text"),
    [(2, "driver", "exists already"), (2, "no name", "is no name"),
     (2, "1", "'1' is no name for a domain: a number is a domid"), (0, "z", "keeps its name"), (9, "x", "no domain")],
)
def test_a_name_that_cannot_be_had_is_refused(board, guest, dom, name, text):
    with pytest.raises(Refused, match=text):
        call(board, m.DomctlRename(dom, name))
    assert board.h.domains[guest].name == "guest"


def test_a_configuration_is_for_the_next_start(board, guest):
    new = replace(config(board, guest), memory=128, on_crash="preserve")
    call(board, m.DomctlSetConfig(guest, new))
    assert config(board, guest) == new
    assert board.h.domains[guest].incarnation == 1


@pytest.mark.parametrize(
    ("fields", "text"),
    [({"name": "other"}, "`hvd rename` renames it"), ({"on_crash": "explode"}, "on_crash"), ({"after": ["x"]}, "'x'")],
)
def test_a_configuration_that_cannot_be_is_refused(board, guest, fields, text):
    before = config(board, guest)
    with pytest.raises(Refused, match=text):
        call(board, m.DomctlSetConfig(guest, replace(before, **fields)))
    assert config(board, guest) == before


def test_domain_0_is_made_of_what_its_machine_was_told(board):
    with pytest.raises(Refused, match="when the machine is started"):
        call(board, m.DomctlSetConfig(DOM0, config(board, DOM0)))


def test_a_uuid_is_a_domids_for_good_unless_one_was_given(board, guest):
    made = board.h.uuid(board.h.domains[guest])
    assert len(made) == 36
    assert [made[at] for at in (8, 13, 14, 18, 23)] == ["-", "-", "4", "-", "-"]
    board.dies(guest)
    assert board.h.uuid(board.h.domains[guest]) == made
    given = board.boot("given", uuid="59e1cf6c-6ab9-4879-90e7-adc8d1c63bf5")
    assert board.h.uuid(board.h.domains[given]) == "59e1cf6c-6ab9-4879-90e7-adc8d1c63bf5"


# ---- buttons ---------------------------------------------------------------------------------------------------------


def test_power_asks_and_reset_and_nmi_do_not(board, guest):
    call(board, m.DomctlTrigger(guest, "power"))
    assert board.h.store.read(DOM0, 0, "/local/domain/2/control/shutdown") == b"poweroff"
    assert board.h.domains[guest].life.name == "RUNNING"
    other = board.boot("other", on_reboot="preserve")
    call(board, m.DomctlTrigger(other, "reset"))
    board.dies(other)
    assert (board.h.domains[other].life.name, board.h.domains[other].last_death) == ("PRESERVED", "reboot: reset")
    third = board.boot("third", on_crash="preserve")
    call(board, m.DomctlTrigger(third, "nmi"))
    board.dies(third)
    assert board.h.domains[third].last_death == "crash: NMI"


@pytest.mark.parametrize(
    ("dom", "name", "text"),
    [(2, "sleep", "those that do are power, reset, nmi"), (0, "nmi", "Domain-0 has no"), (7, "nmi", "no domain")],
)
def test_a_button_that_is_not_there_cannot_be_pressed(board, guest, dom, name, text):
    with pytest.raises(Refused, match=text):
        call(board, m.DomctlTrigger(dom, name))


def test_a_letter_stands_in_the_store_and_its_domain_is_told(board, guest):
    call(board, m.DomctlSysrq(guest, "t"))
    assert board.h.store.read(DOM0, 0, "/local/domain/2/control/sysrq") == b"t"
    assert ("control/sysrq", "toolstack") in board.h.upcalls[guest].unsent


@pytest.mark.parametrize("letter", ["", "tt", "/", "é"])
def test_what_is_no_letter_is_refused(board, guest, letter):
    with pytest.raises(Refused, match="expected one letter"):
        call(board, m.DomctlSysrq(guest, letter))


def test_one_that_does_not_run_has_no_buttons_and_hears_nothing(board, guest):
    board.h.domains[guest].config = replace(board.h.domains[guest].config, on_crash="preserve")
    board.dies(guest)
    for message in (m.DomctlTrigger(guest, "nmi"), m.DomctlSysrq(guest, "t")):
        with pytest.raises(Refused, match="guest is preserved"):
            call(board, message)


def test_a_console_that_was_cleared_is_empty(board, guest):
    board.h.console.append("a line")
    call(board, m.SysctlClearConsole())
    assert call(board, m.SysctlReadConsole()) == []
