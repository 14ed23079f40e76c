"""Messages with descriptors: they come whole, close-on-exec, and a bad one leaves nothing open."""

import array
import errno
import os
import socket
from pathlib import Path

import msgpack
import pytest

from hvd.transport.descriptors import (
    BYTES_PER_MESSAGE,
    DESCRIPTORS_PER_MESSAGE,
    drop_first_message,
    first_message,
    receive_message,
    send_message,
    socket_pair,
)
from hvd.transport.errors import PeerFault

DESCRIPTORS = Path("/proc/self/fd")


@pytest.fixture
def ends():
    ours, theirs = socket_pair()
    yield ours, theirs
    ours.close()
    theirs.close()


@pytest.fixture
def pipe():
    made = os.pipe()
    yield made
    for descriptor in made:
        os.close(descriptor)


def open_descriptors():
    return sorted(DESCRIPTORS.iterdir())


def test_a_message_arrives_as_it_was_sent(ends):
    message = ["hold", "extent:3", 5, b"\0\xff", None, {"a": [1]}]
    send_message(ends[0], message)
    assert receive_message(ends[1]) == (message, [])


def test_descriptors_arrive_with_their_message_in_order_and_close_on_exec(ends, pipe):
    send_message(ends[0], ["first"], pipe)
    send_message(ends[0], ["second"], (pipe[1],))
    for expected in (["first"], pipe), (["second"], pipe[1:]):
        received = receive_message(ends[1])
        assert received is not None
        message, descriptors = received
        assert message == expected[0]
        assert [os.fstat(one).st_ino for one in descriptors] == [os.fstat(one).st_ino for one in expected[1]]
        assert not any(os.get_inheritable(descriptor) for descriptor in descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def test_sending_leaves_the_senders_descriptors_open(ends, pipe):
    send_message(ends[0], ["x"], pipe)
    os.write(pipe[1], b"x")
    assert os.read(pipe[0], 1) == b"x"


def test_as_many_descriptors_as_the_bound_arrive_and_one_more_is_a_fault_that_leaves_none_open(ends, pipe):
    send_message(ends[0], ["x"], (pipe[0],) * DESCRIPTORS_PER_MESSAGE)
    received = receive_message(ends[1])
    assert received is not None
    for descriptor in received[1]:
        os.close(descriptor)
    before = open_descriptors()
    send_message(ends[0], ["x"], (pipe[0],) * (DESCRIPTORS_PER_MESSAGE + 1))
    with pytest.raises(PeerFault, match="cut short"):
        receive_message(ends[1])
    assert open_descriptors() == before


@pytest.mark.parametrize("data", [b"\xc1", b"\xc0", b"\x90", b"\x81\xa1a\x01", b"\x93\x01", b"\x91\xd9\xff",
                                  b"\x91" * 5000])
def test_what_is_no_list_is_a_fault_that_leaves_nothing_open(ends, pipe, data):
    before = open_descriptors()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", pipe))]
    ends[0].sendmsg([data], rights)
    with pytest.raises(PeerFault):
        receive_message(ends[1])
    assert open_descriptors() == before


def test_a_message_that_is_too_long_is_a_fault(ends):
    ends[0].sendmsg([msgpack.packb(["x" * BYTES_PER_MESSAGE])])
    with pytest.raises(PeerFault, match="cut short"):
        receive_message(ends[1])


def test_an_empty_message_with_descriptors_is_a_fault_and_no_end_of_file(ends, pipe):
    before = open_descriptors()
    ends[0].sendmsg([b""], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", pipe))])
    with pytest.raises(PeerFault):
        receive_message(ends[1])
    assert open_descriptors() == before


def test_the_end_of_the_other_side_is_told(ends):
    send_message(ends[0], ["last"])
    ends[0].close()
    assert receive_message(ends[1]) == (["last"], [])
    assert receive_message(ends[1]) is None


def test_nothing_there_and_no_room_are_told_at_once(ends):
    with pytest.raises(BlockingIOError):
        receive_message(ends[1])
    with pytest.raises(BlockingIOError):
        for _ in range(10_000):
            send_message(ends[0], ["x" * 1000])


def test_a_side_that_is_gone_is_an_error_and_no_signal(ends):
    ends[1].close()
    with pytest.raises(OSError, match="pipe") as raised:
        send_message(ends[0], ["x"])
    assert raised.value.errno == errno.EPIPE


def test_what_was_sent_before_the_end_is_received_though_something_lay_unread_there(ends, pipe):
    send_message(ends[1], ["unread"])
    send_message(ends[0], ["last"], pipe)
    send_message(ends[0], ["words"])
    ends[0].close()
    received = receive_message(ends[1])
    assert received is not None
    message, descriptors = received
    for descriptor in descriptors:
        os.close(descriptor)
    assert (message, len(descriptors)) == (["last"], 2)
    assert receive_message(ends[1]) == (["words"], [])
    assert receive_message(ends[1]) is None


def test_what_comes_first_is_seen_and_stays_though_something_lay_unread_at_the_other_end(ends):
    assert first_message(ends[1], 100) is None
    send_message(ends[1], ["unread"])
    send_message(ends[0], ["last"])
    ends[0].close()
    assert first_message(ends[1], 100) == first_message(ends[1], 100) == msgpack.packb(["last"])
    drop_first_message(ends[1].fileno())
    assert first_message(ends[1], 100) == b""


def test_what_was_seen_is_dropped_though_the_other_end_closes_meanwhile(ends):
    send_message(ends[1], ["unread"])
    send_message(ends[0], ["last"])
    assert first_message(ends[1], 100) == msgpack.packb(["last"])
    ends[0].close()
    drop_first_message(ends[1].fileno())
    assert first_message(ends[1], 100) == b""
