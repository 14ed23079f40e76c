"""The codec's bounds and the texts that name what breaks them."""

import msgpack
import pytest

from hvd.transport import messages as m
from hvd.transport.codec import BadMessage, decode, encode, pack_call, pack_request, unpack_reply, unpack_request
from hvd.transport.errors import PeerFault
from hvd.transport.ids import DomId, ExtentId, GrantRef, Handle, Port
from hvd.transport.limits import (
    COPY_SEGMENTS_MAX,
    EXTENT_PAGES_MAX,
    LIST_ITEMS_MAX,
    MESSAGE_BYTES_MAX,
    TEXT_BYTES_MAX,
)
from hvd.transport.records import dataclass

END = m.CopyEnd(DomId(0), GrantRef(8), 0)
SEGMENT = m.CopySegment(END, END, 1)


def carried(message):
    return unpack_request(pack_request(message, 1, 0, 0))[3]


def told(message_or_bytes):
    """The text of the refusal."""
    untrusted = message_or_bytes
    if not isinstance(untrusted, bytes):
        untrusted = msgpack.packb([m.WIRE_VERSION, 1, 0, 0, message_or_bytes.NUMBER, encode(message_or_bytes)])
    with pytest.raises(BadMessage) as raised:
        unpack_request(untrusted)
    return str(raised.value)


