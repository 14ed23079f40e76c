"""A medium is opened once: ahead where that was asked for, else when somebody wants it."""

import os

import pytest

from hvd.domains.media import Media
from hvd.transport.hypercalls import HypercallError
from hvd.transport.ids import DomId
from hvd.transport.messages import PhysdevOpenMedium
from hvd.transport.multicall import Answered

DISK = DomId(2), "vbd", 768


@pytest.fixture
def asked():
    return []


@pytest.fixture
def media(asked):
    def call(message):
        asked.append(message)
        return None, [40 + len(asked)]

    return Media(call)


def test_what_was_opened_ahead_is_taken_once_and_asked_for_afresh_then(media, asked):
    media.have({DISK: Answered(0, None, [7])})
    assert [media.open(*DISK), media.open(*DISK)] == [7, 41]
    assert asked == [PhysdevOpenMedium(*DISK)]


def test_what_was_refused_ahead_is_refused_to_whoever_opens_it_and_only_to_him(media):
    media.have({DISK: Answered(16, "somebody writes it", [])})
    with pytest.raises(HypercallError, match="PhysdevOpenMedium: somebody writes it \\(EBUSY\\)"):
        media.open(*DISK)
    assert media.open(*DISK) == 41


def test_what_nobody_has_opened_is_closed_and_what_somebody_has_is_not(media):
    (wanted, unwanted), other = os.pipe(), (DomId(3), "vbd", 768)
    media.have({DISK: Answered(0, None, [wanted]), other: Answered(0, None, [unwanted])})
    assert media.open(*DISK) == wanted
    media.close_unwanted()
    assert os.read(wanted, 1) == b""
    os.close(wanted)
