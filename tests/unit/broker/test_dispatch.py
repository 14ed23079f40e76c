"""Hypercalls: who may make which, what each answers, and that a refused one changed nothing."""

import errno
from contextlib import suppress
from dataclasses import fields
from typing import get_args, get_origin, get_type_hints

import pytest

from hvd.broker import dispatch
from hvd.broker.answers import Answer
from hvd.broker.directories import NODES_MAX
from hvd.broker.dispatch import NAMES_MAX, TABLE, Privilege, handle, is_journaled
from hvd.broker.domain import Life
from hvd.broker.errors import Refused
from hvd.broker.event_channels import VIRQ_UPCALL
from hvd.broker.store.children import WideChildren
from hvd.transport import messages as m
from hvd.transport.codec import pack_call
from hvd.transport.ids import DOM0, DOMID_SELF, DomId, ExtentId, GrantRef, Handle, Port
from hvd.transport.limits import HYPERVISOR_LOG_LINES_MAX, PORTS_MAX, WATCHDOGS_MAX

S = 1_000_000_000


@pytest.fixture
def guest(board):
    return board.boot("guest")


@pytest.fixture
def other(board, guest):
    return board.boot("other")


def call(board, caller, message):
    """The value of a hypercall that is carried out."""
    return handle(board.h, caller, message, board.now).value


def refusal(board, caller, message):
    with pytest.raises(Refused) as refused:
        handle(board.h, caller, message, board.now)
    assert refused.value.text
    return refused.value.errno


# ---- the table -------------------------------------------------------------------------------------------------------

SELF_CALLS = {m.EvtchnAllocUnbound, m.EvtchnStatus, m.EvtchnReset, m.DomctlShutdown}
DOM0_CALLS = {
    m.DomctlCreate, m.DomctlDestroy, m.DomctlPause, m.DomctlUnpause, m.DomctlKill,
    m.DomctlGetConfig, m.DomctlSetConfig, m.DomctlRename, m.DomctlAttach, m.DomctlDetach, m.DomctlKeep,
    m.DomctlTrigger, m.DomctlSysrq, m.DomctlMemSet, m.DomctlMemMax, m.DomctlDumpCore, m.SysctlClearConsole,
    m.SysctlEvtchns, m.SysctlGrants, m.SysctlRings,
    m.MachineStop, m.SysctlReadConsole, m.SysctlPhysinfo, m.SysctlSandboxes, m.SysctlQuotas,
    m.SysctlEvents, m.SysctlNetworks, m.SysctlNetwork, m.SysctlVifs,
    m.TraceStart, m.TraceStop, m.TraceBuffers, m.TraceRead,
    m.FaultBegin, m.FaultEnd, m.FaultList, m.FaultCounts, m.MachineStrike,
}
READS = {
    m.XenVersion, m.MemoryReservation, m.EvtchnSend, m.EvtchnStatus, m.StoreDirectory, m.StoreRead, m.StoreReadAll,
    m.StoreGetPerms,
    m.DomctlList, m.SysctlReadConsole, m.SysctlPhysinfo, m.SysctlSandboxes, m.SysctlQuotas, m.TraceBuffers, m.TraceRead,
    m.DomctlGetConfig, m.SysctlEvtchns, m.SysctlGrants, m.SysctlRings,
    m.SysctlEvents, m.SysctlNetworks, m.SysctlNetwork, m.SysctlVifs, m.XsmGetenforce, m.FaultList, m.FaultCounts,
}


def about(kind, dom):
    """A message of a class, its domain `dom` and everything else as small as may be."""
    values = {int: 1, str: "/x", bool: False, bytes: b""}
    hints = get_type_hints(kind)
    given = {}
    for field in fields(kind):
        hint = hints[field.name]
        if field.name == "dom":
            given[field.name] = dom
        elif field.name == "config":
            given[field.name] = m.DomainConfig("new", "hvd:idle")
        elif field.name == "device":
            given[field.name] = m.DeviceConfig("vbd", 1, "new")
        elif get_origin(hint) is list:
            given[field.name] = []
        else:
            given[field.name] = values[get_args(hint)[0] if get_args(hint) else getattr(hint, "__supertype__", hint)]
    return kind(**given)


