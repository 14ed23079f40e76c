"""What other threads keep is told from what the first one does."""

from __future__ import annotations

import ctypes
import threading

from hvd.broker.hoards import HOARD_BYTES, HOARD_BYTES_EACH, bytes_in_other_arenas, is_hoard

LIBC = ctypes.CDLL(None)
LIBC.malloc.restype = ctypes.c_void_p
LIBC.malloc.argtypes = [ctypes.c_size_t]
LIBC.free.argtypes = [ctypes.c_void_p]
PART, PARTS = 60_000, 400


def keep(kept: list[int]) -> None:
    kept += [LIBC.malloc(PART) for _ in range(PARTS)]


def test_what_another_thread_keeps_is_seen_until_it_is_let_go_of() -> None:
    before, kept = bytes_in_other_arenas(), list[int]()
    thread = threading.Thread(target=keep, args=(kept,))
    thread.start()
    thread.join()
    assert bytes_in_other_arenas() - before >= PART * PARTS
    for address in kept:
        LIBC.free(address)
    assert bytes_in_other_arenas() - before < PART * PARTS // 10


def test_what_the_first_thread_keeps_is_no_hoard() -> None:
    before, kept = bytes_in_other_arenas(), list[int]()
    keep(kept)
    assert bytes_in_other_arenas() - before < PART * PARTS // 10
    for address in kept:
        LIBC.free(address)


def test_the_more_domains_the_more_their_messages_may_be() -> None:
    assert not is_hoard(HOARD_BYTES + HOARD_BYTES_EACH, 1)
    assert is_hoard(HOARD_BYTES + HOARD_BYTES_EACH + 1, 1)
