"""A domain's end of its console: all arrives in order, and nobody waits for ever for a back that does not listen."""

import re
import signal
import struct
import threading
import time

import pytest

from hvd.domains.console import frontend
from hvd.transport.limits import CONSOLE_BACKLOG_BYTES_MAX
from hvd.transport.protocols.console import OUT_SIZE

LINES = [b"line %06d\r\n" % number for number in range(40_000)]
PATIENT_S = 60.0


class Interrupted(Exception):
    pass


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(frontend, "STALL_S", 0.02)


@pytest.fixture
def patient(monkeypatch):
    """Who serves may stand still for longer than a write waits."""
    monkeypatch.setattr(frontend, "STALL_S", PATIENT_S)


@pytest.fixture
def alarm(line, patient):
    """alarm(handler): a signal in the middle of the next write that waits."""
    arrived, done = threading.Event(), threading.Event()
    before, main, threads = signal.getsignal(signal.SIGALRM), threading.get_ident(), []

    def arm(handler):
        sleeps = line.endpoint.statistics().sleeps

        def once(*_):
            if not arrived.is_set():
                arrived.set()
                handler()

        def shoot():
            while not (arrived.is_set() or done.is_set()):  # once may be just before the system call
                if line.endpoint.statistics().sleeps > sleeps:
                    signal.pthread_kill(main, signal.SIGALRM)
                time.sleep(0.005)

        signal.signal(signal.SIGALRM, once)
        threads.append(threading.Thread(target=shoot))
        threads[-1].start()

    yield arm
    done.set()
    for thread in threads:
        thread.join()
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def served(line, monkeypatch):
    """served(end): domain 0 takes what comes, in a thread, until it ends like this; call the result to have it.

    From then on it is waited for, however late it comes to it.
    """
    threads = []

    def serve(end):
        monkeypatch.setattr(frontend, "STALL_S", PATIENT_S)
        seen = []
        thread = threading.Thread(target=lambda: seen.append(line.take_until(end)))
        thread.start()
        threads.append(thread)

        def result():
            thread.join()
            return seen[0]

        return result

    yield serve
    for thread in threads:
        thread.join()


def raise_interrupted():
    raise Interrupted


# ---- out -------------------------------------------------------------------------------------------------------------


def test_what_is_printed_is_there_and_notified(line):
    line.console.write(b"hello")
    assert line.bell.take()
    assert line.take() == b"hello"


def test_more_than_a_ring_is_printed_as_the_back_makes_room(line, served):
    result = served(b"end")
    for at in range(0, len(LINES), 1000):
        line.console.write(b"".join(LINES[at : at + 1000]))
    line.console.write(b"end")
    assert result() == b"".join(LINES) + b"end"


def test_a_write_that_nobody_takes_returns_and_the_next_ones_do_not_wait(line, impatient):
    line.console.write(b"x" * (OUT_SIZE + 1))
    sleeps = line.endpoint.statistics().sleeps
    assert sleeps > 0
    for _ in range(100):
        line.console.write(b"y")
    assert line.endpoint.statistics().sleeps == sleeps
    line.take()
    line.domain.wait(1)
    assert line.take() == b"x" + b"y" * 100


def test_once_the_back_takes_something_writes_wait_for_it_again(line, impatient, served):
    line.console.write(b"x" * (OUT_SIZE + 1))
    line.take()
    result = served(b"end")
    line.console.write(b"".join(LINES[:1000]) + b"end")
    assert result() == b"x" + b"".join(LINES[:1000]) + b"end"


def test_past_the_bound_the_oldest_whole_lines_go_and_are_counted(line, impatient):
    line.console.write(b"".join(LINES[:10_000]))
    for at in range(10_000, len(LINES), 100):
        line.console.write(b"".join(LINES[at : at + 100]))
    seen = b""
    while data := line.take():
        seen += data
        line.domain.wait(1)
    parts = re.fullmatch(rb"(.*)\r\n\[(\d+) bytes lost\]\r\n(.*)", seen, re.DOTALL)
    assert parts
    before, lost, after = parts.groups()
    everything = b"".join(LINES)
    assert before == everything[:OUT_SIZE]
    assert everything.endswith(after)
    assert after.startswith(b"line ")
    assert len(before) + int(lost) + len(after) == len(everything)
    assert CONSOLE_BACKLOG_BYTES_MAX - len(LINES[0]) <= len(after) <= CONSOLE_BACKLOG_BYTES_MAX