def test_every_hypercall_there_is_has_a_line():
    assert set(TABLE) == set(m.HYPERCALLS.values())


def test_dom0_alone_controls_and_a_guest_only_itself():
    privileges = {kind: entry.privilege for kind, entry in TABLE.items()}
    assert {kind for kind, privilege in privileges.items() if privilege is Privilege.DOM0} == DOM0_CALLS
    assert {kind for kind, privilege in privileges.items() if privilege is Privilege.SELF} == SELF_CALLS


@pytest.mark.parametrize("kind", sorted(DOM0_CALLS | SELF_CALLS, key=str), ids=lambda kind: kind.__name__)
def test_a_guest_is_refused_what_is_about_another_and_nothing_happens(board, guest, other, kind):
    board.hardware.calls.clear()
    assert refusal(board, guest, about(kind, other)) == errno.EPERM
    assert refusal(board, guest, about(kind, DOM0)) == errno.EPERM
    assert board.hardware.calls == []


def test_the_refusal_says_what_it_takes(board, guest, other):
    with pytest.raises(Refused, match=f"domain {guest} may not EvtchnReset: that takes domain 0, or its own domid"):
        handle(board.h, guest, m.EvtchnReset(other), board.now)
    with pytest.raises(Refused, match=f"domain {guest} may not DomctlPause: that takes domain 0"):
        handle(board.h, guest, m.DomctlPause(guest), board.now)


@pytest.mark.parametrize("dom", [DOMID_SELF, None])
def test_a_guest_names_itself_by_number_or_as_self(board, guest, dom):
    assert call(board, guest, m.EvtchnStatus(guest if dom is None else dom, Port(1)))["virq"] == VIRQ_UPCALL


def test_what_changes_anything_is_journaled():
    assert {kind for kind, entry in TABLE.items() if not entry.journaled} == READS


def test_a_read_inside_a_transaction_is_journaled_too():
    assert is_journaled(m.StoreRead(3, "/x"))
    assert not is_journaled(m.StoreRead(0, "/x"))


@pytest.mark.parametrize(("calls", "expected"), [
    ([], False),
    ([m.StoreRead(0, "/x"), m.StoreDirectory(0, "/x")], False),
    ([m.StoreRead(0, "/x"), m.StoreWrite(0, "/x", b"")], True),
    ([m.StoreRead(1, "/x")], True),
])
def test_a_multicall_is_journaled_if_one_of_its_entries_is(calls, expected):
    assert is_journaled(m.Multicall([pack_call(one) for one in calls])) is expected


@pytest.mark.parametrize("bad", [b"\xc1", b"", b"\x90", b"\x92\x01\x90", pack_call(m.StoreRead(0, "/x"))[:-1]])
def test_a_multicall_that_cannot_be_read_is_refused_as_a_whole(board, guest, bad):
    assert refusal(board, guest, m.Multicall([pack_call(m.StoreWrite(0, "data/x", b"1")), bad])) == errno.EBADMSG
    assert not is_journaled(m.Multicall([bad]))
    assert refusal(board, guest, m.StoreRead(0, "data/x")) == errno.ENOENT


def test_a_multicall_holds_store_operations_and_what_attaches_a_device_only(board, guest):
    for entry in (m.MachineStop(False), m.Multicall([]), m.DomctlKill(guest), m.StoreRing(), m.SchedShutdown(0)):
        assert refusal(board, guest, m.Multicall([pack_call(entry)])) == errno.EINVAL


def test_one_failing_entry_of_a_multicall_stops_none(board, guest):
    calls = [m.StoreWrite(0, "data/a", b"1"), m.StoreRead(0, "data/none"), m.StoreRead(0, "data/a")]
    replies = call(board, guest, m.Multicall([pack_call(one) for one in calls]))
    assert [code for code, *_ in replies] == [0, errno.ENOENT, 0]
    assert replies[2][1] == b"1"


