"""A fresh fork of the machine: what it keeps, and that nothing it does reaches its parent."""

import os
import signal
from pathlib import Path

from hvd.machine.processes import fork_process


def run(body, keep=()):
    """The exit status of a process with this body, and what it wrote."""
    read, write = os.pipe()

    def write_it():
        os.write(write, str(body()).encode())

    pid = fork_process("test", {write, *keep}, write_it)
    os.close(write)
    _, status = os.waitpid(pid, 0)
    with open(read, encoding="utf-8") as output:
        return os.waitstatus_to_exitcode(status), output.read()


def open_descriptors():
    return sorted(int(entry.name) for entry in Path("/proc/self/fd").iterdir())


def test_it_keeps_the_standard_descriptors_and_those_it_is_to_keep():
    kept, other = os.pipe()
    code, text = run(open_descriptors, {kept})
    found = {int(number) for number in text.strip("[]").split(", ")}
    assert code == 0
    assert {0, 1, 2, kept} <= found
    assert other not in found
    assert len(found) <= 6  # those four, the pipe it writes to, and the directory it lists
    os.close(kept)
    os.close(other)


def test_it_has_a_name_of_its_own():
    assert run(lambda: Path("/proc/self/comm").read_text().strip()) == (0, "hvd-test")


def test_signals_are_as_in_a_new_process_but_ctrl_c_is_the_machines():
    previous = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        answer = run(lambda: [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)])
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert answer == (0, str([signal.SIG_DFL, signal.SIG_IGN]))


def fail():
    raise RuntimeError("no fuel")


def test_an_error_ends_it_with_status_one_and_is_printed(capfd):
    assert run(fail) == (1, "")
    assert "no fuel" in capfd.readouterr().err
