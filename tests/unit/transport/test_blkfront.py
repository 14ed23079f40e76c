"""A frontend's table of requests: its bound, and memory that belongs to somebody else while a read is open."""

import gc
import mmap
import weakref

import pytest

from hvd.transport._native import BackRing, BlkFront, Endpoint, FrontRing
from hvd.transport.errors import LocalError

REQUESTS_MAX = 65_536


@pytest.fixture
def front():
    return BlkFront(bytearray(64 * 4096), 10, 10**15)


@pytest.fixture
def attached(front):
    memory = bytearray(4096)
    ring = FrontRing(memory, 112, 16)
    ring.init()
    front.attach(ring, Endpoint(mmap.mmap(-1, 4096), 0, -1, -1), "xvda", 1000, 256)
    return front, BackRing(memory, 112, 16)


def test_so_many_requests_are_open_or_not_taken_and_not_one_more(front):
    ids = [front.submit_flush() for _ in range(REQUESTS_MAX)]
    with pytest.raises(LocalError, match="65536 requests are open or not taken"):
        front.submit_flush()
    front.expire(2 * 10**15)
    with pytest.raises(LocalError):
        front.submit_flush()
    assert front.take(ids[7]) is not None
    assert front.submit_flush() not in ids


def test_a_pool_of_one_page_is_refused():
    with pytest.raises(LocalError, match="at least 2 pages"):
        BlkFront(bytearray(4096), 10, 10**9)


def test_an_open_read_holds_its_buffer_and_its_completion_lets_go_of_it(attached):
    front, back = attached
    memory = bytearray(512)
    request_id = front.submit_read(0, 1, memory)
    with pytest.raises(BufferError):
        memory.append(0)
    slot = back.pop()
    back.push(slot[8:16] + bytes(8))
    front.collect()
    assert front.take(request_id) == (request_id, 0, b"")
    memory.append(0)


def test_a_read_that_timed_out_never_writes_its_buffer(attached):
    front, back = attached
    memory = bytearray(b"x" * 512)
    request_id = front.submit_read(0, 1, memory)
    front.expire(2 * 10**15)
    assert front.take(request_id).errno == 5
    free = front.free_pages
    back.push(back.pop()[8:16] + bytes(8))
    front.collect()
    assert memory == b"x" * 512
    assert front.free_pages == free + 1


def test_a_completion_is_taken_once(attached):
    front, back = attached
    request_id = front.submit_read(0, 1, None)
    answer = back.pop()[8:16] + bytes(8)
    back.push(answer)
    front.collect()
    assert front.take(request_id) == (request_id, 0, bytes(512))
    assert front.take(request_id) is None
    assert front.take_all() == []


def test_what_is_open_when_a_front_goes_lets_go_of_its_buffers():
    class Memory(bytearray):
        pass

    memory = Memory(512)
    alive = weakref.ref(memory)
    front = BlkFront(bytearray(2 * 4096), 10, 10**15)
    ring = FrontRing(bytearray(4096), 112, 16)
    ring.init()
    front.attach(ring, Endpoint(mmap.mmap(-1, 4096), 0, -1, -1), "xvda", 1000, 256)
    front.submit_read(0, 1, memory)
    del memory
    gc.collect()
    assert alive() is not None
    del front
    gc.collect()
    assert alive() is None


# ---- memory that is lent ---------------------------------------------------------------------------------------------


@pytest.fixture
def pool():
    return bytearray(64 * 4096)


@pytest.fixture
def lending(pool):
    """A front, its backend's ring, and a buffer of five pages: (front, back, buffer)."""
    front = BlkFront(pool, 10, 10**15)
    memory = bytearray(4096)
    ring = FrontRing(memory, 112, 16)
    ring.init()
    front.attach(ring, Endpoint(mmap.mmap(-1, 4096), 0, -1, -1), "xvda", 1000, 256)
    offset = front.lend(40)
    assert offset is not None
    return front, BackRing(memory, 112, 16), memoryview(pool)[offset : offset + 40 * 512]


def answer(front, back):
    """Answer what is asked; its first ref."""
    slot = back.pop()
    back.push(slot[8:16] + bytes(8))
    front.collect()
    return int.from_bytes(slot[24:28], "little")


def test_a_request_on_lent_memory_asks_for_that_memory_itself(lending):
    front, back, buffer = lending
    free = front.free_pages
    request_id = front.submit_read(0, 40, buffer)
    assert front.free_pages == free, "no other page is needed"
    assert answer(front, back) == 10
    assert front.take(request_id) == (request_id, 0, b"")
    front.submit_write(0, buffer[4096:8192])
    assert answer(front, back) == 11
    assert front.free_pages == free, "what is lent does not go back to the pool with its request"


def test_a_part_that_begins_within_a_page_is_copied_as_any_memory(lending):
    front, back, buffer = lending
    free = front.free_pages
    front.submit_write(0, buffer[512:1024])
    assert front.free_pages == free - 1
    assert answer(front, back) != 10


def test_pages_of_the_pool_that_are_not_lent_are_no_memory_of_the_callers(lending, pool):
    front, back, _ = lending
    free = front.free_pages
    front.submit_write(0, memoryview(pool)[8 * 4096 : 9 * 4096])
    front.submit_write(0, memoryview(pool)[4 * 4096 : 6 * 4096])
    assert front.free_pages == free - 3
    assert {answer(front, back), answer(front, back)} & {14, 18} == set()


def test_lent_memory_comes_back_when_nobody_uses_it(lending):
    front, back, buffer = lending
    free = front.free_pages
    request_id = front.submit_read(0, 8, buffer[:4096])
    with pytest.raises(LocalError, match="still uses"):
        front.take_back(buffer)
    front.expire(2 * 10**15)
    assert front.take(request_id).errno == 5
    with pytest.raises(LocalError, match="still uses"):
        front.take_back(buffer)  # its backend may carry it out late
    answer(front, back)
    front.take_back(buffer)
    assert front.free_pages == free + 5
    with pytest.raises(LocalError, match="given back"):
        front.take_back(buffer)


def test_half_of_the_pool_is_never_lent(lending):
    front, _, _ = lending
    for sectors in (28 * 8, 27 * 8 + 1, 0, -1, 1001):
        with pytest.raises(LocalError):
            front.lend(sectors)
    assert front.lend(27 * 8) is not None


def test_nothing_is_lent_while_no_run_is_as_long():
    front = BlkFront(bytearray(8 * 4096), 10, 10**15)
    ring = FrontRing(bytearray(4096), 112, 16)
    ring.init()
    front.attach(ring, Endpoint(mmap.mmap(-1, 4096), 0, -1, -1), "xvda", 1000, 11)
    assert front.submit_write(0, bytes(6 * 4096)) is not None
    assert front.lend(4 * 8) is None
