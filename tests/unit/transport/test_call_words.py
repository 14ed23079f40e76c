"""The words that a domain and its broker share: each reads what the other says, and nobody is woken by it."""

import os

import pytest

from hvd.transport._native import load_word, store_word
from hvd.transport.call_words import CallWords
from hvd.transport.channels import create_channel, is_pending, open_endpoint
from hvd.transport.errors import LocalError


@pytest.fixture
def channel():
    made = create_channel()
    yield made
    made.close()


@pytest.fixture
def words(channel):
    """A domain's, and its broker's."""
    ends = CallWords(channel.page_fd), CallWords(channel.page_fd)
    yield ends
    for end in ends:
        end.close()


def test_a_domain_that_has_said_nothing_asks_nothing_and_has_seen_nothing(words):
    domain, broker = words
    assert (domain.broker, broker.untrusted_asks, broker.untrusted_seen) == (0, False, 0)


def test_each_end_reads_what_the_other_says(words):
    domain, broker = words
    broker.serve(3)
    domain.begin()
    domain.see(7)
    domain.receive(8)
    assert (domain.broker, broker.untrusted_asks, broker.untrusted_seen) == (3, True, 7)
    domain.end()
    assert (broker.untrusted_asks, broker.untrusted_seen, broker.untrusted_received) == (False, 7, 8)


def test_whatever_they_say_rings_nothing_and_a_bell_says_nothing_in_their_place(channel, words):
    domain, broker = words
    bell = open_endpoint(channel.page_fd, 1, -1, os.dup(channel.ends[1].tx))
    broker.serve(2**64 - 1)
    domain.begin()
    domain.see(2**64 - 1)
    assert not is_pending(channel.page_fd, 0)
    bell.notify()
    assert is_pending(channel.page_fd, 0)
    assert not is_pending(channel.page_fd, 1)
    assert (domain.broker, broker.untrusted_asks, broker.untrusted_seen) == (2**64 - 1, True, 2**64 - 1)
    bell.close()


@pytest.mark.parametrize("offset", [4, 12, 16, 2**64 - 8])
def test_there_is_no_word_across_others_or_outside(offset):
    memory = bytearray(16)
    with pytest.raises(LocalError, match=f"no word at {offset} of 16 bytes"):
        load_word(memory, offset)
    with pytest.raises(LocalError, match=f"no word at {offset} of 16 bytes"):
        store_word(memory, offset, 1)
    assert memory == bytes(16)
