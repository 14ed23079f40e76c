"""The peer that people write themselves: multiprocessing.shared_memory, and a semaphore a direction."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.shared_memory import SharedMemory
from typing import Any

from hvd.toolstack.bench.peers.peer import MESSAGE, SPAWN, How, PythonPeer

SIZE = len(MESSAGE)


class SharedMemorySemaphore(PythonPeer):
    """Each end copies 64 bytes in and out."""

    def __init__(self, how: How, here: int, there: int) -> None:
        try:
            super().__init__(how, here, there)
        finally:
            self._memory.unlink()  # both ends have it: whoever is killed from here on leaves nothing

    def open(self, how: How) -> tuple[Any, Any]:
        self._memory = SharedMemory(create=True, size=4096)
        ends = (self._memory.name, SPAWN.Semaphore(0), SPAWN.Semaphore(0))
        return ends, ends

    def caller(self, how: How, ours: Any) -> Callable[[], object]:
        _, ping, pong = ours
        slot, acquire, release = _slot(self._memory), _acquire(how, pong), ping.release
        self._slot = slot

        def call() -> bytes:
            slot[:] = MESSAGE
            release()
            acquire()
            return bytes(slot)

        return call

    @classmethod
    def answerer(cls, how: How, theirs: Any) -> Callable[[], object]:
        name, ping, pong = theirs
        memory = SharedMemory(name)
        slot, acquire, release = _slot(memory), _acquire(how, ping), pong.release

        def answer() -> SharedMemory:
            acquire()
            slot[:] = bytes(slot)
            release()
            return memory

        return answer

    def close(self) -> None:
        super().close()
        del self._call
        self._slot.release()
        self._memory.close()


def _slot(memory: SharedMemory) -> memoryview:
    assert memory.buf is not None
    return memory.buf[:SIZE]


def _acquire(how: How, semaphore: Any) -> Callable[[], object]:
    if how is How.WOKEN:
        return semaphore.acquire  # type: ignore[no-any-return]

    def poll() -> None:
        while not semaphore.acquire(False):
            continue

    return poll
