"""Faults in the tables: what is refused, what each does to the world, and that each is over whoever began it."""

from __future__ import annotations

import errno
import pickle

import pytest

from hvd.broker.corruption import PAGE_BYTES
from hvd.broker.dispatch import handle
from hvd.broker.errors import Refused
from hvd.broker.fault_steps import SIGABRT, SIGCONT, SIGKILL, SIGSEGV, SIGSTOP
from hvd.broker.hardware import NoHardware
from hvd.transport import messages as m
from hvd.transport.faults import (
    CONSOLE_BITS,
    FAMILY,
    SLOTS_BITS,
    SLOW_PERIOD_MS,
    STORE_BITS,
    ControlWord,
    Family,
    FaultKind,
    RingKind,
    words_of,
)
from hvd.transport.ids import DOM0, GRANT_REF_CONSOLE, GRANT_REF_XENSTORE, DomId
from hvd.transport.limits import EXTENTS_MAX, FAULT_S_MAX, FAULTS_MAX
from hvd.transport.rings import RING_CHECKS

MS = 1_000_000
LASTING = [kind for kind in FaultKind if FAMILY[kind] is not Family.MOMENT and kind is not FaultKind.EXIT]


@pytest.fixture
def victim(board):
    dom = board.boot("victim", restart=m.RestartPolicy(limit=0))
    board.hardware.calls.clear()
    return dom


def call(board, message):
    return handle(board.h, DOM0, message, board.now).value


def begin(board, dom, kind, for_ms=1000, **fields):
    return call(board, m.FaultBegin(dom, kind, for_ms, **fields))


def refusal(board, message):
    with pytest.raises(Refused) as refused:
        call(board, message)
    return refused.value


def signals(board):
    return [number for _, _, number in board.hardware.named("signal_domain")]


def announced(board):
    published = [event for _, event in board.hardware.named("publish")]
    return [(each.event, each.detail) for each in published if each.event.startswith("fault")]


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_a_kind_that_there_is_not_is_refused_with_those_there_are(board, victim):
    refused = refusal(board, m.FaultBegin(victim, "gremlins", 1))
    assert refused.errno == errno.EINVAL
    assert "no fault 'gremlins'; there are: kill, segv," in refused.text


@pytest.mark.parametrize("kind", LASTING)
def test_what_lasts_takes_a_time_and_not_more_than_fault_s_max(board, victim, kind):
    assert refusal(board, m.FaultBegin(victim, kind, 0)).errno == errno.EINVAL
    too_long = refusal(board, m.FaultBegin(victim, kind, FAULT_S_MAX * 1000 + 1))
    assert too_long.errno == errno.EINVAL
    assert f"{FAULT_S_MAX} s is the most" in too_long.text
    assert board.h.faults.active == {}
    assert board.hardware.calls == []


def test_a_domain_without_a_process_is_no_victim(board):
    waiting = board.create("waiting", after=["Domain-0"])
    refused = refusal(board, m.FaultBegin(waiting, FaultKind.KILL))
    assert refused.errno == errno.ESRCH
    assert "domain waiting is starting: it has no process" in refused.text
    assert refusal(board, m.FaultBegin(DomId(99), FaultKind.KILL)).errno == errno.ESRCH


@pytest.mark.parametrize("kind", [FaultKind.HANG, FaultKind.SLOW, FaultKind.BUSY])
def test_what_would_not_show_in_a_paused_domain_is_refused(board, victim, kind):
    board.h.pause(victim, board.now)
    assert refusal(board, m.FaultBegin(victim, kind, 1)).errno == errno.EINVAL


def test_a_domain_has_one_fault_of_a_family_and_others_beside_it(board, victim):
    first = begin(board, victim, FaultKind.HANG)
    refused = refusal(board, m.FaultBegin(victim, FaultKind.SLOW, 1))
    assert refused.errno == errno.EBUSY
    assert f"domain {victim} has fault {first}, hang, which slow cannot be added to" in refused.text
    begin(board, victim, FaultKind.DROP_EVENTS)
    begin(board, victim, FaultKind.DROP_HYPERCALLS)
    begin(board, victim, FaultKind.KILL, 0)
    assert len(board.h.faults.active) == 3


def test_no_more_than_faults_max_are_under_way(board, victim):
    begin(board, victim, FaultKind.HANG)
    fault = board.h.faults.active[1]
    board.h.faults.active.update({100 + n: fault for n in range(FAULTS_MAX - 1)})
    refused = refusal(board, m.FaultBegin(DOM0, FaultKind.DROP_EVENTS, 1))
    assert refused.errno == errno.ENOSPC
    assert f"{FAULTS_MAX} faults are under way" in refused.text