def test_the_hosts_refusal_says_so(board, guest):
    board.hardware.refused = {"create_channel"}
    with pytest.raises(Refused, match="the host refused: Too many open files") as refused:
        handle(board.h, guest, m.EvtchnAllocUnbound(DOMID_SELF, DOM0), board.now)
    assert refused.value.errno == errno.EMFILE


# ---- event channels --------------------------------------------------------------------------------------------------


def test_a_ports_descriptors_are_the_page_and_its_own_two_ends(board, guest, other):
    answer = handle(board.h, guest, m.EvtchnAllocUnbound(DOMID_SELF, other), board.now)
    channel = board.h.channels.ports[guest][answer.value["port"]].channel
    key = f"channel:{channel}"
    assert answer == Answer({"port": 3, "side": 0}, ((key, 0), (key, 1), (key, 2)))
    bound = handle(board.h, other, m.EvtchnBindInterdomain(guest, answer.value["port"]), board.now)
    assert bound == Answer({"port": 3, "side": 1}, ((key, 0), (key, 3), (key, 4)))


def test_a_virqs_descriptors_are_the_page_and_the_reading_end(board, guest):
    answer = handle(board.h, guest, m.EvtchnBindVirq(0), board.now)
    assert [index for _, index in answer.descriptors] == [0, 1]


def test_dom0_opens_a_port_for_another_but_does_not_get_its_descriptors(board, guest, other):
    answer = handle(board.h, DOM0, m.EvtchnAllocUnbound(guest, other), board.now)
    assert answer.descriptors == ()
    assert answer.value["port"] in board.h.channels.ports[guest]


def test_a_port_is_opened_for_a_domain_that_exists(board, guest):
    assert refusal(board, guest, m.EvtchnAllocUnbound(DOMID_SELF, DomId(99))) == errno.ESRCH
    assert refusal(board, DOM0, m.EvtchnAllocUnbound(DomId(99), DOM0)) == errno.ESRCH


def test_the_upcall_port_is_neither_closed_nor_bound_again(board, guest):
    assert refusal(board, guest, m.EvtchnClose(Port(1))) == errno.EINVAL
    assert refusal(board, guest, m.EvtchnBindVirq(VIRQ_UPCALL)) == errno.EEXIST


def test_reset_closes_all_but_the_two_ports_a_domain_is_born_with(board, guest, other):
    for _ in range(3):
        call(board, guest, m.EvtchnAllocUnbound(DOMID_SELF, other))
    call(board, guest, m.EvtchnBindVirq(0))
    call(board, guest, m.EvtchnReset(DOMID_SELF))
    assert sorted(board.h.channels.ports[guest]) == [1, 2]
    assert refusal(board, DOM0, m.EvtchnReset(DomId(99))) == errno.ESRCH


def test_reset_closes_what_took_the_number_of_a_console_port_that_was_closed(board, guest, other):
    call(board, guest, m.EvtchnClose(Port(2)))
    assert call(board, guest, m.EvtchnAllocUnbound(DOMID_SELF, other))["port"] == 2
    call(board, guest, m.EvtchnReset(DOMID_SELF))
    assert sorted(board.h.channels.ports[guest]) == [1]


def test_a_domain_that_was_reset_before_its_birth_is_still_born(board):
    dom = board.create("paused", paused=True)
    board.started(dom)
    call(board, DOM0, m.EvtchnReset(dom))
    call(board, DOM0, m.DomctlUnpause(dom))
    extent, console, upcall = board.h.console_descriptors(board.h.domains[dom])
    assert extent in board.h.grants.tables[dom].extents
    assert console != upcall


def test_a_guest_sees_the_status_of_its_own_ports(board, guest):
    assert call(board, guest, m.EvtchnStatus(DOMID_SELF, Port(999)))["status"] == 0
    assert refusal(board, DOM0, m.EvtchnStatus(DomId(99), Port(1))) == errno.ESRCH
    assert refusal(board, guest, m.EvtchnStatus(DOMID_SELF, Port(PORTS_MAX + 1))) == errno.EINVAL


# ---- grants ----------------------------------------------------------------------------------------------------------


