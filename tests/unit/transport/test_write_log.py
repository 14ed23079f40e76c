"""The log of writes: native code appends what Python reads, and what a killed writer left half is no record."""

import os
import zlib

import pytest

from hvd.transport._native import WriteLog
from hvd.transport.write_log import LogKind, LogRecord, records, whole_length


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log"


@pytest.fixture
def log(path):
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    yield WriteLog(descriptor), descriptor
    os.close(descriptor)


def bare(found):
    return [(record.kind, record.offset, record.length, record.content) for record in found]


def record_of(kind, offset, content):
    """A record as the format is documented, made here from nothing."""
    head = b"".join(n.to_bytes(size, "little") for n, size in
                    ((0x4C576468, 4), (kind, 4), (99, 8), (offset, 8), (len(content), 8)))  # fmt: skip
    return head + zlib.crc32(head + content).to_bytes(4, "little") + bytes(4) + content


def test_records_come_back_in_order_with_times_that_grow(log, path):
    writer, _ = log
    writer.append(LogKind.SYNC, 0, 0)
    writer.append(LogKind.DISCARD, 4096, 8192)
    writer.append(LogKind.FLUSHED, 0, 0)
    found = list(records(path.read_bytes()))
    assert bare(found) == [(LogKind.SYNC, 0, 0, b""), (LogKind.DISCARD, 4096, 8192, b""), (LogKind.FLUSHED, 0, 0, b"")]
    assert found[0].at_ns < found[1].at_ns < found[2].at_ns


def test_the_checksum_is_zlibs():
    data = record_of(LogKind.WRITE, 512, b"x" * 512)
    assert list(records(data)) == [LogRecord(LogKind.WRITE, 512, 512, 99, b"x" * 512)]


@pytest.mark.parametrize("cut", [1, 39, 40, 41, 551])
def test_a_record_that_is_not_all_there_ends_the_log_and_is_cut_off(path, cut):
    whole, torn = record_of(LogKind.WRITE, 0, b"a" * 512), record_of(LogKind.WRITE, 512, b"b" * 512)[:cut]
    path.write_bytes(whole + torn)
    assert len(list(records(path.read_bytes()))) == 1
    descriptor = os.open(path, os.O_RDWR)
    assert whole_length(descriptor) == len(whole)
    os.close(descriptor)


def test_a_record_whose_content_is_not_what_was_logged_ends_the_log(path):
    data = bytearray(record_of(LogKind.WRITE, 0, b"a" * 512) + record_of(LogKind.WRITE, 0, b"b" * 512))
    data[-1] ^= 1
    path.write_bytes(data)
    assert bare(records(bytes(data))) == [(LogKind.WRITE, 0, 512, b"a" * 512)]
    descriptor = os.open(path, os.O_RDWR)
    assert whole_length(descriptor) == len(data) // 2
    os.close(descriptor)


@pytest.mark.parametrize("kind", [0, 5, 2**32 - 1])
def test_a_record_of_no_kind_that_there_is_ends_the_log_whatever_its_checksum_says(path, kind):
    data = record_of(LogKind.WRITE, 0, b"a" * 512) + record_of(kind, 0, b"") + record_of(LogKind.SYNC, 0, b"")
    path.write_bytes(data)
    assert bare(records(data)) == [(LogKind.WRITE, 0, 512, b"a" * 512)]
    descriptor = os.open(path, os.O_RDWR)
    assert whole_length(descriptor) == 40 + 512
    os.close(descriptor)


@pytest.mark.parametrize("junk", [b"", b"\0" * 100, b"junk" * 30])
def test_what_is_no_log_has_no_records(path, junk):
    path.write_bytes(junk)
    assert list(records(junk)) == []
    descriptor = os.open(path, os.O_RDWR)
    assert whole_length(descriptor) == 0
    os.close(descriptor)


def test_a_log_that_cannot_be_written_is_an_error(path):
    path.touch()
    descriptor = os.open(path, os.O_RDONLY)
    with pytest.raises(OSError, match="Bad file descriptor"):
        WriteLog(descriptor).append(LogKind.SYNC, 0, 0)
    os.close(descriptor)
