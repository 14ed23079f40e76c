"""Looking again before sleeping: as long as it pays, and not where somebody else wants the CPU."""

from __future__ import annotations

from hvd.broker.spin import FIRST_NS, LIMIT_NS, PAUSE_PER_TURN, TURN_MAX_NS, Ready, Spin

FOUND: Ready = [(3, 1)]


class Waiting:
    """A clock that the looks move, and something that comes so long after each wait has begun."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.yield_ns = 500
        self.looks = self.sleeps = 0
        self.spin = Spin(lambda: self.now_ns, self._yield)

    def _yield(self) -> None:
        self.now_ns += self.yield_ns

    def wait(self, comes_after_ns: int, timeout_s: float | None = 1.0) -> Ready:
        self.looks = self.sleeps = 0
        comes_ns = self.now_ns + comes_after_ns

        def look(wait_s: float | None) -> Ready:
            if wait_s == 0:
                self.looks += 1
                return FOUND if self.now_ns >= comes_ns else []
            self.sleeps += 1
            self.now_ns = max(self.now_ns, comes_ns)
            return FOUND if wait_s is None or comes_after_ns < wait_s * 1e9 else []

        return self.spin.wait(look, timeout_s)


def test_whoever_comes_again_at_once_is_soon_waited_for_awake() -> None:
    waiting = Waiting()
    slept = [waiting.wait(20_000) and waiting.sleeps for _ in range(6)]
    assert slept == [1, 1, 1, 0, 0, 0]
    assert waiting.spin.budget_ns == 4 * FIRST_NS


def test_what_comes_late_is_slept_for() -> None:
    waiting = Waiting()
    for _ in range(6):
        waiting.wait(20_000)
    assert waiting.wait(50 * LIMIT_NS) == FOUND and waiting.sleeps == 1
    waiting.wait(50 * LIMIT_NS)
    assert waiting.looks == 0 and waiting.spin.budget_ns == 0


def test_the_budget_has_a_limit() -> None:
    waiting = Waiting()
    for _ in range(20):
        waiting.wait(LIMIT_NS - 1000)
    assert waiting.spin.budget_ns <= LIMIT_NS


def test_where_somebody_else_wants_the_cpu_it_is_slept_for_a_while() -> None:
    waiting = Waiting()
    for _ in range(6):
        waiting.wait(20_000)
    waiting.yield_ns = 2 * TURN_MAX_NS
    waiting.wait(20_000)
    until_ns = waiting.now_ns + (PAUSE_PER_TURN - 10) * waiting.yield_ns
    while waiting.now_ns < until_ns:
        waiting.wait(20_000)
        assert (waiting.looks, waiting.sleeps) == (0, 1)
    waiting.now_ns += 20 * waiting.yield_ns
    waiting.wait(20_000)
    assert waiting.looks, "and then it is tried again"


def test_a_time_that_is_over_finds_nothing() -> None:
    assert Waiting().wait(10**12, timeout_s=0.5) == []