def granted(board, owner, peer, pages=2, *, readonly=False):
    extent = call(board, owner, m.GnttabAllocate(peer, pages, readonly))
    return extent, call(board, owner, m.GnttabShare(ExtentId(extent), 0, pages))


@pytest.mark.parametrize(("readonly", "index"), [(False, 0), (True, 1)])
def test_the_owner_gets_a_writable_descriptor_and_the_mapper_the_grants_mode(board, guest, other, readonly, index):
    answer = handle(board.h, guest, m.GnttabAllocate(other, 2, readonly), board.now)
    key = f"extent:{answer.value}"
    assert answer.descriptors == ((key, 0),)
    ref = call(board, guest, m.GnttabShare(answer.value, 0, 2))
    mapped = handle(board.h, other, m.GnttabMap(guest, ref, 0, False), board.now)
    assert mapped.descriptors == ((key, index),)
    assert mapped.value == {
        "handle": 1, "extent": answer.value, "ref": ref, "count": 2, "first_page": 0, "pages": 2, "readonly": readonly,
    }
    assert handle(board.h, other, m.GnttabMap(guest, ref, 1, False), board.now).descriptors == ()


def test_pages_are_made_for_a_domain_that_exists(board, guest):
    assert refusal(board, guest, m.GnttabAllocate(DomId(99), 1)) == errno.ESRCH


def test_notify_fields_of_zero_mean_none(board, guest, other):
    extent, ref = granted(board, guest, other)
    mapped = call(board, other, m.GnttabMap(guest, GrantRef(ref), 0, True))
    call(board, other, m.GnttabUnmapNotify(mapped["handle"], 0, False, 0))
    call(board, guest, m.GnttabShareNotify(ExtentId(extent), 0, False, 0))
    board.hardware.calls.clear()
    board.dies(other)
    board.dies(guest)
    assert not board.hardware.named("clear_byte")


def test_a_clear_at_offset_zero_is_one(board, guest, other):
    extent, ref = granted(board, guest, other)
    mapped = call(board, other, m.GnttabMap(guest, GrantRef(ref), 0, True))
    call(board, other, m.GnttabUnmapNotify(mapped["handle"], 0, True, 0))
    call(board, other, m.GnttabUnmap(mapped["handle"]))
    assert board.hardware.named("clear_byte") == [("clear_byte", extent, 0)]


def segment(from_dom, from_ref, to_dom, to_ref, *, source=0, target=0, length=16):
    ends = m.CopyEnd(from_dom, GrantRef(from_ref), source), m.CopyEnd(to_dom, GrantRef(to_ref), target)
    return m.CopySegment(*ends, length)


def test_each_segment_of_a_copy_has_its_own_status(board, guest, other):
    out, out_ref = granted(board, guest, other)
    sealed, sealed_ref = granted(board, guest, other, readonly=True)
    own, own_ref = granted(board, other, guest)
    stranger = board.boot("stranger")
    foreign, foreign_ref = granted(board, stranger, guest)
    segments = [
        segment(guest, out_ref + 1, DOMID_SELF, own_ref, source=4000, target=80, length=96),
        segment(guest, sealed_ref, other, own_ref),
        segment(DOMID_SELF, own_ref, guest, sealed_ref),
        segment(guest, 99, DOMID_SELF, own_ref),
        segment(DomId(99), 8, DOMID_SELF, own_ref),
        segment(stranger, foreign_ref, DOMID_SELF, own_ref),
        segment(guest, out_ref, DOMID_SELF, own_ref, source=4081, length=16),
        segment(guest, out_ref, DOMID_SELF, own_ref, target=4090, length=16),
        segment(guest, out_ref, DOMID_SELF, own_ref, length=0),
    ]
    assert call(board, other, m.GnttabCopy(segments)) == [0, 0, -8, -3, -2, -8, -10, -10, -10]
    assert board.hardware.named("copy") == [
        ("copy", out, 4096 + 4000, own, 80, 96), ("copy", sealed, 0, own, 0, 16),
    ]
    assert foreign


# ---- sched, time, console --------------------------------------------------------------------------------------------