def test_what_waits_goes_out_when_the_back_comes_back(line, impatient):
    line.console.write(b"a" * OUT_SIZE + b"b")
    assert line.take() == b"a" * OUT_SIZE
    assert line.domain.wait(1)
    assert line.take() == b"b"


def test_a_signal_that_ends_a_write_loses_nothing_and_leaves_the_port_bound(line, alarm):
    line.console.write(b"a" * OUT_SIZE)
    alarm(raise_interrupted)
    with pytest.raises(Interrupted):
        line.console.write(b"b")
    assert line.take() == b"a" * OUT_SIZE
    assert line.domain.wait(1)
    assert line.take() == b"b"


def test_a_signals_handler_may_print_while_a_write_waits(line, alarm, served):
    results = []

    def handler():
        line.console.write(b"handler")
        results.append(served(b"handler"))

    line.console.write(b"a" * OUT_SIZE)
    alarm(handler)
    line.console.write(b"main")
    assert results[0]() == b"a" * OUT_SIZE + b"main" + b"handler"


@pytest.mark.parametrize("owner", ["waits", "works"])
def test_another_threads_writes_arrive_whatever_the_owner_does(line, served, owner):
    result = served(b"end")
    text = b"".join(LINES[:2000]) + b"end"
    thread = threading.Thread(target=line.console.write, args=(text,))
    thread.start()
    while owner == "waits" and thread.is_alive():
        line.domain.wait(0.05)
    thread.join()
    assert result() == text


def test_the_main_thread_may_print_while_another_waits_in_the_runtime(line, served):
    done = threading.Event()

    def wait_in_runtime():
        while not done.is_set():
            line.domain.wait(0.05)

    waiting = threading.Thread(target=wait_in_runtime)
    line.take()
    line.bell.notify()
    waiting.start()
    result = served(b"end")
    for at in range(0, len(LINES), 1000):
        line.console.write(b"".join(LINES[at : at + 1000]))
    line.console.write(b"end")
    assert result() == b"".join(LINES) + b"end"
    done.set()
    waiting.join()


