"""A console's pty neither blocks nor hangs up, whoever reads it or does not."""

import contextlib
import os
import select
import termios
import time

import pytest

from hvd.domains.console import pty as module
from hvd.domains.console.pty import AGAIN_S, PATIENCE_S, NoPty, Pty
from hvd.domains.console.readers import Readers
from hvd.transport.limits import CONSOLE_SCROLLBACK_BYTES_MAX

QUIET_S = 0.5
TERMINAL_BYTES_MAX = 70_000
"""More than Linux keeps of a pty's unread output."""


@pytest.fixture
def events():
    with select.epoll() as made:
        yield made


class Clock:
    """The monotonic clock of ptys: time passes as a test says."""

    now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


@pytest.fixture
def withheld():
    """When output was to be handed over later."""
    return []


@pytest.fixture
def readers():
    made = Readers()
    yield made
    made.close()


@pytest.fixture
def pty(events, readers, clock, withheld):
    made = Pty(events, readers, lambda: withheld.append(clock.now))
    yield made
    made.close()


@pytest.fixture
def attached(pty):
    descriptor = os.open(pty.path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    yield descriptor
    os.close(descriptor)


def read_all(pty, events, descriptor):
    """As somebody attached reads, while the owner serves its epoll set; until both have had nothing for a while."""
    seen = b""
    while select.select([descriptor, events], [], [], QUIET_S)[0]:
        with contextlib.suppress(BlockingIOError):
            seen += os.read(descriptor, 65_536)
        if any(ready & select.EPOLLOUT for _, ready in events.poll(0)):
            pty.flush()
    return seen


def test_bytes_pass_both_ways_as_they_are(pty, events, attached):
    every = bytes(range(256))
    pty.write(every)
    assert read_all(pty, events, attached) == every
    os.write(attached, every)
    assert pty.read(100) + pty.read(1000) == every


def test_typing_is_an_event_only_while_it_is_listened_to(pty, events, attached):
    os.write(attached, b"typed")
    assert events.poll(0) == []
    pty.listen(on=True)
    assert events.poll(5) == [(pty.master, select.EPOLLIN)]
    pty.listen(on=False)
    assert events.poll(0) == []
    assert pty.read(100) == b"typed"
    assert pty.read(100) == b""


def read_some(descriptor):
    """What is there by now, waited for."""
    seen = b""
    while select.select([descriptor], [], [], 0 if seen else 20)[0]:
        seen += os.read(descriptor, 65_536)
    return seen


def flood(pty, lines):
    for at in range(0, len(lines), 80):
        write(pty, lines[at : at + 80])


def write(pty, lines):
    """And let the kernel pass it on: that is another thread's work."""
    pty.write(b"".join(lines))
    time.sleep(0.0002)


def test_a_pty_that_nobody_reads_never_blocks_and_keeps_the_newest(pty, events, attached, clock):
    lines = [b"line %06d of a flood\r\n" % number for number in range(60_000)]
    flood(pty, lines)
    clock.now += PATIENCE_S
    flood(pty, lines)
    clock.now += AGAIN_S
    pty.flush()
    seen = read_all(pty, events, attached)
    kept = seen.splitlines(keepends=True)
    assert kept == lines[-len(kept) :], "the newest lines, without a gap"
    least, most = CONSOLE_SCROLLBACK_BYTES_MAX - len(lines[0]), CONSOLE_SCROLLBACK_BYTES_MAX + TERMINAL_BYTES_MAX
    assert least <= len(seen) <= most


LINES = [b"line %06d of a flood\r\n" % number for number in range(10_000)]


def nobody_reads(pty, clock):
    """For as long as it takes to see that; it is given nothing from here on."""
    flood(pty, LINES)
    clock.now += PATIENCE_S
    flood(pty, LINES)


def test_one_that_nobody_reads_is_given_something_once_a_second(pty, attached, clock, withheld):
    flood(pty, LINES)
    assert withheld == []
    nobody_reads(pty, clock)
    first = clock.now
    for number in range(3):
        assert withheld == [first + each * AGAIN_S for each in range(number + 1)]
        assert not select.select([attached], [], [], 0)[0]
        clock.now += AGAIN_S / 2
        pty.flush()
        assert not select.select([attached], [], [], 0)[0]
        clock.now += AGAIN_S / 2
        pty.flush()
        assert select.select([attached], [], [], 20)[0]
        flood(pty, LINES)


@pytest.mark.parametrize("every", [80, 4000], ids=["in step", "behind"])
def test_one_that_somebody_reads_slowly_is_given_what_it_takes_at_once(pty, attached, clock, withheld, every):
    """Of a flood he sees the newest again and again."""
    for at in range(0, 2 * len(LINES), 80):
        write(pty, LINES[at % len(LINES) :][:80])
        clock.now += 0.002
        if at % every == 0:
            assert read_some(attached)
            pty.flush()
    assert withheld == []


def test_whoever_attaches_and_reads_is_given_everything_at_once_again(pty, events, attached, clock, withheld):
    nobody_reads(pty, clock)
    clock.now += AGAIN_S
    pty.flush()
    assert read_all(pty, events, attached).endswith(LINES[-1])
    withheld.clear()
    for _ in range(3):
        clock.now += 1
        flood(pty, LINES[:2000])
        assert read_all(pty, events, attached).endswith(LINES[1999])
    assert withheld == []


def test_what_was_printed_last_is_handed_over_at_the_end_whoever_has_not_read(pty, events, attached, clock):
    nobody_reads(pty, clock)
    pty.end()
    assert read_all(pty, events, attached).endswith(LINES[-1])


def test_a_chunk_longer_than_the_bound_loses_its_beginning(pty, events, attached):
    pty.write(b"x" * 300_000 + b"end")
    assert read_all(pty, events, attached) == b"x" * (CONSOLE_SCROLLBACK_BYTES_MAX - 3) + b"end"


def test_it_does_not_hang_up_when_whoever_attached_goes(pty, events):
    pty.listen(on=True)
    for _ in range(3):
        os.close(os.open(pty.path, os.O_RDWR | os.O_NOCTTY))
        assert events.poll(0) == []
    assert pty.read(10) == b""


def test_closing_hangs_up_whoever_is_attached(events, readers):
    pty = Pty(events, readers, print)
    attached = os.open(pty.path, os.O_RDWR | os.O_NOCTTY)
    pty.close()
    try:
        assert os.read(attached, 10) == b""
        with pytest.raises(termios.error):
            termios.tcgetattr(attached)
    finally:
        os.close(attached)


def test_without_a_terminal_everything_is_accepted_and_nothing_shown():
    pty = NoPty()
    pty.write(b"x" * 100_000)
    pty.flush()
    pty.listen(on=False)
    assert (pty.path, pty.listening) == ("", True)
    pty.close()
