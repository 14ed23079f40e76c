"""The hypervisor's part in sandboxes: what it checks, passes on, and makes of a report."""

import errno

import pytest

from hvd.broker import sandboxes
from hvd.broker.dispatch import handle
from hvd.broker.domain import Life
from hvd.broker.errors import Refused
from hvd.broker.sandboxes import REASON_MAX
from hvd.transport import messages as m
from hvd.transport.ids import DOM0
from hvd.transport.sandbox import LAYERS, Kind


def report(board, dom, **lacking):
    handle(board.h, dom, m.SandboxReport(lacking), board.now)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"sandbox": "guests"}, "sandbox = 'guests'"),
        ({"seccomp": "log"}, "seccomp = 'log'"),
        ({"sandbox_off": ["rot"]}, "sandbox_off names 'rot'"),
        ({"sandbox_require": ["rot"]}, "sandbox_require names 'rot'"),
        ({"paths": ["relative"]}, "paths names 'relative'"),
        ({"kernel": "/bin/sh", "driver_domain": True}, "is a program, which serves no devices"),
        ({"kernel": "/bin/sh", "sandbox": "guest"}, "is a program, which is in a sandbox of kind program"),
    ],
)
def test_what_there_is_not_is_refused_and_named(board, fields, named):
    with pytest.raises(Refused, match=named) as refused:
        board.create("guest", **fields)
    assert refused.value.errno == errno.EINVAL
    assert board.h.by_name("guest") is None


@pytest.mark.parametrize(
    ("fields", "kind"),
    [({}, Kind.GUEST), ({"driver_domain": True}, Kind.DRIVER), ({"sandbox": "program"}, Kind.PROGRAM),
     ({"kernel": "/bin/sh"}, Kind.PROGRAM)],
)
def test_a_domain_is_of_the_kind_that_its_config_says(board, fields, kind):
    assert sandboxes.kind_of(board.h.domains[board.create("guest", **fields)]) is kind


def test_domain_0_serves_consoles_whatever_it_is(board):
    assert sandboxes.kind_of(board.h.domains[DOM0]) is Kind.DRIVER


def test_a_network_domain_stays_in_the_hosts_network(board):
    domain = board.h.domains[board.create("net", sandbox="network", sandbox_off=["uts"])]
    assert sandboxes.layers_off(domain) == ["uts", "network"]


def test_a_report_is_taken_once_and_shown(board):
    guest = board.boot("guest")
    assert sandboxes.describe(board.h.domains[guest])["in_force"] == []
    report(board, guest, root="no mounts", nonsense="x")
    shown = sandboxes.describe(board.h.domains[guest])
    assert shown["lacking"] == {"root": "no mounts"}
    assert shown["in_force"] == [name for name in LAYERS if name != "root"]
    assert board.h.console[-1].startswith("(XEN) domain 1 guest: sandbox guest: user, pid")
    with pytest.raises(Refused, match="has reported its sandbox already"):
        report(board, guest)


def test_the_next_incarnation_reports_for_itself(board):
    guest = board.boot("guest")
    report(board, guest, root="no mounts")
    board.dies(guest)
    board.started(guest)
    report(board, guest)
    assert board.h.domains[guest].sandbox_lacking == {}


def test_a_reason_has_an_end(board):
    guest = board.boot("guest")
    report(board, guest, root="x" * 4000)
    assert len(board.h.domains[guest].sandbox_lacking["root"]) == sandboxes.REASON_MAX


def test_without_what_is_required_of_it_a_domain_fails_and_is_not_tried_again(board):
    guest = board.boot("guest", sandbox_require=["root", "seccomp"])
    report(board, guest, root="no mounts", uid="no root")
    board.dies(guest)
    domain = board.h.domains[guest]
    assert domain.life is Life.FAILED
    assert domain.last_death == "its sandbox lacks what is required of it: root: no mounts"


def test_domain_0_without_what_is_required_ends_the_machine(board):
    board.h.domains[DOM0].config.sandbox_require.append("seccomp")
    report(board, DOM0, seccomp="no library")
    board.dies(DOM0)
    assert board.h.stopping is False


def test_a_failed_one_that_is_booted_again_is_judged_again(board):
    guest = board.boot("guest", sandbox_require=["root"])
    report(board, guest, root="no mounts")
    board.dies(guest)
    board.h.request_shutdown(guest, reboot=True, grace_ms=0, now_ns=board.now)
    board.started(guest)
    report(board, guest)
    assert board.h.domains[guest].life is Life.RUNNING


def test_a_report_is_one_line_of_the_console_whatever_a_domain_writes_into_it(board):
    guest = board.boot("guest", sandbox_require=["root"])
    report(board, guest, root="none\n(XEN) domain 0 was destroyed\x1b[2J", uid="\0" * 600)
    domain = board.h.domains[guest]
    assert domain.sandbox_lacking["root"] == r"none\n(XEN) domain 0 was destroyed\x1b[2J"
    assert len(domain.sandbox_lacking["uid"]) <= REASON_MAX
    assert board.h.console[-1].isprintable()
    assert domain.refused.isprintable()
