"""A machine's order on its pipe, and the kernel's word on who holds a directory."""

import fcntl
import os
import subprocess
import sys

import pytest

from hvd.transport.run_dir import LOCK, Order, machine_pid, start_time

ORDER = Order("/run/x", b"\x91\x90" * 40_000, temporary=True, uplinks=[], cpus=[])

HOLD = """
import fcntl, sys
lock = open(sys.argv[1], "w")
fcntl.lockf(lock, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def test_an_order_is_read_as_it_was_written_however_the_pipe_cuts_it():
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        data = ORDER.packed()
        while data:
            data = data[os.write(write, data[:1000]) :]
        os._exit(0)
    os.close(write)
    try:
        assert Order.read(read) == ORDER
    finally:
        os.close(read)
        os.waitpid(child, 0)


@pytest.mark.parametrize("sent", [0, 2, 4, 40])
def test_no_order_comes_from_a_pipe_that_is_closed_before_its_end(sent):
    read, write = os.pipe()
    os.write(write, ORDER.packed()[:sent])
    os.close(write)
    try:
        assert Order.read(read) is None
    finally:
        os.close(read)


def test_a_lock_names_the_process_that_holds_it_and_nobody_when_that_is_gone(tmp_path):
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        assert machine_pid(directory) is None
        (tmp_path / LOCK).touch()
        assert machine_pid(directory) is None
        command = [sys.executable, "-c", HOLD, str(tmp_path / LOCK)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            assert machine_pid(directory) == holder.pid
            holder.kill()
            holder.wait(timeout=30)
            assert machine_pid(directory) is None
    finally:
        os.close(directory)


def test_looking_does_not_take_the_lock(tmp_path):
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        with open(tmp_path / LOCK, "w", encoding="ascii") as lock:
            assert machine_pid(directory) is None
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(directory)


def test_a_link_in_the_locks_place_is_no_lock(tmp_path):
    directory = os.open(tmp_path, os.O_RDONLY)
    (tmp_path / LOCK).symlink_to("/etc/passwd")
    try:
        assert machine_pid(directory) is None
    finally:
        os.close(directory)


def test_a_process_has_one_start_time_and_a_dead_one_none():
    assert start_time(os.getpid()) == start_time(os.getpid())
    with subprocess.Popen(["true"]) as child:
        child.wait(timeout=30)
    assert start_time(child.pid) is None
