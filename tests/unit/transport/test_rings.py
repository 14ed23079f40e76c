"""Rings, both ends in one process: contract, blame, and the bytes that cross."""

import struct

import pytest

from hvd.transport.errors import LocalError, PeerFault, RingFull
from hvd.transport.pages import PAGE_SIZE
from hvd.transport.rings import RING_HEADER_SIZE, BackRing, FrontRing, ring_size

REQ_PROD, REQ_EVENT, RSP_PROD, RSP_EVENT = 0, 4, 8, 12


def poke(memory, offset, value):
    struct.pack_into("<I", memory, offset, value)


def fresh(memory, request_size=8, response_size=4, slot_size=8):
    front = FrontRing(memory, request_size, response_size, slot_size)
    front.init()
    return front, BackRing(memory, request_size, response_size, slot_size)


@pytest.fixture
def memory():
    return bytearray(PAGE_SIZE)


@pytest.mark.parametrize(
    ("pages", "slot_size", "slots"),
    [(1, 112, 32), (16, 112, 512), (1, 64, 32), (1, 12, 256), (1, 8, 256), (1, 4032, 1)],
)
def test_a_ring_has_as_many_slots_as_in_xen(pages, slot_size, slots):
    ring = FrontRing(bytearray(pages * PAGE_SIZE), slot_size, slot_size)
    assert ring.size == slots == ring_size(pages, slot_size)


def test_no_ring_fits_a_slot_larger_than_its_memory():
    assert ring_size(1, 4033) == 0
    with pytest.raises(LocalError, match="4033"):
        FrontRing(bytearray(PAGE_SIZE), 4033, 4)


@pytest.mark.parametrize("sizes", [(0, 4, 0), (4, 0, 0), (8, 4, 7), (4, 8, 7)])
def test_a_slot_must_hold_either_message(memory, sizes):
    with pytest.raises(LocalError):
        FrontRing(memory, *sizes)


@pytest.mark.parametrize(
    "unusable", [bytes(PAGE_SIZE), memoryview(bytes(PAGE_SIZE)), memoryview(bytearray(8192))[::2], 5]
)
def test_a_ring_needs_writable_memory_in_one_piece(unusable):
    with pytest.raises(LocalError, match="writable"):
        FrontRing(unusable, 8, 4)


def test_a_ring_must_be_aligned(memory):
    with pytest.raises(LocalError, match="boundary"):
        FrontRing(memoryview(memory)[1:], 8, 4)


def test_init_writes_an_empty_ring_with_both_events_armed(memory):
    memory[:] = b"\xff" * PAGE_SIZE
    fresh(memory)
    assert memory[:RING_HEADER_SIZE] == struct.pack("<4I48x", 0, 1, 0, 1)
    assert memory[RING_HEADER_SIZE : RING_HEADER_SIZE + 256 * 8] == bytes(256 * 8)


def test_a_request_and_its_response_cross(memory):
    front, back = fresh(memory)
    assert front.push(b"request!") is True
    assert back.pop() == b"request!"
    assert back.pop() is None
    assert back.push(b"resp") is True
    assert front.pop() == b"resp"
    assert front.pop() is None


def test_the_second_push_finds_the_peer_told_already(memory):
    front, back = fresh(memory)
    assert front.push(b"a") is True
    assert front.push(b"b") is False
    back.pop_many()
    assert front.push(b"c") is False, "nobody armed the event again"
    back.pop()
    assert back.final_check() is False
    assert front.push(b"d") is True


def test_final_check_finds_what_came_before_it(memory):
    front, back = fresh(memory)
    front.push(b"a")
    before = bytes(memory)
    assert back.final_check() is True
    assert bytes(memory) == before, "with work to do the event stays as it was"


def test_a_batch_is_published_once_and_notifies_once(memory):
    front, back = fresh(memory)
    assert front.push_many(b"aaaaaaaabbbbbbbbcccccccc") == (3, True)
    assert back.unconsumed == 3
    assert back.pop_many(2) == b"aaaaaaaabbbbbbbb"
    assert back.pop_many() == b"cccccccc"
    assert back.pop_many() == b""
    assert back.push_many(b"xxxxyyyy") == (2, True)
    assert front.pop_many() == b"xxxxyyyy"


def test_a_batch_stops_where_the_ring_is_full(memory):
    front, _ = fresh(memory, 1024, 4, 1024)
    assert front.size == 2
    assert front.push_many(bytes(3 * 1024)) == (2, True)
    assert front.push_many(bytes(1024)) == (0, False)
    assert front.push_many(b"") == (0, False)


def test_a_batch_of_broken_messages_is_refused_whole(memory):
    front, back = fresh(memory)
    with pytest.raises(LocalError, match="whole messages of 8"):
        front.push_many(b"aaaaaaaabbb")
    assert back.unconsumed == 0


