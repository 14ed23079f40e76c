"""A broker's journal that is not what was written: it is read to the last record that was, or is told to be corrupt.

What must hold: records that nobody touched come back as they were written and in order; one that was touched is never
handed on as a record; whoever finds a journal can read its intent; and what was refused holds no memory.
"""

from __future__ import annotations

import os

from hvd.broker.journal import RECORD, RECORDS_AT, SESSION_BYTES_MAX, Intent, Journal, JournalCorrupt, JournalFull
from tests.fuzz.python.choices import Choices

CAPACITY = 600
RECORDS_MAX, TOUCHES_MAX = 8, 6
WORDS = 80
"""Bytes of the header that mean something."""


def play(data: bytes) -> None:
    choices = Choices(data)
    written = [choices.take(1 + choices.below(40))]
    journal = Journal.create(written[0], CAPACITY)
    try:
        for _ in range(choices.below(RECORDS_MAX)):
            payload = choices.take(choices.below(120))
            try:
                journal.append(payload)
            except JournalFull:
                continue
            written.append(payload)
        session = choices.text(SESSION_BYTES_MAX)
        if choices.flag():
            journal.open_intent(session, choices.number(8))
        assert list(journal.records()) == written
        _touch(choices, journal.descriptor)
        _inherit(journal.descriptor, written)
    finally:
        journal.close()
        os.close(journal.descriptor)


def _touch(choices: Choices, descriptor: int) -> None:
    size = os.fstat(descriptor).st_size
    for _ in range(TOUCHES_MAX):
        if not choices.more():
            return
        match choices.below(4):
            case 0:
                os.pwrite(descriptor, choices.take(8), choices.below(WORDS))
            case 1:
                os.pwrite(descriptor, choices.take(4), RECORDS_AT + choices.number(2) % (size - RECORDS_AT - 4))
            case 2:  # a record's header, as long as it likes
                os.pwrite(descriptor, RECORD.pack(choices.number(4), choices.number(4)), RECORDS_AT)
            case _:  # where the records end
                os.pwrite(descriptor, choices.number(2).to_bytes(8, "little"), 8)


def _inherit(descriptor: int, written: list[bytes]) -> None:
    try:
        journal = Journal(descriptor)
    except JournalCorrupt as error:
        assert str(error)
        return
    try:
        found = []
        try:
            for record in journal.records():
                found.append(record)
        except JournalCorrupt as error:
            assert str(error)
        assert found == written[: len(found)], "a record that nobody has written"
        intent = journal.intent()
        assert intent is None or (isinstance(intent, Intent) and len(intent.session) <= SESSION_BYTES_MAX)
    finally:
        journal.close()
