"""Which hypercalls the policy is asked about, as whom, and that a denied one has changed nothing."""

from __future__ import annotations

import errno
from dataclasses import fields, replace

import pytest

from hvd.broker.dispatch import handle
from hvd.broker.errors import Refused
from hvd.broker.sessions import Sessions
from hvd.broker.state import State
from hvd.broker.xsm_hooks import HOOKS
from hvd.transport import messages as m
from hvd.transport.codec import pack_call
from hvd.transport.ids import DOM0, DOMID_SELF, DomId, ExtentId, GrantRef, Handle, Port
from hvd.transport.xsm import CLASSES, EVERYTHING, OPEN_POLICY, spelled

NOWHERE = DomId(99)
NOTHING = replace(OPEN_POLICY, name="nothing", vectors=[0] * len(OPEN_POLICY.vectors))


@pytest.fixture
def guest(board):
    return board.boot("guest")


@pytest.fixture
def other(board, guest):
    return board.boot("other", seclabel="safety_t")


def call(board, caller, message):
    return handle(board.h, caller, message, board.now).value


def refusal(board, caller, message):
    with pytest.raises(Refused) as refused:
        handle(board.h, caller, message, board.now)
    return refused.value.errno


def only(class_name, permission, source="domU_t", target="safety_t"):
    """A policy that allows all but one thing to one label over another."""
    at = OPEN_POLICY.labels.index(source) * len(OPEN_POLICY.labels) + OPEN_POLICY.labels.index(target)
    vectors = [EVERYTHING] * len(OPEN_POLICY.vectors)
    vectors[at] &= ~next(bit for bit in (1 << n for n in range(32))
                         if spelled(bit) == ((class_name, (permission,)),))  # fmt: skip
    return replace(OPEN_POLICY, name="all-but-one", vectors=vectors)


def granted(board, owner, peer):
    extent = call(board, owner, m.GnttabAllocate(peer, 1))
    return extent, GrantRef(call(board, owner, m.GnttabShare(extent, 0, 1)))


def page(dom, ref):
    return m.CopyEnd(dom, ref, 0)


# ---- one permission at a time: (who asks, by what message, needs which) ----------------------------------------------


@pytest.fixture
def scene(board, guest, other):
    """Ports, pages and mappings from before the policy, and what the guest asks then."""
    open_port = call(board, other, m.EvtchnAllocUnbound(DOMID_SELF, guest))["port"]
    bound_port = call(board, other, m.EvtchnAllocUnbound(DOMID_SELF, guest))["port"]
    port = call(board, guest, m.EvtchnBindInterdomain(other, bound_port))["port"]
    _, theirs = granted(board, other, guest)
    _, ours = granted(board, guest, other)
    spare = call(board, guest, m.GnttabAllocate(other, 1))
    handle_number = call(board, guest, m.GnttabMap(other, theirs, 1, True))["handle"]
    copied_in = m.GnttabCopy([m.CopySegment(page(other, theirs), page(DOMID_SELF, ours), 8)])
    return {
        ("event", "create"): m.EvtchnAllocUnbound(DOMID_SELF, other),
        ("event", "bind"): m.EvtchnBindInterdomain(other, Port(open_port)),
        ("event", "send"): m.EvtchnSend(Port(port)),
        ("grant", "setup"): m.GnttabAllocate(other, 1),
        ("grant", "setup "): m.GnttabShare(ExtentId(spare), 0, 1),
        ("grant", "map_read"): m.GnttabMap(other, theirs, 1, False),
        ("grant", "map_write"): m.GnttabMap(other, theirs, 1, True),
        ("grant", "unmap"): m.GnttabUnmap(Handle(handle_number)),
        ("grant", "copy"): copied_in,
    }


GUESTS_ASK = [("event", "create"), ("event", "bind"), ("event", "send"), ("grant", "setup"), ("grant", "setup "),
              ("grant", "map_read"), ("grant", "map_write"), ("grant", "unmap")]  # fmt: skip


@pytest.mark.parametrize("needed", GUESTS_ASK, ids="".join)
def test_a_guests_hypercall_takes_one_permission(board, guest, scene, needed):
    class_name, permission = needed[0], needed[1].strip()
    board.h.xsm.load(DOM0, only(class_name, permission))
    board.hardware.calls.clear()
    assert refusal(board, guest, scene[needed]) == errno.EACCES
    ((_, source, line),) = board.hardware.calls  # nothing but the audit
    assert source == guest
    assert f"{{ {permission} }} for domid={guest} target=2 scontext=domU_t tcontext=safety_t" in line
    assert line.endswith(f"tclass={class_name} permissive=0")
    board.h.xsm.load(DOM0, only(class_name, permission, source="safety_t"))
    call(board, guest, scene[needed])


