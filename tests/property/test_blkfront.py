"""A frontend's requests: each completes once, whatever backends answer, repeat, invent and leave."""

import errno
import mmap
import struct
import time
from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from hvd.transport._native import BackRing, BlkFront, Endpoint, FrontRing
from hvd.transport.protocols.block import REQUEST_SIZE, RESPONSE_SIZE, Operation, Status

PAGES, FIRST_REF = 40, 70
SECTORS = 1000
TIMEOUT_NS = 10**15
BUSY = b"\xee"
RESPONSE = struct.Struct("<QBxhxxxx")


class Slot:
    """A request as a backend sees it: what it asks for and which pages of the pool it hands over."""

    def __init__(self, raw, pool):
        self.operation, self.segments, self.id, self.sector = struct.unpack_from("<BBxxxxxxQQ", raw)
        self.refs = []
        table, count, self.own = raw[24:], self.segments, []
        if self.operation == Operation.INDIRECT:
            self.operation, count, self.id, self.sector, ref = struct.unpack_from("<xBHxxxxQQxxxxI", raw)
            self.own = [ref]
            at = (ref - FIRST_REF) * 4096
            table = pool[at : at + 4096]
        if self.operation in (Operation.READ, Operation.WRITE):
            self.refs = [struct.unpack_from("<IBBxx", table, 8 * index) for index in range(count)]
        self.pages = {ref for ref, _, _ in self.refs} | set(self.own)
        assert len(self.pages) == len(self.refs) + len(self.own)
        assert all(FIRST_REF <= page < FIRST_REF + PAGES for page in self.pages)

    def parts(self, pool):
        return [
            memoryview(pool)[(ref - FIRST_REF) * 4096 + first * 512 : (ref - FIRST_REF) * 4096 + (last + 1) * 512]
            for ref, first, last in self.refs
        ]