def test_a_domain_has_watchdogs_max_watchdogs_numbered_from_one(board, guest):
    assert [call(board, guest, m.SchedWatchdog(0, 5)) for _ in range(WATCHDOGS_MAX)] == [1, 2]
    assert refusal(board, guest, m.SchedWatchdog(0, 5)) == errno.ENOSPC
    call(board, guest, m.SchedWatchdog(1, 0))
    assert call(board, guest, m.SchedWatchdog(0, 5)) == 1


@pytest.mark.parametrize(("number", "timeout"), [(0, 0), (1, 5), (3, 5), (2**32 - 1, 0)])
def test_a_watchdog_that_is_not_armed_is_neither_petted_nor_disarmed(board, guest, number, timeout):
    assert refusal(board, guest, m.SchedWatchdog(number, timeout)) == errno.EINVAL


def test_a_watchdog_that_is_petted_bites_later(board, guest):
    number = call(board, guest, m.SchedWatchdog(0, 2))
    board.after(S)
    call(board, guest, m.SchedWatchdog(number, 2))
    board.after(1_900_000_000)
    assert board.h.domains[guest].life is Life.RUNNING
    board.after(S)
    assert board.h.domains[guest].life is Life.DYING


def test_a_timer_is_armed_and_disarmed(board, guest):
    call(board, guest, m.SetTimer(5 * S))
    assert board.h.next_deadline_ns() == board.now + 5 * S
    call(board, guest, m.SetTimer(0))
    assert board.h.next_deadline_ns() is None


def test_lines_on_the_hypervisors_console_name_their_domain_and_are_bounded(board, guest):
    call(board, guest, m.ConsoleIo("one\ntwo\n"))
    call(board, guest, m.ConsoleIo("(d0) not really\n"))
    expected = [f"(d{guest}) {line}" for line in ("one", "two", "(d0) not really")]
    assert call(board, DOM0, m.SysctlReadConsole()) == expected
    for n in range(HYPERVISOR_LOG_LINES_MAX):
        call(board, guest, m.ConsoleIo(str(n)))
    lines = call(board, DOM0, m.SysctlReadConsole())
    assert (len(lines), lines[0]) == (HYPERVISOR_LOG_LINES_MAX, f"(d{guest}) 0")


def test_the_version_tells_a_domain_who_it_is(board, guest):
    version = call(board, guest, m.XenVersion())
    assert (version["domid"], version["incarnation"], version["page_size"]) == (guest, 1, 4096)


# ---- control ---------------------------------------------------------------------------------------------------------


def test_a_guest_lists_itself_and_dom0_everybody(board, guest, other):
    assert [row["domid"] for row in call(board, guest, m.DomctlList())] == [guest]
    assert [row["domid"] for row in call(board, DOM0, m.DomctlList())] == [DOM0, guest, other]


def test_a_domain_that_ended_is_not_listed_as_ready(board):
    dom = board.boot("ivi", on_crash="preserve")
    board.dies(dom)
    (row,) = [row for row in call(board, DOM0, m.DomctlList()) if row["domid"] == dom]
    assert (row["state"], row["ready"], row["pid"]) == ("preserved", False, None)
    assert row["last_death"] == "killed by SIGKILL"


def test_physinfo_counts_what_is_in_use(board, guest, other):
    before = call(board, DOM0, m.SysctlPhysinfo())
    _, ref = granted(board, guest, other, pages=3)
    call(board, other, m.GnttabMap(guest, GrantRef(ref), 0, True))
    call(board, guest, m.EvtchnAllocUnbound(DOMID_SELF, other))
    after = call(board, DOM0, m.SysctlPhysinfo())
    grown = {key: after[key] - before[key] for key in ("ports", "granted_pages", "mappings", "extents", "domains")}
    assert grown == {"ports": 1, "granted_pages": 3, "mappings": 1, "extents": 1, "domains": 0}


def test_a_guest_may_shut_itself_down(board, guest):
    call(board, guest, m.DomctlShutdown(DOMID_SELF, True, 100))
    assert board.h.domains[guest].kill_at_ns is not None


