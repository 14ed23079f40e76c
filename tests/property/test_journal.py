"""The journal against a list: whatever is appended, by however many brokers, is what the next one reads."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hvd.broker.journal import RECORD, RECORDS_AT, Intent, Journal, JournalCorrupt, JournalFull

PAYLOADS = st.binary(max_size=60)
SESSIONS = st.text("dt:.0123456789abcdef", min_size=1, max_size=64)


class Journals(RuleBasedStateMachine):
    """Brokers come and go, one journal stays."""

    def __init__(self) -> None:
        super().__init__()
        self.room = 300
        self.journal = Journal.create(b"", 0)
        self.model: list[bytes] = []
        self.intent: Intent | None = None

    @initialize(snapshot=PAYLOADS)
    def create(self, snapshot: bytes) -> None:
        self.end()
        self.journal = Journal.create(snapshot, self.room)
        self.model = [snapshot]

    def end(self) -> None:
        self.journal.close()
        os.close(self.journal.descriptor)

    @rule(payload=PAYLOADS)
    def append(self, payload: bytes) -> None:
        try:
            self.journal.append(payload)
        except JournalFull:
            assert RECORD.size + len(payload) > self.room
            return
        self.room -= RECORD.size + len(payload)
        assert self.room >= 0
        self.model.append(payload)

    @rule(session=SESSIONS, sequence=st.integers(0, 2**63 - 1))
    def open_intent(self, session: str, sequence: int) -> None:
        self.journal.open_intent(session, sequence)
        self.intent = Intent(session, sequence)

    @rule()
    def close_intent(self) -> None:
        self.journal.close_intent()
        self.intent = None

    @rule(junk=st.binary(min_size=1, max_size=40))
    def a_broker_dies_in_the_middle_of_a_record(self, junk: bytes) -> None:
        end = RECORDS_AT + sum(RECORD.size + len(payload) for payload in self.model)
        os.pwrite(self.journal.descriptor, junk[: self.room], end)
        self.another_broker_takes_over()

    @rule()
    def another_broker_takes_over(self) -> None:
        self.journal.close()
        self.journal = Journal(self.journal.descriptor)

    @invariant()
    def the_records_are_those_that_were_appended(self) -> None:
        if self.model:
            assert list(self.journal.records()) == self.model
            assert self.journal.intent() == self.intent

    def teardown(self) -> None:
        self.end()


TestJournals = Journals.TestCase


@given(st.lists(PAYLOADS, min_size=1, max_size=6), st.data())
def test_a_damaged_byte_is_noticed_wherever_it_is(payloads: list[bytes], data: st.DataObject) -> None:
    used = sum(RECORD.size + len(payload) for payload in payloads)
    at = RECORDS_AT + data.draw(st.integers(0, used - 1))
    damage = data.draw(st.integers(1, 255))
    journal = Journal.create(payloads[0], 1000)
    for payload in payloads[1:]:
        journal.append(payload)
    journal.close()
    os.pwrite(journal.descriptor, bytes([os.pread(journal.descriptor, 1, at)[0] ^ damage]), at)
    successor = Journal(journal.descriptor)
    try:
        found = list(successor.records())
    except JournalCorrupt:
        found = []
    finally:
        successor.close()
        os.close(journal.descriptor)
    assert found == []