def test_a_copy_that_is_denied_has_the_status_of_its_segment(board, guest, other, scene):
    copy = scene["grant", "copy"]
    assert call(board, guest, copy) == [0]
    for one, another in (("domU_t", "safety_t"), ("safety_t", "domU_t")):
        board.h.xsm.load(DOM0, only("grant", "copy", one, another))
        board.hardware.calls.clear()
        assert call(board, guest, copy) == [-8]
        assert board.hardware.named("copy") == []


def test_a_driver_may_not_copy_between_two_that_may_not(board, guest, other):
    driver = board.boot("driver", driver_domain=True)
    (_, from_guest), (_, from_other) = granted(board, guest, driver), granted(board, other, driver)
    copy = m.GnttabCopy([m.CopySegment(page(guest, from_guest), page(other, from_other), 8)])
    assert call(board, driver, copy) == [0]
    board.h.xsm.load(DOM0, only("grant", "copy"))
    assert call(board, driver, copy) == [-8]


DOM0_ASKS = {
    "create": lambda dom: m.DomctlCreate(m.DomainConfig("new", "hvd:idle", seclabel="safety_t")),
    "pause": m.DomctlPause,
    "unpause": m.DomctlUnpause,
    "shutdown": lambda dom: m.DomctlShutdown(dom, False),
    "kill": m.DomctlKill,
    "fault": lambda dom: m.FaultBegin(dom, "kill"),
    "destroy": m.DomctlDestroy,
}


@pytest.mark.parametrize("permission", DOM0_ASKS)
def test_dom0_controls_a_domain_as_far_as_the_policy_lets_it(board, other, permission):
    if permission == "unpause":
        board.h.pause(other, board.now)
    board.h.xsm.load(DOM0, only("domain", permission, "dom0_t"))
    message = DOM0_ASKS[permission](other)
    assert refusal(board, DOM0, message) == errno.EACCES
    board.h.xsm.load(DOM0, OPEN_POLICY)
    call(board, DOM0, message)


def test_the_scenes_cover_every_permission(scene):
    about = {("event", "status"), ("event", "reset"), ("store", "read"), ("store", "write")}
    shown = {(class_name, permission.strip()) for class_name, permission in scene}
    shown |= {("domain", permission) for permission in DOM0_ASKS} | about
    assert shown == {(class_name, permission) for class_name, names in CLASSES.items() for permission in names}


@pytest.mark.parametrize("message", [m.EvtchnStatus, m.EvtchnReset], ids=lambda kind: kind.__name__)
def test_status_and_reset_of_another_domain_are_asked_for(board, guest, message):
    asked = message(guest, Port(1)) if message is m.EvtchnStatus else message(guest)
    board.h.xsm.load(DOM0, NOTHING)
    assert refusal(board, DOM0, asked) == errno.EACCES
    board.h.xsm.load(DOM0, OPEN_POLICY)
    call(board, DOM0, asked)


# ---- what holds for all ----------------------------------------------------------------------------------------------


def test_every_hypercall_that_names_another_domain_has_a_hook():
    naming = {
        kind for kind in m.HYPERCALLS.values()
        if {"dom", "remote_dom", "peer"} & {field.name for field in fields(kind)}
    }  # fmt: skip
    assert naming - HOOKS.keys() == {
        m.PhysdevOpenMedium,  # of a device that dom0 gave to both
        m.TraceRead,  # dom0's, of any domain, as the next is
        m.DomctlGetConfig,
    }


def test_with_no_rule_at_all_a_domain_still_deals_with_itself(board, guest):
    board.h.xsm.load(DOM0, NOTHING)
    extent = call(board, guest, m.GnttabAllocate(DOMID_SELF, 1))
    ref = GrantRef(call(board, guest, m.GnttabShare(extent, 0, 1)))
    handle_number = call(board, guest, m.GnttabMap(DOMID_SELF, ref, 1, True))["handle"]
    call(board, guest, m.GnttabUnmap(Handle(handle_number)))
    port = call(board, guest, m.EvtchnAllocUnbound(DOMID_SELF, DOMID_SELF))["port"]
    call(board, guest, m.EvtchnSend(call_bind(board, guest, port)))
    call(board, guest, m.EvtchnReset(DOMID_SELF))
    call(board, guest, m.StoreWrite(0, "data/x", b"1"))
    assert call(board, guest, m.StoreRead(0, "data/x")) == b"1"
    call(board, guest, m.DomctlShutdown(DOMID_SELF, False))