@pytest.mark.parametrize("message", [
    m.EvtchnClose(Port(9)),
    m.EvtchnSend(Port(9)),
    m.EvtchnBindInterdomain(DomId(99), Port(1)),
    m.EvtchnBindVirq(77),
    m.GnttabShare(ExtentId(99), 0, 1),
    m.GnttabEndAccess(GrantRef(99), 1),
    m.GnttabFree(ExtentId(99)),
    m.GnttabMap(DomId(99), GrantRef(8), 1, True),
    m.GnttabUnmap(Handle(99)),
    m.GnttabUnmapNotify(Handle(99), 0, True, 0),
    m.GnttabShareNotify(ExtentId(99), 0, True, 0),
    m.StoreRead(0, "/none"),
    m.StoreRead(7, "/none"),
    m.StoreTransactionEnd(7, True),
    m.StoreUnwatch("/x", "t"),
    m.StoreWrite(0, "/tool/x", b"1"),
], ids=lambda message: type(message).__name__)
def test_a_refused_hypercall_touches_nothing(board, guest, message):
    board.hardware.calls.clear()
    refusal(board, guest, message)
    assert board.hardware.calls == []


def test_a_directory_is_read_at_once_as_far_as_the_caller_may(board, guest, other):
    home = f"/local/domain/{guest}/data"
    for name, owner in (("one", guest), ("two", guest), ("hidden", other)):
        board.h.store.write(DOM0, 0, f"{home}/{name}", name.encode())
        board.h.store.set_perms(DOM0, 0, f"{home}/{name}", [f"n{owner}"])
    assert call(board, guest, m.StoreReadAll(home)) == {"one": b"one", "two": b"two"}
    assert refusal(board, guest, m.StoreReadAll(f"{home}/nothing")) == errno.ENOENT


def test_reading_all_children_of_a_directory_stops_at_read_all_max(board, guest):
    home = f"/local/domain/{guest}/data"
    names = [f"k{n:03}" for n in range(NODES_MAX + 1)]
    for name in names:
        call(board, guest, m.StoreWrite(0, f"{home}/{name}", b"v"))
    assert list(call(board, guest, m.StoreReadAll(home))) == names[:NODES_MAX]


def test_a_directory_of_more_than_names_max_is_not_listed_by_one_hypercall(board, guest, monkeypatch):
    monkeypatch.setattr(dispatch, "NAMES_MAX", 5)
    listed, read = m.StoreDirectory(0, "/wide"), m.StoreReadAll("/wide")
    for number in range(5):
        board.h.store.write(DOM0, 0, f"/wide/{number}", b"v")
    assert call(board, DOM0, listed) == [str(number) for number in range(5)]
    board.h.store.write(DOM0, 0, "/wide/5", b"v")
    assert refusal(board, DOM0, listed) == errno.E2BIG and len(call(board, DOM0, read)) == 6


@pytest.mark.parametrize("message", [m.StoreDirectory(0, "/wide"), m.StoreReadAll("/wide")])
def test_nobody_walks_all_names_of_a_wide_directory_for_one_hypercall(board, guest, monkeypatch, message):
    for number in range(NAMES_MAX + 1):
        board.h.store.write(DOM0, 0, f"/wide/{number}", b"")
    walked, walk = [], WideChildren.__iter__

    def walking(self):
        for name in walk(self):
            walked.append(name)
            yield name

    monkeypatch.setattr(WideChildren, "__iter__", walking)
    with suppress(Refused):
        call(board, DOM0, message)
    assert len(walked) <= NODES_MAX


def test_a_watch_that_is_to_bring_keys_does_so_until_it_is_taken_back(board, guest):
    path = f"/local/domain/{guest}/data/state"
    call(board, guest, m.StoreWatch(path, "plain"))
    call(board, guest, m.StoreWatch(path, "follows", True))
    queue = board.h.upcalls[guest]
    assert queue.follows == {"follows": f"/local/domain/{guest}/data"}
    call(board, guest, m.StoreUnwatch(path, "follows"))
    assert queue.follows == {}
    with pytest.raises(Refused):
        call(board, guest, m.StoreWatch("no//path", "t", True))
    assert queue.follows == {}