def content(request_id, length):
    return (request_id.to_bytes(8, "little") * -(-length // 8))[:length]


class Lives(RuleBasedStateMachine):
    """A frontend, and one backend after another that may do anything."""

    def __init__(self):
        super().__init__()
        self.pool = bytearray(PAGES * 4096)
        self.front = BlkFront(self.pool, FIRST_REF, TIMEOUT_NS)
        self.endpoint = Endpoint(mmap.mmap(-1, 4096), 0, -1, -1)
        self.submitted: dict[int, tuple[Operation, int]] = {}
        self.into: dict[int, bytearray] = {}
        self.deadlines: dict[int, int] = {}
        self.completed: Counter[int] = Counter()
        self.expired: set[int] = set()
        self.at_backend: dict[int, Slot] = {}
        self.answered: list[int] = []
        self.done: set[int] = set()
        self.ring: FrontRing | None = None
        self.back: BackRing | None = None
        self.backend_comes()

    # ---- the guest ---------------------------------------------------------------------------------------------------

    def note(self, request_id, operation, sectors):
        self.note_all([request_id], operation, sectors)

    def note_all(self, ids, operation, sectors):
        assert not set(ids) & set(self.submitted), "an id is never used twice"
        self.submitted |= dict.fromkeys(ids, (operation, sectors))
        self.deadlines |= dict.fromkeys(ids, time.monotonic_ns() + TIMEOUT_NS)

    @rule(sectors=st.sampled_from([1, 7, 8, 9, 88, 89, 200]), own=st.booleans())
    def read(self, sectors, own):
        into = bytearray(BUSY * (sectors * 512)) if own else None
        request_id = self.front.submit_read(5, sectors, into)
        if request_id is not None:
            self.note(request_id, Operation.READ, sectors)
            if into is not None:
                self.into[request_id] = into

    @rule(sectors=st.sampled_from([1, 8, 88, 89]))
    def write(self, sectors):
        data = bytearray(b"\x11" * (sectors * 512))
        request_id = self.front.submit_write(5, data)
        data[:] = bytes(len(data))
        if request_id is not None:
            self.note(request_id, Operation.WRITE, sectors)

    @rule(count=st.integers(1, 6))
    def many_reads(self, count):
        ids = self.front.submit_reads(range(count), 0, 8, None)
        assert len(ids) == count or self.front.free_pages == 0
        self.note_all(ids, Operation.READ, 8)

    @rule(kind=st.booleans())
    def control(self, kind):
        if kind:
            self.note(self.front.submit_flush(), Operation.FLUSH, 0)
        else:
            self.note(self.front.submit_discard(1, 3), Operation.DISCARD, 3)

    @rule()
    def take_all(self):
        for completion in self.front.take_all():
            self.complete(completion)

    @rule(number=st.integers(0, 30))
    def take_one(self, number):
        if self.submitted:
            request_id = list(self.submitted)[number % len(self.submitted)]
            completion = self.front.take(request_id)
            if completion is not None:
                assert completion.id == request_id
                self.complete(completion)

    def complete(self, completion):
        self.completed[completion.id] += 1
        operation, sectors = self.submitted[completion.id]
        assert (completion.id in self.expired) <= (completion.errno == errno.EIO)
        brought = operation == Operation.READ and completion.errno == 0
        into = self.into.get(completion.id)
        right = content(completion.id, sectors * 512)
        assert completion.data == (right if brought and into is None else b"")
        if into is not None:
            assert into == (right if brought else BUSY * len(into))

    @rule(number=st.integers(0, 30))
    def time_passes(self, number):
        """Until one of what is open is late, and with it everything before."""
        live = [request_id for request_id in self.submitted if self.is_open(request_id)]
        if live:
            now = self.deadlines[live[number % len(live)]]
            self.front.expire(now)
            self.expired |= {request_id for request_id in live if self.deadlines[request_id] <= now}

    def is_open(self, request_id):
        return request_id not in self.expired and request_id not in self.done

    # ---- backends ----------------------------------------------------------------------------------------------------

    @rule()
    def backend_comes(self):
        if self.back is not None:
            return
        memory = mmap.mmap(-1, 4096)
        self.ring = FrontRing(memory, REQUEST_SIZE, RESPONSE_SIZE)
        self.ring.init()
        self.back = BackRing(memory, REQUEST_SIZE, RESPONSE_SIZE)
        self.at_backend.clear()
        self.last_issued = -1
        self.front.attach(self.ring, self.endpoint, "test", SECTORS, 256)
        assert self.back.unconsumed == min(self.ring.size, self.front.in_flight), "what is open is issued again"

    @rule(leaves_a_successor=st.booleans())
    def backend_dies(self, leaves_a_successor):
        if self.back is not None:
            self.front.collect()
            self.front.detach()
            self.at_backend.clear()
            self.ring = self.back = None
        if leaves_a_successor:
            self.backend_comes()

    @rule(limit=st.integers(1, 8))
    def backend_takes(self, limit):
        raw = self.back.pop_many(limit) if self.back is not None else b""
        for at in range(0, len(raw), REQUEST_SIZE):
            slot = Slot(raw[at : at + REQUEST_SIZE], self.pool)
            order = list(self.submitted).index(slot.id)
            assert order > self.last_issued, "issued in the order of submission"
            self.last_issued = order
            operation, sectors = self.submitted[slot.id]
            assert slot.operation == operation
            assert slot.id not in self.done, "what was answered is not issued again"
            assert sum(map(len, slot.parts(self.pool))) == (sectors * 512 if slot.refs else 0)
            for other in self.at_backend.values():
                assert not slot.pages & other.pages, "another request has this page"
            if operation == Operation.WRITE:
                assert b"".join(slot.parts(self.pool)) == b"\x11" * (sectors * 512)
            self.at_backend[slot.id] = slot

    @rule(number=st.integers(0, 30), status=st.sampled_from([Status.OKAY, *Status]))
    def backend_answers(self, number, status):
        if not self.at_backend or self.back is None or self.back.free == 0:
            return
        slot = self.at_backend.pop(list(self.at_backend)[number % len(self.at_backend)])
        if slot.operation == Operation.READ:
            data = content(slot.id, sum(map(len, slot.parts(self.pool))))
            for part in slot.parts(self.pool):
                part[:], data = data[: len(part)], data[len(part) :]
        self.back.push(RESPONSE.pack(slot.id, slot.operation, status))
        self.front.collect()
        self.done.add(slot.id)
        self.answered.append(slot.id)

    @rule(request_id=st.integers(0, 2**64 - 1), number=st.integers(0, 30), again=st.booleans())
    def backend_invents_or_repeats(self, request_id, number, again):
        if self.back is None or self.back.free == 0:
            return
        if again and self.answered:
            request_id = self.answered[number % len(self.answered)]
        if request_id not in self.at_backend:
            # its own slot in the ring is used up for the lie: that request is never answered by this backend
            self.back.push(RESPONSE.pack(request_id, 0, Status.OKAY))
            self.front.collect()

    # ---- always ------------------------------------------------------------------------------------------------------

    @invariant()
    def nothing_happens_twice(self):
        assert all(count == 1 for count in self.completed.values())
        assert self.front.in_flight == sum(map(self.is_open, self.submitted))

    def teardown(self):
        self.front.collect()
        self.front.detach()
        self.front.expire(time.monotonic_ns() + 2 * TIMEOUT_NS)
        self.expired |= {request_id for request_id in self.submitted if self.is_open(request_id)}
        self.take_all()
        assert set(self.completed) == set(self.submitted)
        assert self.front.free_pages == PAGES


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=150, stateful_step_count=50)
