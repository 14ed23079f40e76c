"""The limits of a domain's process: set once and never raised, but for how much memory it keeps to."""

from __future__ import annotations

import os
import resource

import pytest

from hvd.domains.sandbox.limits import apply, keep_to
from hvd.transport.sandbox import RESERVED_KIB, Kind

MIB = 1 << 20


def data_limit_of_a_child(*steps) -> tuple[int, int]:
    """What RLIMIT_DATA is in a process that has taken these steps."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        for step in steps:
            step()
        os.write(write, repr(resource.getrlimit(resource.RLIMIT_DATA)).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(write)
    text = os.read(read, 100).decode()
    os.close(read)
    soft, hard = text.strip("()").split(", ")
    return int(soft), int(hard)


def born():
    apply(Kind.GUEST, memory_kib=64 << 10, maxmem_kib=128 << 10, used_bytes=1000 * MIB, own_user=False)


def test_the_soft_limit_is_its_memory_and_the_hard_one_its_maxmem():
    base = 1000 * MIB + RESERVED_KIB * 1024
    assert data_limit_of_a_child(born) == (base + 64 * MIB, base + 128 * MIB)


@pytest.mark.parametrize("mib", [128, 40, 64])
def test_a_process_keeps_to_less_or_more_below_what_it_was_born_with(mib):
    base = 1000 * MIB + RESERVED_KIB * 1024
    steps = born, lambda: keep_to(memory_kib=10, maxmem_kib=128 << 10)
    limit = data_limit_of_a_child(*steps, lambda: keep_to(memory_kib=mib << 10, maxmem_kib=128 << 10))
    assert limit == (base + mib * MIB, base + 128 * MIB)


def test_a_process_without_that_layer_keeps_to_nothing():
    assert data_limit_of_a_child(lambda: keep_to(memory_kib=1, maxmem_kib=2)) == (resource.RLIM_INFINITY,) * 2