# ---- what each does, and undoes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "number"), [
    (FaultKind.KILL, SIGKILL), (FaultKind.SEGV, SIGSEGV), (FaultKind.ABORT, SIGABRT),
])  # fmt: skip
def test_a_death_is_its_signal_and_over(board, victim, kind, number):
    begin(board, victim, kind, 0, seed=7)
    assert signals(board) == [number]
    assert board.h.faults.active == {}
    assert announced(board) == [("fault injected", f"1: {kind}, seed 7")]


def test_a_hang_is_over_when_its_time_is_whoever_began_it(board, victim):
    begin(board, victim, FaultKind.HANG, 500)
    assert board.h.next_deadline_ns() == board.now + 500 * MS
    board.after(499 * MS)
    assert signals(board) == [SIGSTOP]
    board.after(MS)
    assert signals(board) == [SIGSTOP, SIGCONT]
    assert [event for event, _ in announced(board)] == ["fault injected", "fault over"]
    assert board.h.next_deadline_ns() is None


def test_a_fault_is_ended_before_its_time_and_once(board, victim):
    number = begin(board, victim, FaultKind.HANG)
    call(board, m.FaultEnd(victim, number))
    call(board, m.FaultEnd(victim, number))
    assert signals(board) == [SIGSTOP, SIGCONT]


def test_a_fault_is_ended_under_its_own_victims_name_only(board, victim):
    number = begin(board, victim, FaultKind.HANG)
    assert refusal(board, m.FaultEnd(DOM0, number)).errno == errno.EINVAL
    assert number in board.h.faults.active


