"""XenStore's wire format against Xen's header, and against bytes that are no message."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest

from hvd.transport import xs_wire
from hvd.transport.errors import PeerFault
from hvd.transport.xs_wire import Message, Type

HEADER = Path("/usr/include/xen/io/xs_wire.h")


def test_a_message_is_what_xenstored_was_seen_to_speak() -> None:
    """strace of xenstore-read /tool/hvd."""
    data = bytes.fromhex("02000000 00000000 00000000 0a000000") + b"/tool/hvd\0"
    assert xs_wire.pack(Type.READ, 0, 0, b"/tool/hvd\0") == data
    assert xs_wire.split(data, 0) == (Message(Type.READ, 0, 0, b"/tool/hvd\0"), len(data))


def test_a_message_is_whole_when_its_last_byte_is_there() -> None:
    data = xs_wire.pack(Type.WRITE, 1, 2, b"/a\0value") + b"rest"
    for end in range(len(data) - 4):
        assert xs_wire.split(data[:end], 0) is None
    message, end = xs_wire.split(data, 0) or (None, 0)
    assert message == Message(Type.WRITE, 1, 2, b"/a\0value") and data[end:] == b"rest"
    assert xs_wire.split(b"xx" + data, 2) == (message, end + 2)


def test_a_length_beyond_the_bound_is_the_peers_fault_before_the_rest_has_come() -> None:
    assert xs_wire.split(xs_wire.HEADER.pack(2, 1, 0, 4096), 0) is None
    for length in (4097, 0xFFFFFFFF):
        with pytest.raises(PeerFault, match=f"a message of {length} bytes"):
            xs_wire.split(xs_wire.HEADER.pack(2, 1, 0, length), 0)


def test_errors_are_names_and_one_without_a_name_is_einval() -> None:
    assert xs_wire.error_payload(errno.E2BIG) == b"E2BIG\0"
    assert xs_wire.error_payload(errno.ELOOP) == b"EINVAL\0"
    assert xs_wire.error_number(b"EAGAIN\0") == errno.EAGAIN
    assert xs_wire.error_number(b"EWHAT\0") == errno.EIO


@pytest.mark.skipif(not HEADER.exists(), reason="libxen-dev is not installed")
def test_types_errors_and_bounds_are_those_of_xens_header() -> None:
    text = HEADER.read_text()
    body = text[text.index("enum xsd_sockmsg_type") : text.index("XS_TYPE_COUNT")]
    names = re.findall(r"^\s+XS_([A-Z_]+)( = XS_SET_TARGET \+ 2)?,", body, re.M)
    expected: dict[str, int] = {}
    number = 0
    for name, jump in names:
        number = expected["SET_TARGET"] + 2 if jump else number
        expected[name] = number
        number += 1
    assert {member.name: int(member) for member in Type} == expected
    assert re.findall(r"XSD_ERROR\((E\w+)\)", text) == [payload[:-1].decode() for payload in xs_wire.ERRORS.values()]
    for name, value in (("XENSTORE_PAYLOAD_MAX", xs_wire.PAYLOAD_MAX), ("XENSTORE_RING_SIZE", xs_wire.RING_BYTES)):
        assert re.search(rf"#define {name} (\d+)", text)[1] == str(value)  # type: ignore[index]
