"""Every message survives the wire, and whatever else comes over it is a BadMessage that says what is wrong."""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hvd.transport.codec import (
    ID_BOUNDS,
    BadMessage,
    encode,
    pack_call,
    pack_reply,
    pack_request,
    unpack_call,
    unpack_reply,
    unpack_request,
)
from hvd.transport.errors import LocalError
from hvd.transport.limits import LIST_ITEMS_MAX, MESSAGE_BYTES_MAX, TEXT_BYTES_MAX
from hvd.transport.messages import HYPERCALLS, WIRE_VERSION, DomainConfig, DomctlCreate, Most

KINDS = sorted(HYPERCALLS.values(), key=str)
WITH_FIELDS = pytest.mark.parametrize("kind", [kind for kind in KINDS if fields(kind)], ids=lambda kind: kind.__name__)
FEW = settings(max_examples=25)
"""For what runs once per message."""
SEQUENCES = st.integers(0, 2**63 - 1)


def text(most: int) -> st.SearchStrategy[str]:
    return st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=min(most, 20))


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Every value that a field may have: what the declaration of the messages means."""
    most = None
    if get_origin(hint) is Annotated:
        hint, bound = get_args(hint)
        most = bound.most if isinstance(bound, Most) else None
    if hint in ID_BOUNDS:
        return st.integers(*ID_BOUNDS[hint])
    if hint is bool:
        return st.booleans()
    if hint is int:
        return st.integers(0, 2**32 - 1 if most is None else most)
    if hint is str:
        return text(TEXT_BYTES_MAX if most is None else most)
    if hint is bytes:
        return st.binary(max_size=40)
    if get_origin(hint) is list:
        return st.lists(values(get_args(hint)[0]), max_size=min(LIST_ITEMS_MAX if most is None else most, 4))
    if get_origin(hint) is dict:
        return st.dictionaries(text(20), text(20), max_size=4)
    assert is_dataclass(hint), hint
    return records(hint)


def records(kind: Any) -> st.SearchStrategy[Any]:
    hints = get_type_hints(kind, include_extras=True)
    return st.builds(kind, **{field.name: values(hints[field.name]) for field in fields(kind)})


MESSAGES = st.sampled_from(KINDS).flatmap(records)
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.binary(max_size=20)
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=8)),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
    max_leaves=20,
)


def envelope(message: Any, untrusted_fields: Any) -> bytes:
    packed: bytes = msgpack.packb([WIRE_VERSION, 9, 0, 0, message.NUMBER, untrusted_fields])
    return packed


def bad(untrusted_bytes: bytes) -> BadMessage:
    with pytest.raises(BadMessage) as raised:
        unpack_request(untrusted_bytes)
    assert str(raised.value)
    assert len(str(raised.value)) < 400
    return raised.value


# ---- what is right comes through -------------------------------------------------------------------------------------


@given(MESSAGES, SEQUENCES, SEQUENCES, SEQUENCES)
def test_every_message_comes_back_as_it_was(message: Any, sequence: int, events: int, descriptors: int) -> None:
    packed = pack_request(message, sequence, events, descriptors)
    assert unpack_request(packed) == (sequence, events, descriptors, message)
    assert unpack_call(pack_call(message)) == message


@given(SEQUENCES, st.integers(0, 200), ANYTHING, st.integers(0, 16))
def test_a_reply_carries_any_value(sequence: int, errno: int, value: Any, descriptors: int) -> None:
    packed = pack_reply(sequence, errno, value, descriptors)
    assert pack_reply(*unpack_reply(packed)) == packed


@WITH_FIELDS
@FEW
@given(data=st.data())
def test_fields_with_a_default_may_be_left_out_and_no_others(kind: Any, data: st.DataObject) -> None:
    message = data.draw(records(kind))
    required = sum(field.default is MISSING and field.default_factory is MISSING for field in fields(kind))
    for kept in range(len(fields(kind))):
        short = envelope(kind, encode(message)[:kept])
        if kept >= required:
            assert encode(unpack_request(short)[3])[:kept] == encode(message)[:kept]
        else:
            assert kind.__name__ in str(bad(short))


# ---- everything else is told apart -----------------------------------------------------------------------------------


@given(st.binary(max_size=200))
@example(b"")
@example(b"\xc1")
@example(b"\xd6\xff\xff\xff\xff\xff")
@example(msgpack.packb([1, 2, 3, 4, 0x1400, msgpack.Timestamp(5, 7)]))
def test_bytes_are_a_message_or_a_bad_one(untrusted_bytes: bytes) -> None:
    try:
        unpack_request(untrusted_bytes)
    except BadMessage as error:
        assert str(error)


@given(ANYTHING)
def test_any_value_in_place_of_the_envelope_is_a_bad_message(value: Any) -> None:
    bad(msgpack.packb(value))


@given(MESSAGES, st.integers(0, 5), ANYTHING)
def test_any_value_in_any_place_of_the_envelope_is_read_or_refused(message: Any, place: int, value: Any) -> None:
    parts = msgpack.unpackb(pack_request(message, 7, 0, 0))
    parts[place] = value
    try:
        unpack_request(msgpack.packb(parts))
    except BadMessage as error:
        assert str(error)


@given(MESSAGES, st.data())
def test_a_message_cut_short_is_a_bad_one(message: Any, data: st.DataObject) -> None:
    packed = pack_request(message, 7, 0, 0)
    bad(packed[: data.draw(st.integers(0, len(packed) - 1))])
    bad(packed + b"\0")


@WITH_FIELDS
@FEW
@given(data=st.data())
def test_a_field_of_another_type_is_named(kind: Any, data: st.DataObject) -> None:
    message = data.draw(records(kind))
    hints = get_type_hints(kind)
    index = data.draw(st.integers(0, len(fields(kind)) - 1))
    field = fields(kind)[index]
    wrong = data.draw(ANYTHING.filter(lambda value: not fits(hints[field.name], value)))
    parts = encode(message)
    parts[index] = wrong
    error = bad(envelope(kind, parts))
    assert f"{kind.__name__}.{field.name}" in str(error)
    assert error.sequence == 9


def fits(hint: Any, value: Any) -> bool:
    """Whether a value might pass for the field, by its outermost type."""
    base = getattr(hint, "__supertype__", get_origin(hint) or hint)
    return isinstance(value, list) if is_dataclass(base) else type(value) is base


@given(MESSAGES, ANYTHING)
def test_one_field_too_many_is_refused(message: Any, extra: Any) -> None:
    assert type(message).__name__ in str(bad(envelope(message, [*encode(message), extra])))


@given(st.integers(-(2**63), 2**64 - 1).filter(lambda number: number not in HYPERCALLS))
def test_a_number_that_is_no_hypercall_is_told(number: int) -> None:
    error = bad(msgpack.packb([WIRE_VERSION, 4, 0, 0, number, []]))
    assert f"unknown hypercall number {number}" in str(error)
    assert error.sequence == 4


@given(st.binary(max_size=100))
def test_an_entry_of_a_multicall_is_read_or_refused(untrusted_bytes: bytes) -> None:
    try:
        unpack_call(untrusted_bytes)
    except BadMessage as error:
        assert str(error)


@given(st.integers(MESSAGE_BYTES_MAX + 1, 4 * MESSAGE_BYTES_MAX))
def test_a_message_that_is_too_large_is_not_decoded(size: int) -> None:
    error = bad(b"\xc1" * size)
    assert f"{size} bytes" in str(error)


def test_nothing_too_large_is_sent() -> None:
    message = DomctlCreate(DomainConfig("x", "k", args=["a" * TEXT_BYTES_MAX] * 17))
    with pytest.raises(LocalError, match="DomctlCreate takes"):
        pack_request(message, 1, 0, 0)