def test_a_full_front_refuses_and_changes_nothing(memory):
    front, back = fresh(memory, 1024, 4, 1024)
    front.push_many(bytes(2048))
    before = bytes(memory)
    with pytest.raises(RingFull):
        front.push(b"x")
    assert front.free == 0
    assert bytes(memory) == before
    back.pop()
    assert front.free == 0, "a slot is free when its response was consumed, not when its request was"
    back.push(b"r")
    front.pop()
    assert front.free == 1


def test_a_back_answers_only_what_it_has_popped(memory):
    front, back = fresh(memory)
    front.push(b"x")
    with pytest.raises(RingFull, match="no request is open"):
        back.push(b"r")
    assert back.free == 0
    back.pop()
    assert back.free == 1
    back.push(b"r")
    with pytest.raises(RingFull):
        back.push(b"r")


@pytest.mark.parametrize("message", [b"ab", bytearray(b"ab"), memoryview(b"ab")])
def test_a_short_message_is_filled_with_zeros(memory, message):
    front, back = fresh(memory)
    front.push(b"secret!!")
    back.pop()
    back.push(message)
    assert memory[RING_HEADER_SIZE : RING_HEADER_SIZE + 8] == b"ab\0\0et!!", (
        "the response, all of it, and nothing beyond"
    )
    assert front.pop() == b"ab\0\0"


def test_a_message_longer_than_its_slot_is_refused(memory):
    front, back = fresh(memory)
    with pytest.raises(LocalError, match="9 bytes exceeds the slot's 8"):
        front.push(b"123456789")
    front.push(b"x")
    back.pop()
    with pytest.raises(LocalError, match="5 bytes exceeds the slot's 4"):
        back.push(b"12345")
    with pytest.raises(LocalError):
        front.push("text")


def test_what_was_popped_is_a_copy(memory):
    front, back = fresh(memory)
    front.push(b"original")
    copy = back.pop()
    memory[RING_HEADER_SIZE : RING_HEADER_SIZE + 8] = b"tampered"
    assert copy == b"original"


def test_only_the_front_initialises(memory):
    assert not hasattr(BackRing(memory, 8, 4), "init")


def test_indices_run_on_over_two_to_the_thirty_two(memory):
    front, back = fresh(memory)
    start = 0xFFFF_FFFE
    for offset, value in ((REQ_PROD, start), (RSP_PROD, start), (REQ_EVENT, start + 1), (RSP_EVENT, start + 1)):
        poke(memory, offset, value)
    front.attach(start)
    back.attach(start)
    for number in range(5):
        assert front.push(bytes([number])) is True
        assert back.pop() == bytes([number]).ljust(8, b"\0")
        assert back.final_check() is False
        assert back.push(bytes([number])) is True
        assert front.pop() == bytes([number]).ljust(4, b"\0")
        assert front.final_check() is False
    assert front.untrusted_indices() == (3, 4, 3, 4)


def test_a_restarted_back_goes_on_where_its_predecessor_answered(memory):
    front, back = fresh(memory)
    front.push_many(b"aaaaaaaabbbbbbbbcccccccc")
    back.pop_many(2)
    back.push(b"A")
    successor = BackRing(memory, 8, 4, 8)
    successor.attach(successor.untrusted_indices()[2])
    assert successor.pop_many() == b"bbbbbbbbcccccccc"
    successor.push_many(b"BBBBCCCC")
    assert front.pop_many() == b"A\0\0\0BBBBCCCC"


@pytest.mark.parametrize("claimed", [257, 0x8000_0000, 0xFFFF_FFFF])
def test_more_requests_than_the_ring_holds_is_the_fronts_fault(memory, claimed):
    _, back = fresh(memory)
    poke(memory, REQ_PROD, claimed)
    with pytest.raises(PeerFault, match=f"back ring.*req_prod {claimed} is {claimed} ahead of req_cons 0"):
        back.pop()


@pytest.mark.parametrize("claimed", [3, 256, 0xFFFF_FFFF])
def test_more_responses_than_requests_outstanding_is_the_backs_fault(memory, claimed):
    front, _ = fresh(memory)
    front.push_many(bytes(16))
    poke(memory, RSP_PROD, claimed)
    with pytest.raises(PeerFault, match=f"front ring.*rsp_prod {claimed}.*at most 2"):
        front.pop()


def test_requests_taken_back_are_the_fronts_fault(memory):
    front, back = fresh(memory)
    front.push_many(bytes(24))
    back.pop_many()
    poke(memory, REQ_PROD, 2)
    with pytest.raises(PeerFault):
        back.pop()


