"""The shadow: each request completes exactly once, whatever backends answer, repeat, invent and leave."""

from collections import Counter, deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from hvd.domains.block.pool import Run
from hvd.domains.block.shadow import Request, Shadow

TIMEOUT = 10


class Lives(RuleBasedStateMachine):
    """A frontend's use of its shadow, with a backend that may do anything."""

    def __init__(self):
        super().__init__()
        self.shadow = Shadow()
        self.now = 0
        self.submitted: list[int] = []
        self.completed: Counter[int] = Counter()
        self.released: Counter[int] = Counter()
        self.ring: deque[int] = deque()
        self.answered: list[int] = []

    def release(self, request):
        assert request.id not in self.ring_pages(), "a backend may still use these pages"
        self.released[request.id] += 1

    def ring_pages(self):
        return set(self.ring)

    @rule()
    def submit(self):
        request_id = self.shadow.next_id()
        self.submitted.append(request_id)
        self.shadow.add(Request(request_id, b"", 0, 8, Run(request_id, 1), self.now + TIMEOUT))

    @rule(room=st.integers(1, 4))
    def pump(self, room):
        for _ in range(room):
            request = self.shadow.unsent()
            if request is not None:
                assert request.id in self.shadow.open and request.id not in self.ring
                assert not self.ring or request.id > max(self.ring), "issued in the order of the ids"
                self.ring.append(request.id)

    @rule(number=st.integers(0, 10))
    def answer(self, number):
        if self.ring:
            request_id = self.ring[number % len(self.ring)]
            self.ring.remove(request_id)
            self.deliver(request_id)

    @rule(request_id=st.integers(0, 50))
    def invent_or_repeat(self, request_id):
        if request_id not in self.ring:
            self.deliver(request_id)

    def deliver(self, request_id):
        request = self.shadow.answered(request_id)
        if request is not None:
            if not request.abandoned:
                self.completed[request.id] += 1
            self.release(request)

    @rule()
    def backend_dies(self):
        self.ring.clear()
        for request in self.shadow.backend_died():
            assert self.completed[request.id] == 1
            self.release(request)

    @rule(step=st.integers(1, 12))
    def time_passes(self, step):
        self.now += step
        for request in self.shadow.expired(self.now):
            self.completed[request.id] += 1
            if not request.abandoned:
                self.release(request)

    @invariant()
    def nothing_happens_twice_and_nothing_is_forgotten(self):
        for request_id in self.submitted:
            assert self.completed[request_id] <= 1 and self.released[request_id] <= 1
            assert self.completed[request_id] + (request_id in self.shadow.open) >= 1
            assert (self.released[request_id] == 1) == (request_id not in self.shadow.open)

    def teardown(self):
        self.time_passes(TIMEOUT)
        self.backend_dies()
        assert all(self.completed[i] == 1 and self.released[i] == 1 for i in self.submitted)


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=100, stateful_step_count=40)
