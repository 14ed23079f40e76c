"""Lifecycle events reach who subscribed, and every line of the log is JSON with the time it was said."""

import json
import os
import time

import msgpack
import pytest
import zmq

from hvd.broker.event_log import Event
from hvd.broker.poller import Poller
from hvd.broker.publisher import Publisher
from hvd.transport.hypercalls import socket_address

DEADLINE_S = 60.0
DIED = Event(8, 99, "died", 5, "ivi", 2, "killed by SIGKILL")
READY = Event(9, 100, "ready", 1, "drv", 1, "")


class Newsroom:
    """A publisher with the loop that serves it."""

    def __init__(self, directory):
        (directory / "log").mkdir()
        self.log = directory / "log" / "broker.log"
        self._descriptor = os.open(directory, os.O_PATH)
        self._context = zmq.Context()
        self._subscribers = []
        self.poller = Poller()
        self.publisher = Publisher(self._context, self._descriptor, self.poller)
        self.publisher.connect(lambda: (1234, 7))

    def subscriber(self):
        socket = self._context.socket(zmq.SUB)
        socket.connect(socket_address(self._descriptor, "events"))
        socket.subscribe(b"")
        self._subscribers.append(socket)
        return socket

    def hear(self, socket):
        """The next event, while the loop runs."""
        end = time.monotonic() + DEADLINE_S
        while not socket.poll(1):
            assert time.monotonic() < end
            self.poller.poll(0)
        return Event(*msgpack.unpackb(socket.recv()))

    def lines(self, count):
        """The log's lines, once there are so many."""
        end = time.monotonic() + DEADLINE_S
        while True:
            lines = self.log.read_text().splitlines() if self.log.exists() else []
            if len(lines) >= count:
                return [json.loads(line) for line in lines]
            assert time.monotonic() < end
            time.sleep(0.005)

    def close(self):
        for socket in self._subscribers:
            socket.close(0)
        self._context.destroy(linger=0)
        os.close(self._descriptor)


@pytest.fixture
def newsroom(tmp_path):
    made = Newsroom(tmp_path)
    yield made
    made.close()


def test_a_subscriber_is_greeted_and_misses_nothing_from_then_on(newsroom):
    listener = newsroom.subscriber()
    hello = newsroom.hear(listener)
    assert (hello.event, hello.number, hello.detail) == ("hello", 7, "1234")
    newsroom.publisher.publish(DIED)
    assert newsroom.hear(listener) == DIED


def test_a_subscriber_is_greeted_though_others_are_told_something_at_that_moment(newsroom):
    """Sending takes the socket's sign that somebody came: nobody may be left waiting for the greeting."""
    for _ in range(20):
        listener = newsroom.subscriber()
        end = time.monotonic() + DEADLINE_S
        heard = ""
        while heard != "hello":
            newsroom.publisher.publish(READY)
            if listener.poll(1):
                heard = msgpack.unpackb(listener.recv())[2]
            assert time.monotonic() < end


def test_an_event_that_nobody_hears_is_news_and_no_burden(newsroom):
    for _ in range(5000):
        newsroom.publisher.publish(READY)


def test_lines_wait_for_the_log_and_keep_the_time_they_were_said(newsroom):
    newsroom.publisher.log("bad hypercall", domid=5, reason="not msgpack")
    newsroom.publisher.publish(DIED)
    before = time.time()
    newsroom.publisher.start_logging(after_s=0)
    first, second = newsroom.lines(2)
    newsroom.publisher.log("later")
    newsroom.publisher.write_log()  # as the loop does, when it has answered
    later = newsroom.lines(3)[2]
    assert (first["event"], first["domid"], first["reason"]) == ("bad hypercall", 5, "not msgpack")
    assert (second["event"], second["number"], second["incarnation"]) == ("died", 8, 2)
    assert first["timestamp"] < second["timestamp"] < later["timestamp"]
    assert second["timestamp"] <= time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(before + 1))


def test_what_waits_for_the_log_is_bounded(newsroom):
    for n in range(3000):
        newsroom.publisher.log("line", number=n)
    newsroom.publisher.start_logging(after_s=0)
    numbers = [line["number"] for line in newsroom.lines(1000)]
    assert numbers == list(range(2000, 3000))
