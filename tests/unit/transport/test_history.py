"""Records of a history, to bytes and back."""

from dataclasses import replace

import pytest

from hvd.transport.history import RECORD_SIZE, Event, HistoryWriter, Kind, Phase, pack, records, unpack_all

WRITE = Event(Phase.INVOKED, Kind.WRITE, (3 << 40) + 7, 4095, 64, bytes(range(16)))


def test_what_a_writer_records_is_read_back_with_the_time_it_was_recorded_at(tmp_path):
    writer = HistoryWriter(str(tmp_path / "acks"))
    writer.record(WRITE)
    writer.record(Event(Phase.OK, Kind.FLUSH, 8))
    first, second = unpack_all((tmp_path / "acks").read_bytes())
    assert 0 < first.at_ns <= second.at_ns
    assert first == replace(WRITE, at_ns=first.at_ns)
    assert (second.phase, second.kind, second.id) == (Phase.OK, Kind.FLUSH, 8)


def test_a_record_is_its_event_field_by_field():
    assert list(records(pack(WRITE, 99))) == [(1, 1, 64, WRITE.id, 4095, 99, WRITE.digest)]


@pytest.mark.parametrize("missing", [1, RECORD_SIZE - 1])
def test_a_torn_last_record_is_left_out(missing):
    assert len(list(records((pack(WRITE, 1) + pack(WRITE, 2))[:-missing]))) == 1


@pytest.mark.parametrize("torn", [1, RECORD_SIZE - 1])
def test_what_a_killed_writer_has_left_of_a_record_is_cut_off_by_the_next_as_it_records(tmp_path, torn):
    path = tmp_path / "acks"
    left = pack(WRITE, 1) + pack(WRITE, 2)[:torn]
    path.write_bytes(left)
    writer = HistoryWriter(str(path))
    assert path.read_bytes() == left, "a spare's writer is open while another process is in the middle of a record"
    for number in (8, 9):
        writer.record(Event(Phase.OK, Kind.FLUSH, number))
    assert [event.id for event in unpack_all(path.read_bytes())] == [WRITE.id, 8, 9]
    assert path.stat().st_size == 3 * RECORD_SIZE


@pytest.mark.parametrize("at", [0, 1])
def test_an_event_of_no_known_phase_or_kind_is_an_error(at):
    data = bytearray(pack(WRITE, 1))
    data[at] = 99
    with pytest.raises(ValueError, match="99 is not a valid"):
        list(unpack_all(bytes(data)))