def test_responses_taken_back_are_the_backs_fault(memory):
    front, back = fresh(memory)
    front.push_many(bytes(24))
    back.pop_many()
    back.push_many(bytes(12))
    front.pop_many()
    poke(memory, RSP_PROD, 2)
    with pytest.raises(PeerFault):
        front.pop()


USES = {
    "pop": lambda ring: ring.pop(),
    "pop_many": lambda ring: ring.pop_many(1),
    "push": lambda ring: ring.push(b"x"),
    "push_many": lambda ring: ring.push_many(b""),
    "final_check": lambda ring: ring.final_check(),
    "free": lambda ring: ring.free,
    "unconsumed": lambda ring: ring.unconsumed,
    "attach": lambda ring: ring.attach(0),
    "init": lambda ring: ring.init(),
    "untrusted_indices": lambda ring: ring.untrusted_indices(),
}


@pytest.mark.parametrize("use", USES)
def test_a_ring_the_peer_broke_stays_closed_although_the_peer_repents(memory, use):
    front, _ = fresh(memory)
    poke(memory, RSP_PROD, 9)
    with pytest.raises(PeerFault):
        front.pop()
    poke(memory, RSP_PROD, 0)
    before = bytes(memory)
    with pytest.raises(PeerFault, match="closed by the peer's fault: rsp_prod 9"):
        USES[use](front)
    assert bytes(memory) == before


@pytest.mark.parametrize("use", USES)
def test_a_closed_ring_is_refused(memory, use):
    front, _ = fresh(memory)
    front.close()
    front.close()
    with pytest.raises(LocalError, match="front ring is closed"):
        USES[use](front)


def test_a_ring_holds_its_memory_until_closed(memory):
    front = FrontRing(memory, 8, 4)
    with pytest.raises(BufferError):
        memory.extend(b"x")
    front.close()
    memory.extend(b"x")


def test_a_refused_ring_holds_nothing(memory):
    with pytest.raises(LocalError):
        FrontRing(memory, 5000, 4)
    memory.extend(b"x")


# ---- checks ----------------------------------------------------------------------------------------------------------

REQ_CHECK, RSP_CHECK = 20, 24


def in_traffic(memory):
    """Both ends of a checked ring: five requests asked, three taken of them, two answered, one of the answers taken."""
    front, back = FrontRing(memory, 8, 4, 8, checked=True), BackRing(memory, 8, 4, 8, checked=True)
    front.init()
    for number in range(5):
        front.push(bytes([number]))
    back.pop_many(3)
    for number in range(2):
        back.push(bytes([number]))
    assert front.pop() == bytes(4)
    return front, back


def taken(ring):
    """What an end gets out of the ring, and whether it has found it broken."""
    got = b""
    try:
        while more := ring.pop_many():
            got += more
    except PeerFault:
        return got, True
    return got, False


@pytest.mark.parametrize("bit", range(32))
@pytest.mark.parametrize("word", [REQ_PROD, RSP_PROD, REQ_CHECK, RSP_CHECK])
def test_any_bit_of_an_index_is_found_and_nothing_is_taken_that_was_not_sent(memory, word, bit):
    """A check that seems newer than its index does no harm: it is that of the next publication, until that comes."""
    front, back = in_traffic(memory)
    poke(memory, word, struct.unpack_from("<I", memory, word)[0] ^ 1 << bit)
    (requests, back_found), (responses, front_found) = taken(back), taken(front)
    assert back_found or front_found or word in (REQ_CHECK, RSP_CHECK)
    assert b"".join(bytes([number, *bytes(7)]) for number in (3, 4)).startswith(requests)
    assert bytes([1, 0, 0, 0]).startswith(responses)


def test_an_owner_finds_its_changed_index_when_it_publishes_and_when_it_is_polled(memory):
    front, _ = in_traffic(memory)
    poke(memory, REQ_PROD, 4)
    with pytest.raises(PeerFault, match="req_prod is 4, but was published as 5"):
        front.push(b"x")


def test_an_owner_finds_its_changed_index_when_there_is_nothing_for_it(memory):
    front, _ = in_traffic(memory)
    poke(memory, REQ_PROD, 4)
    assert front.pop() is not None
    with pytest.raises(PeerFault, match="published as 5"):
        front.final_check()


def test_a_ring_without_checks_leaves_the_padding_as_xen_does(memory):
    front, back = fresh(memory)
    front.push(b"x")
    back.pop()
    assert bytes(memory[16:RING_HEADER_SIZE]) == bytes(RING_HEADER_SIZE - 16)


def test_an_end_whose_other_keeps_no_checks_takes_nothing_from_it(memory):
    front = FrontRing(memory, 8, 4, 8)
    front.init()
    back = BackRing(memory, 8, 4, 8, checked=True)
    front.push(b"x")
    with pytest.raises(PeerFault, match="req_prod 1 and its check, 4294967295, do not agree"):
        back.pop()