@pytest.mark.parametrize(("largest", "too_large", "field"), [
    (m.StoreRead(0, "x" * TEXT_BYTES_MAX), m.StoreRead(0, "x" * (TEXT_BYTES_MAX + 1)), "StoreRead.path"),
    (m.StoreRead(0, "\u00e9" * (TEXT_BYTES_MAX // 2)), m.StoreRead(0, "\u00e9" * (TEXT_BYTES_MAX // 2) + "x"),
     "StoreRead.path"),
    (m.StoreWrite(0, "x", b"x" * TEXT_BYTES_MAX), m.StoreWrite(0, "x", b"x" * (TEXT_BYTES_MAX + 1)),
     "StoreWrite.value"),
    (m.StoreWatch("x", "t" * 1022), m.StoreWatch("x", "t" * 1023), "StoreWatch.token"),
    (m.GnttabCopy([SEGMENT] * COPY_SEGMENTS_MAX), m.GnttabCopy([SEGMENT] * (COPY_SEGMENTS_MAX + 1)),
     "GnttabCopy.segments"),
    (m.GnttabAllocate(DomId(1), EXTENT_PAGES_MAX), m.GnttabAllocate(DomId(1), EXTENT_PAGES_MAX + 1),
     "GnttabAllocate.pages"),
    (m.DomctlCreate(m.DomainConfig("x", "k", cpus=[0] * LIST_ITEMS_MAX)),
     m.DomctlCreate(m.DomainConfig("x", "k", cpus=[0] * (LIST_ITEMS_MAX + 1))), "DomctlCreate.config.cpus"),
    (m.DomctlCreate(m.DomainConfig("n" * 64, "k")), m.DomctlCreate(m.DomainConfig("n" * 65, "k")),
     "DomctlCreate.config.name"),
    (m.Multicall([b"x"] * 64), m.Multicall([b"x"] * 65), "Multicall.calls"),
    (m.DomctlKill(DomId(1), 64), m.DomctlKill(DomId(1), 65), "DomctlKill.signal"),
    (m.EvtchnClose(Port(131_071)), m.EvtchnClose(Port(131_072)), "EvtchnClose.port"),
    (m.EvtchnClose(Port(1)), m.EvtchnClose(Port(0)), "EvtchnClose.port"),
    (m.DomctlPause(DomId(0x7FFF)), m.DomctlPause(DomId(0x8000)), "DomctlPause.dom"),
    (m.DomctlPause(DomId(0)), m.DomctlPause(DomId(-1)), "DomctlPause.dom"),
    (m.GnttabEndAccess(GrantRef(2**31 - 1), 1), m.GnttabEndAccess(GrantRef(2**31), 1), "GnttabEndAccess.ref"),
    (m.GnttabUnmap(Handle(2**63 - 1)), m.GnttabUnmap(Handle(2**63)), "GnttabUnmap.handle"),
    (m.GnttabFree(ExtentId(1)), m.GnttabFree(ExtentId(0)), "GnttabFree.extent"),
    (m.SetTimer(2**63 - 1), m.SetTimer(2**63), "SetTimer.deadline_ns"),
    (m.SchedShutdown(2**32 - 1), m.SchedShutdown(2**32), "SchedShutdown.reason"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_the_largest_is_carried_and_what_is_beyond_is_named(largest, too_large, field):
    assert carried(largest) == largest
    assert told(too_large).startswith(field)


@pytest.mark.parametrize(("config", "place"), [
    (m.DomainConfig("x", "k", devices=[m.DeviceConfig("vbd", 0, "drv"), m.DeviceConfig("vbd", -1, "drv")]),
     "DomctlCreate.config.devices[1].devid"),
    (m.DomainConfig("x", "k", devices=[m.DeviceConfig("vbd", 0, "drv", {"mode": 3})]),  # type: ignore[dict-item]
     "DomctlCreate.config.devices[0].backend_keys.mode"),
    (m.DomainConfig("x", "k", devices=[m.DeviceConfig("vbd", 0, "drv", {str(n): "" for n in range(65)})]),
     "DomctlCreate.config.devices[0].backend_keys"),
    (m.DomainConfig("x", "k", args=["a", "b\0c"]), "DomctlCreate.config.args[1]"),
    (m.DomainConfig("x", "k", restart=m.RestartPolicy(limit=-1)), "DomctlCreate.config.restart.limit"),
])
def test_a_place_deep_inside_is_named(config, place):
    assert told(m.DomctlCreate(config)).startswith(f"{place} is ")


def test_a_text_with_a_nul_is_refused():
    assert told(m.StoreRead(0, "a\0b")) == "StoreRead.path is a text of at most 4096 bytes without NUL, found 'a\\x00b'"


@pytest.mark.parametrize("value", [True, 1.0, "1", None, [1]])
def test_only_an_integer_is_an_integer(value):
    assert told(msgpack.packb([1, 1, 0, 0, 0x2403, [value]])).startswith("DomctlPause.dom is an integer")


@pytest.mark.parametrize("value", [0, 1, None, "true"])
def test_only_true_and_false_are_booleans(value):
    assert told(msgpack.packb([1, 1, 0, 0, 0x2483, [value]])).startswith("MachineStop.reboot is true or")


@pytest.mark.parametrize(("envelope", "text"), [
    ([], "a hypercall is a list of 6: version, sequence, events, descriptors, number, fields"),
    ([2, 1, 0, 0, 0x1100, []], "wire version 2; this broker speaks 1"),
    ([True, 1, 0, 0, 0x1100, []], "wire version True; this broker speaks 1"),
    ([1, -1, 0, 0, 0x1100, []], "sequence is an integer from 0 to 9223372036854775807, found -1"),
    ([1, 1, "x", 0, 0x1100, []], "events is an integer from 0 to 9223372036854775807, found 'x'"),
    ([1, 1, 0, None, 0x1100, []], "descriptors is an integer from 0 to 9223372036854775807, found None"),
    ([1, 1, 0, 0, 0xFFFF, []], "unknown hypercall number 65535"),
    ([1, 1, 0, 0, True, []], "unknown hypercall number True"),
    ([1, 1, 0, 0, 0x1100, None], "XenVersion takes a list of 0 fields, found None"),
    ([1, 1, 0, 0, 0x2404, []], "DomctlUnpause takes a list of 1 fields, found a list of length 0"),
    ([1, 1, 0, 0, 0x2480, [1, 2, 3, 4]], "DomctlShutdown takes a list of 2 to 3 fields, found a list of length 4"),
])
def test_what_is_wrong_with_an_envelope_is_told(envelope, text):
    assert told(msgpack.packb(envelope)) == text


def test_the_sequence_number_to_answer_under_is_known_as_soon_as_it_was_read():
    for envelope, sequence in (([1, 7, 0, 0, 0xFFFF, []], 7), ([1, -7, 0, 0, 0xFFFF, []], 0), ([], 0)):
        with pytest.raises(BadMessage) as raised:
            unpack_request(msgpack.packb(envelope))
        assert raised.value.sequence == sequence


@pytest.mark.parametrize("depth", [100, 500, 1000, 5000, 60_000])
@pytest.mark.parametrize("opening", [b"\x91", b"\x81\xa1x"])
def test_a_value_nested_however_deep_is_a_bad_message_and_nothing_worse(opening, depth):
    nested = opening * depth + b"\xc0"
    for prefix in (b"", b"\x96\x01\x01\x00\x00\xcd\x11\x00", b"\x96\x01", b"\x96\x01\x01\x00\x00", b"\x96"):
        if len(prefix + nested) <= MESSAGE_BYTES_MAX:
            told(prefix + nested)


def test_a_long_wrong_value_is_not_repeated_at_length():
    assert told(m.StoreRead(0, "x" * 60_000)).endswith("found str of length 60000")
    assert len(told(m.DomctlCreate(m.DomainConfig("x", "k", cpus=[2**64 - 1] * 1000)))) < 200


@pytest.mark.parametrize("packed", [b"\xc0", b"\x90", b"\x93\x01\x02\x03", b"", b"\xc1"])
def test_a_reply_that_is_none_is_the_brokers_fault(packed):
    with pytest.raises(PeerFault):
        unpack_reply(packed)


def test_a_kind_of_field_that_cannot_be_checked_is_noticed_when_the_message_is_declared_not_trusted():
    @dataclass(frozen=True, slots=True)
    class Wild:
        anything: object

    with pytest.raises(TypeError, match="no check for"):
        decode(Wild, [1], "Wild")


def test_an_entry_of_a_multicall_is_a_number_and_fields():
    assert msgpack.unpackb(pack_call(m.StoreRead(0, "/x"))) == [0x8002, [0, "/x"]]