def call_bind(board, dom, port):
    return Port(call(board, dom, m.EvtchnBindInterdomain(dom, Port(port)))["port"])


def test_who_asks_for_what_does_not_exist_hears_that_it_does_not(board, guest):
    assert refusal(board, guest, m.EvtchnBindInterdomain(NOWHERE, Port(1))) == errno.ESRCH
    assert refusal(board, guest, m.GnttabMap(NOWHERE, GrantRef(8), 1, True)) == errno.ESRCH
    assert refusal(board, guest, m.GnttabUnmap(Handle(99))) == errno.EINVAL
    assert refusal(board, guest, m.GnttabShare(ExtentId(99), 0, 1)) == errno.EINVAL
    assert refusal(board, DOM0, m.EvtchnAllocUnbound(NOWHERE, DOM0)) == errno.ESRCH
    assert refusal(board, DOM0, m.DomctlPause(NOWHERE)) == errno.ESRCH


def test_privilege_comes_first_and_a_policy_gives_none(board, guest, other):
    board.h.xsm.load(DOM0, replace(OPEN_POLICY, vectors=[EVERYTHING] * len(OPEN_POLICY.vectors)))
    assert refusal(board, guest, m.DomctlPause(other)) == errno.EPERM


def test_what_was_made_before_a_policy_stays_and_can_be_given_back(board, guest, other, scene):
    board.h.xsm.load(DOM0, only("event", "bind"))
    assert call(board, guest, m.EvtchnSend(scene["event", "send"].port)) is None
    assert len(board.h.grants.tables[guest].mappings) == 1
    call(board, guest, scene["grant", "unmap"])


def test_getenforce_is_for_all_and_the_rest_for_dom0(board, guest):
    assert call(board, guest, m.XsmGetenforce()) == {"policy": "default", "enforcing": True}
    assert refusal(board, guest, m.XsmSetenforce(False)) == errno.EACCES
    assert refusal(board, guest, m.XsmLoad(NOTHING)) == errno.EACCES
    call(board, DOM0, m.XsmSetenforce(False))
    call(board, DOM0, m.XsmLoad(NOTHING))
    assert call(board, guest, m.XsmGetenforce()) == {"policy": "nothing", "enforcing": False}
    assert refusal(board, guest, m.XsmSetenforce(True)) == errno.EACCES
    facts = call(board, DOM0, m.SysctlPhysinfo())
    assert (facts["policy"], facts["enforcing"]) == ("nothing", False)


def test_an_entry_of_a_multicall_is_denied_by_itself(board, guest, other):
    call(board, DOM0, m.StoreSetPerms(0, f"/local/domain/{other}/data", [f"b{other}"]))
    board.h.xsm.load(DOM0, only("store", "read"))
    entries = [m.StoreRead(0, f"/local/domain/{other}/data"), m.StoreRead(0, "data")]
    replies = call(board, guest, m.Multicall([pack_call(entry) for entry in entries]))
    assert [code for code, *_ in replies] == [errno.EACCES, 0]


def test_the_list_shows_labels(board, guest, other):
    rows = {row["domid"]: row["seclabel"] for row in call(board, DOM0, m.DomctlList())}
    assert rows == {DOM0: "dom0_t", guest: "domU_t", other: "safety_t"}


def test_a_label_goes_with_its_domain(board, guest, other):
    board.h.destroy(other, board.now)
    board.dies(other)
    assert board.h.xsm.label(other) == "unlabeled_t"


def test_a_domain_that_is_kept_under_another_name_and_its_successor_have_one_label(board):
    dom = board.boot("guest", seclabel="safety_t", on_crash="rename-restart")
    board.dies(dom)
    assert [board.h.xsm.label(domid) for domid in board.h.domains] == ["dom0_t", "safety_t", "safety_t"]


def test_the_next_broker_has_policy_mode_and_labels(board, guest, other):
    board.h.xsm.load(DOM0, only("event", "bind"))
    board.h.xsm.set_enforcing(DOM0, enforcing=False)
    state = State(board.h, Sessions())
    records = [state.snapshot()]
    command = ["audited", 5, guest, "avc:  denied", 3]
    state.apply(command)
    records.append(state.record(command))
    successor = State.restore(records).hypervisor
    assert successor.xsm.policy == board.h.xsm.policy
    assert not successor.xsm.enforcing
    assert successor.xsm.label(other) == "safety_t"
    assert successor.console[-1] == board.h.console[-1] == "(XEN) avc:  denied"
    assert successor.denials == board.h.denials == {guest: 3}
    assert successor.store._engine._policy is successor.xsm