def test_a_slow_domain_is_stopped_for_its_share_of_each_period(board, victim):
    begin(board, victim, FaultKind.SLOW, 100, rate=750)
    for _ in range(2):
        board.after(SLOW_PERIOD_MS * 750 // 1000 * MS)
        board.after(SLOW_PERIOD_MS * 250 // 1000 * MS)
    assert signals(board) == [SIGSTOP, SIGCONT, SIGSTOP, SIGCONT, SIGSTOP]
    board.after(100 * MS)
    assert signals(board)[-1] == SIGCONT


def test_a_slow_domain_that_is_paused_stays_stopped_in_every_part_of_its_period_and_behind_it(board, victim):
    begin(board, victim, FaultKind.SLOW, 100, rate=750)
    board.h.pause(victim, board.now)
    for _ in range(4):
        board.after(SLOW_PERIOD_MS * 250 // 1000 * MS)
    board.after(100 * MS)
    assert SIGCONT not in signals(board)
    board.h.unpause(victim, board.now)
    assert signals(board)[-1] == SIGCONT


def test_a_domain_that_is_paused_and_unpaused_while_it_hangs_goes_on_hanging(board, victim):
    begin(board, victim, FaultKind.HANG, 500)
    board.h.pause(victim, board.now)
    board.h.unpause(victim, board.now)
    assert SIGCONT not in signals(board)
    board.h.pause(victim, board.now)
    board.after(500 * MS)
    assert SIGCONT not in signals(board), "it is paused: that its hang is over does not unpause it"
    board.h.unpause(victim, board.now)
    assert signals(board)[-1] == SIGCONT


@pytest.mark.parametrize("kind", [k for k in LASTING if FAMILY[k] in (Family.ORDER, Family.EVENTS, Family.HYPERCALLS)])
def test_what_the_world_begins_the_world_ends(board, victim, kind):
    number = begin(board, victim, kind, 500, seed=3, rate=20, amount=5)
    ((_, domain, fault),) = board.hardware.named("begin_fault")
    assert (domain.domid, fault.number, fault.seed, fault.rate, fault.amount) == (victim, number, 3, 20, 5)
    assert fault.ends_ns == board.now + 500 * MS
    board.after(500 * MS)
    assert len(board.hardware.named("end_fault")) == 1


def test_an_exit_is_ordered_and_is_not_under_way(board, victim):
    begin(board, victim, FaultKind.EXIT, 0)
    assert len(board.hardware.named("begin_fault")) == 1
    assert board.h.faults.active == {}


def test_all_extents_are_taken_and_given_back(board, victim):
    before = len(board.h.grants.tables[victim].extents)
    begin(board, victim, FaultKind.FILL_SHM, 500)
    assert len(board.h.grants.tables[victim].extents) == EXTENTS_MAX
    with pytest.raises(Refused) as refused:
        handle(board.h, victim, m.GnttabAllocate(DOM0, 1), board.now)
    assert refused.value.errno == errno.ENOSPC
    board.after(500 * MS)
    assert len(board.h.grants.tables[victim].extents) == before


@pytest.mark.parametrize("kind", LASTING)
def test_a_fault_is_over_with_its_victims_process_and_nothing_is_signalled(board, victim, kind):
    begin(board, victim, kind)
    board.hardware.calls.clear()
    board.dies(victim)
    assert board.h.faults.active == {}
    assert signals(board) == []
    assert [event for event, _ in announced(board)] == ["fault over"]
    board.started(victim)
    assert begin(board, victim, kind) == 2


# ---- bits ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def disk_user(board, victim):
    """The victim's neighbour, with a ring and a page of data."""
    device = m.DeviceConfig("vbd", 51712, "victim")
    dom = board.boot("user", devices=[device])
    shares = {}
    for what in ("ring", "data"):
        extent = handle(board.h, dom, m.GnttabAllocate(victim, 2), board.now).value
        shares[what] = extent, handle(board.h, dom, m.GnttabShare(extent, 0, 2), board.now).value
    ref = shares["ring"][1]
    handle(board.h, dom, m.StoreWrite(0, "device/vbd/51712/ring-ref", str(ref + 1).encode()), board.now)
    return dom, shares["ring"][0], shares["data"][0]


def flipped(board):
    return [bits for _, _, _, bits in board.hardware.named("flip_bits")]


@pytest.mark.parametrize("word", words_of(RingKind.DEVICE))
def test_a_rings_bit_is_one_of_the_word_beyond_any_index(board, disk_user, word):
    dom, ring, _ = disk_user
    for seed in range(200):
        begin(board, dom, FaultKind.CORRUPT_RING, 0, seed=seed, amount=word)
    places = [bit for bits in flipped(board) for bit in bits]
    assert {extent for extent, _, _ in places} == {ring}
    numbers = {8 * (offset - PAGE_BYTES - word.offset) + bit for _, offset, bit in places}
    assert numbers == set(range(SLOTS_BITS, 32)), "the ring is the second page of its extent"


@pytest.mark.parametrize(("told", "bits"), [(b"1", range(32)), (b"0", range(SLOTS_BITS, 32))])
def test_any_bit_of_a_ring_whose_ends_keep_checks_may_be_flipped(board, disk_user, told, bits):
    dom, _, _ = disk_user
    handle(board.h, dom, m.StoreWrite(0, f"device/vbd/51712/{RING_CHECKS}", told), board.now)
    for seed in range(300):
        begin(board, dom, FaultKind.CORRUPT_RING, 0, seed=seed, amount=ControlWord.REQ_PROD)
    assert {8 * (offset - PAGE_BYTES) + bit for each in flipped(board) for _, offset, bit in each} == set(bits)


def test_the_seed_alone_decides_which_bits_and_without_a_word_which_word(board, disk_user):
    dom, _, data = disk_user
    for seed in (1, 1, 2):
        begin(board, dom, FaultKind.CORRUPT_PAGE, 0, seed=seed, amount=50)
    one, same, other = flipped(board)
    assert one == same != other
    assert {extent for extent, _, _ in one + other} == {data}
    assert all(0 <= offset < 2 * PAGE_BYTES and 0 <= bit < 8 for _, offset, bit in one + other)
    board.hardware.calls.clear()
    for seed in range(20):
        begin(board, dom, FaultKind.CORRUPT_RING, 0, seed=seed)
    words = {(offset - PAGE_BYTES) // 4 * 4 for bits in flipped(board) for _, offset, _ in bits}
    assert words == {word.offset for word in words_of(RingKind.DEVICE)}


def bits_of(board, dom, word, tries=300):
    """(extents, bits of the word) that so many seeds have hit."""
    for seed in range(tries):
        begin(board, dom, FaultKind.CORRUPT_RING, 0, seed=seed, amount=word)
    places = [place for each in flipped(board) for place in each]
    return {extent for extent, _, _ in places}, {8 * (offset - word.offset) + bit for _, offset, bit in places}


@pytest.mark.parametrize("word", words_of(RingKind.CONSOLE))
def test_of_a_consoles_words_domain_0s_bear_only_bits_beyond_any_index(board, victim, word):
    page = board.h.grants.tables[victim].refs[GRANT_REF_CONSOLE].id
    of_daemon = word in (ControlWord.CONSOLE_IN_PROD, ControlWord.CONSOLE_OUT_CONS)
    assert bits_of(board, victim, word) == ({page}, set(range(CONSOLE_BITS if of_daemon else 0, 32)))


@pytest.mark.parametrize("word", words_of(RingKind.STORE))
def test_of_a_store_rings_words_the_clients_bear_only_bits_beyond_any_index(board, victim, word):
    call_of = handle(board.h, victim, m.StoreRing(), board.now)
    assert call_of.value["ref"] == GRANT_REF_XENSTORE
    page = board.h.grants.tables[victim].refs[GRANT_REF_XENSTORE].id
    of_client = word in (ControlWord.STORE_REQ_PROD, ControlWord.STORE_RSP_CONS)
    assert bits_of(board, victim, word) == ({page}, set(range(STORE_BITS if of_client else 0, 32)))


def test_who_has_not_asked_for_a_ring_of_xenstores_has_none_that_could_be_broken(board, victim):
    refused = refusal(board, m.FaultBegin(victim, FaultKind.CORRUPT_RING, amount=ControlWord.STORE_REQ_PROD))
    assert refused.errno == errno.ENOENT
    assert "domain victim has no ring of XenStore's: it has asked for none" in refused.text


def test_who_has_no_ring_and_grants_nothing_has_no_bit_to_flip(board, victim):
    for kind in (FaultKind.CORRUPT_RING, FaultKind.CORRUPT_PAGE):
        assert refusal(board, m.FaultBegin(victim, kind, amount=1)).errno == errno.ENOENT


@pytest.mark.parametrize(("kind", "amount"), [
    (FaultKind.CORRUPT_RING, 11), (FaultKind.CORRUPT_PAGE, 0), (FaultKind.CORRUPT_PAGE, 4097),
])  # fmt: skip
def test_a_word_or_number_of_bits_that_cannot_be_is_refused(board, disk_user, kind, amount):
    assert refusal(board, m.FaultBegin(disk_user[0], kind, amount=amount)).errno == errno.EINVAL


@pytest.mark.parametrize("text", [b"", b"x", b"-1", b"99999", b"9" * 50, b"\xb2"])
def test_a_ref_that_a_domain_makes_up_leads_to_no_page(board, disk_user, text):
    dom, _, _ = disk_user
    handle(board.h, dom, m.StoreWrite(0, "device/vbd/51712/ring-ref", text), board.now)
    assert refusal(board, m.FaultBegin(dom, FaultKind.CORRUPT_RING)).errno == errno.ENOENT


# ---- the machine, and what a next broker finds -----------------------------------------------------------------------


def test_a_strike_is_for_the_broker_or_the_zygote(board):
    call(board, m.MachineStrike("zygote", SIGKILL))
    assert board.hardware.named("strike") == [("strike", "zygote", SIGKILL, 0)]
    assert refusal(board, m.MachineStrike("machine", SIGKILL)).errno == errno.EINVAL
    assert refusal(board, m.MachineStrike("broker", SIGSTOP, FAULT_S_MAX * 1000 + 1)).errno == errno.EINVAL


def test_what_is_under_way_is_listed_with_the_time_that_is_left(board, victim):
    begin(board, victim, FaultKind.HANG, 500)
    board.now += 200 * MS
    row = {"fault": 1, "kind": "hang", "domid": victim, "incarnation": 1, "left_ms": 300}
    assert call(board, m.FaultList()) == [row]


def test_a_snapshot_has_the_faults_and_their_deadlines(board, victim):
    begin(board, victim, FaultKind.HANG, 500)
    board.h.attach(NoHardware())
    successor = pickle.loads(pickle.dumps(board.h))
    assert successor.faults.stops(victim)
    assert successor.next_deadline_ns() == board.now + 500 * MS
    successor.tick(board.now + 500 * MS)
    assert not successor.faults.stops(victim)


def test_neither_the_console_nor_xenstores_ring_is_a_page_of_data(board, disk_user):
    dom, _, data = disk_user
    handle(board.h, dom, m.StoreRing(), board.now)
    begin(board, dom, FaultKind.CORRUPT_PAGE, 0, amount=4096)
    assert {extent for extent, _, _ in flipped(board)[0]} == {data}
    assert all(ref in board.h.grants.tables[dom].refs for ref in (GRANT_REF_CONSOLE, GRANT_REF_XENSTORE))
