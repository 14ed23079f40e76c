"""Whom others wait for comes soon when it wakes: the machine, and the end of a driver domain; nobody else does."""

import ctypes
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from hvd import Cluster
from hvd.transport.messages import DomainConfig
from hvd.transport.process import SHORT_SLICE_NS, run_in_short_slices, run_in_usual_slices
from tests.waiting import wait_for

SCHED_GETATTR = {"x86_64": 315, "aarch64": 275}[os.uname().machine]
ATTRIBUTES = struct.Struct("=IIQiIQQQ")


def slice_ns(thread: int) -> int:
    """As the kernel has it."""
    buffer = ctypes.create_string_buffer(ATTRIBUTES.size)
    if ctypes.CDLL(None, use_errno=True).syscall(SCHED_GETATTR, thread, buffer, ATTRIBUTES.size, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(ATTRIBUTES.unpack(buffer.raw)[5])


USUAL_NS = slice_ns(os.getpid())


@pytest.fixture(autouse=True)
def needs_slices() -> Iterator[None]:
    """What a thread asks for, the kernel has: since Linux 6.12."""
    run_in_short_slices()
    kept = slice_ns(0) == SHORT_SLICE_NS
    run_in_usual_slices()
    assert slice_ns(0) == USUAL_NS
    if not kept:
        pytest.skip("this kernel lets nobody choose for how long it runs: Linux 6.12")
    yield


def slices(pid: int) -> list[int]:
    """Of a process's threads: its first one's at the end."""
    tids = sorted((int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()), key=lambda tid: tid == pid)
    return [slice_ns(tid) for tid in tids]


def test_the_machine_and_the_ends_of_driver_domains_come_soon_and_nobody_else() -> None:
    with Cluster.build([DomainConfig("disks", "hvd:driver_domain", driver_domain=True)]) as cluster:
        guest = cluster.create(DomainConfig("guest", "hvd:idle"))
        guest.wait_ready()
        info = cluster.info()
        assert slices(info["machine_pid"])[-1] == SHORT_SLICE_NS
        assert slices(info["broker_pid"])[-1] == USUAL_NS
        assert set(slices(guest.pid or 0)) == {USUAL_NS}
        driver = cluster.domain("disks")
        driver.wait_ready()
        wait_for(lambda: SHORT_SLICE_NS in slices(driver.pid or 0), lambda: f"{slices(driver.pid or 0)}")
        *others, first = slices(driver.pid or 0)
        assert (SHORT_SLICE_NS in others, first) == (True, USUAL_NS)