def test_threads_that_print_together_lose_nothing(line, served):
    result = served(b"end")
    texts = [bytes([letter]) * 20_000 for letter in b"abcd"]
    threads = [threading.Thread(target=line.console.write, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    line.console.write(b"o" * 20_000)
    for thread in threads:
        thread.join()
    line.console.write(b"end")
    assert sorted(result()) == sorted(b"".join(texts) + b"o" * 20_000 + b"end")


def test_draining_waits_until_everything_is_taken(line, impatient, served):
    line.console.write(b"".join(LINES[:1000]) + b"end")
    result = served(b"end")
    assert line.console.drain(20)
    assert line.console.undelivered() == b""
    assert result() == b"".join(LINES[:1000]) + b"end"


def test_draining_gives_up_and_what_is_left_can_be_had(line, impatient):
    text = b"".join(LINES[:1000])
    line.console.write(text)
    assert not line.console.drain(0.05)
    assert line.console.undelivered() == text


def test_who_waits_no_more_writes_down_what_is_left_and_says_so(line, impatient, capfd):
    text = b"".join(LINES[:1000])
    line.console.write(text)
    assert not line.back.written_down
    line.console.write_down()
    line.console.write(b"and this")
    assert capfd.readouterr().out.encode() == text.replace(b"\r\n", b"\n") + b"and this"
    assert line.back.written_down and line.back.peek() == text[:OUT_SIZE]


def test_what_domain_0_comes_for_just_then_is_not_missing_in_the_log(line, impatient, capfd):
    """It shows what it finds behind the mark, and does not write it down."""

    class Ring:
        def undelivered(self):
            if line.back.written_down:
                line.take()
            return ring.undelivered()

        def write_down(self):
            ring.write_down()
            line.take()

    line.console.write(b"last words")
    ring, line.console._ring = line.console._ring, Ring()
    line.console.write_down()
    assert capfd.readouterr().out == "last words"


def test_of_a_ring_that_broke_just_then_the_rest_is_in_the_log(line, impatient, capfd):
    text = b"".join(LINES[:1000])
    line.console.write(text)
    struct.pack_into("<I", line.page.view, 3080, 12345)
    line.console.write_down()
    assert capfd.readouterr().out.encode() == text[OUT_SIZE:].replace(b"\r\n", b"\n")


def test_a_child_of_the_domains_writes_down_nothing_of_its_parents(line, impatient, capfd):
    line.console.write(b"the parent's")
    line.console.disown()
    line.console.write_down()
    assert (capfd.readouterr().out, line.back.written_down) == ("", False)


@pytest.mark.parametrize("bit", range(32))
def test_no_flipped_bit_says_that_a_console_is_written_down(line, bit):
    struct.pack_into("<I", line.page.view, 4092, 1 << bit)
    assert not line.back.written_down


def test_the_domain_that_serves_itself_is_asked_to_make_room(line):
    seen = []
    line.console.relieve = lambda: seen.append(line.take())
    line.console.write(b"".join(LINES))
    assert line.console.drain(20)
    assert b"".join(seen) == b"".join(LINES)


def test_the_domain_that_cannot_serve_itself_yet_does_not_wait_for_itself(line):
    calls = []
    line.console.relieve = lambda: calls.append(1)
    line.console.write(b"x" * (OUT_SIZE + 1))
    assert not line.console.drain(600)
    assert len(calls) < 10
    assert line.take() == b"x" * OUT_SIZE


def test_a_back_that_breaks_the_ring_sends_the_output_to_the_log(line, capfd):
    line.console.write(b"before ")
    struct.pack_into("<I", line.page.view, 3080, 12345)
    line.console.write(b"after")
    line.console.write(b", and later")
    assert line.console.read() == b""
    assert line.console.drain(20)
    raw = capfd.readouterr().out
    assert "closed by the peer's fault" in raw
    assert raw.endswith("log only\nafter, and later")


@pytest.mark.parametrize("at", [3072, 3076, 3080, 3084])
def test_whoever_neither_prints_nor_reads_finds_a_broken_ring_with_the_next_event(line, capfd, at):
    line.console.write(b"taken")
    line.take()
    struct.pack_into("<I", line.page.view, at, 1 << 31)
    line.bell.notify()
    assert line.domain.wait(1)
    assert "closed by the peer's fault" in capfd.readouterr().out
    line.console.write(b"and on")
    assert capfd.readouterr().out == "and on"


# ---- in --------------------------------------------------------------------------------------------------------------


def test_what_is_typed_is_read_and_its_room_given_back(line):
    line.type(b"typed")
    assert line.console.read() == b"typed"
    assert line.bell.take()
    assert line.back.free == 1024


def test_reading_waits_for_typing(line):
    thread = threading.Timer(0.05, line.type, (b"late",))
    thread.start()
    assert line.console.read() == b"late"
    thread.join()


def test_reading_ends_at_its_timeout(line):
    assert line.console.read(0) == b""
    assert line.console.read(0.02) == b""


def test_typing_that_arrives_while_a_write_waits_is_not_missed(line, impatient):
    line.console.write(b"x" * OUT_SIZE)
    thread = threading.Timer(0.01, line.type, (b"typed",))
    thread.start()
    line.console.write(b"y")
    thread.join()
    assert line.console.read() == b"typed"


def test_what_is_put_waits_for_nobody_and_says_how_much_has_no_room(line):
    assert line.console.put(b"x" * OUT_SIZE) == line.console.waiting == 0
    assert line.console.put(b"y" * 100) == line.console.waiting == 100
    assert line.take() == b"x" * OUT_SIZE
    line.domain.wait(0)
    assert line.console.waiting == 0
    assert line.take() == b"y" * 100


def test_of_what_is_put_and_never_taken_the_oldest_is_lost(line):
    for written in LINES:
        line.console.put(written)
    assert line.console.waiting <= CONSOLE_BACKLOG_BYTES_MAX
    assert line.console.undelivered().endswith(LINES[-1])
