"""Bytes to hypercall messages and back, with every type, range and size checked on the way in."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgpack

from hvd.transport.errors import LocalError, PeerFault
from hvd.transport.ids import GRANT_REF_MAX, DomId, ExtentId, GrantRef, Handle, Port
from hvd.transport.limits import LIST_ITEMS_MAX, MESSAGE_BYTES_MAX, TEXT_BYTES_MAX
from hvd.transport.messages import HYPERCALLS, POSTS, STORE_CALLS, WIRE_VERSION, Most
from hvd.transport.records import fields, is_record

Check = Callable[[Any, str], Any]
"""Takes an untrusted value and the name of its place; returns it typed or raises BadMessage."""

ID_BOUNDS: dict[Any, tuple[int, int]] = {
    DomId: (0, 0x7FFF),
    Port: (1, 131_071),
    GrantRef: (0, GRANT_REF_MAX),
    ExtentId: (1, 2**63 - 1),
    Handle: (1, 2**63 - 1),
}


class BadMessage(PeerFault):
    """The bytes are no hypercall; the text names the message and the field."""

    sequence = 0
    """The sequence number to answer under, if that much could be read."""


def encode(message: Any) -> list[Any]:
    """A message or nested record as the list of its fields."""
    return [_plain(getattr(message, f.name)) for f in fields(message)]


def _plain(value: Any) -> Any:
    if is_record(value):
        return encode(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def pack_request(message: Any, sequence: int, events_acknowledged: int, descriptors_received: int) -> bytes:
    """The bytes of one hypercall; LocalError if it is too large to be accepted."""
    envelope = [WIRE_VERSION, sequence, events_acknowledged, descriptors_received, message.NUMBER, encode(message)]
    packed: bytes = msgpack.packb(envelope)
    if len(packed) > MESSAGE_BYTES_MAX:
        name = type(message).__name__
        raise LocalError(f"{name} takes {len(packed)} bytes; a hypercall has at most {MESSAGE_BYTES_MAX}")
    return packed


def unpack_request(untrusted_bytes: bytes) -> tuple[int, int, int, Any]:
    """(sequence, events acknowledged, descriptors received, message); BadMessage says what is wrong with it."""
    if len(untrusted_bytes) > MESSAGE_BYTES_MAX:
        raise BadMessage(f"{len(untrusted_bytes)} bytes; a hypercall has at most {MESSAGE_BYTES_MAX}")
    envelope = _unpack(untrusted_bytes)
    if not (isinstance(envelope, list) and len(envelope) == 6):
        raise BadMessage("a hypercall is a list of 6: version, sequence, events, descriptors, number, fields")
    version, sequence, events, descriptors, number, untrusted_fields = envelope
    for place, value in (("sequence", sequence), ("events", events), ("descriptors", descriptors)):
        _counter(value, place)
    try:
        return sequence, events, descriptors, _message(version, number, untrusted_fields)
    except BadMessage as error:
        error.sequence = sequence
        raise


def may_ask_the_store(untrusted_bytes: bytes) -> bool:
    """Whether this is a hypercall to XenStore, or brings some."""
    number = _number_of(untrusted_bytes)
    return number is not None and number in STORE_CALLS


def is_post(untrusted_bytes: bytes) -> bool:
    """Whether this is a hypercall that its caller waits for no answer to."""
    number = _number_of(untrusted_bytes)
    return number is not None and number in POSTS


def _number_of(untrusted_bytes: bytes) -> int | None:
    """Of the hypercall; None if it is none."""
    try:
        envelope = _unpack(untrusted_bytes)
    except BadMessage:
        return None
    return envelope[4] if isinstance(envelope, list) and len(envelope) == 6 and type(envelope[4]) is int else None


def _message(version: Any, number: Any, untrusted_fields: Any) -> Any:
    if type(version) is not int or version != WIRE_VERSION:
        raise BadMessage(f"wire version {_shown(version)}; this broker speaks {WIRE_VERSION}")
    message = HYPERCALLS.get(number) if type(number) is int else None
    if message is None:
        raise BadMessage(f"unknown hypercall number {_shown(number)}")
    return decode(message, untrusted_fields, message.__name__)


def pack_call(message: Any) -> bytes:
    """One entry of a multicall."""
    packed: bytes = msgpack.packb([message.NUMBER, encode(message)])
    return packed


def unpack_call(untrusted_bytes: bytes) -> Any:
    """The message in one entry of a multicall; BadMessage says what is wrong with it."""
    entry = _unpack(untrusted_bytes)
    if not (isinstance(entry, list) and len(entry) == 2):
        raise BadMessage("an entry of a multicall is a list of 2: number, fields")
    return _message(WIRE_VERSION, *entry)


def pack_reply(sequence: int, errno: int, value: Any, descriptors: int) -> bytes:
    """The bytes of one reply."""
    packed: bytes = msgpack.packb([sequence, errno, value, descriptors])
    return packed


def unpack_reply(packed: bytes) -> tuple[int, int, Any, int]:
    """(sequence, errno, value, descriptors that follow); PeerFault on anything else."""
    reply = _unpack(packed)
    if not (isinstance(reply, list) and len(reply) == 4):
        raise PeerFault("the broker's reply is not a list of 4")
    return reply[0], reply[1], reply[2], reply[3]


def decode(message: type, untrusted_fields: Any, place: str) -> Any:
    """A value of the dataclass `message` from a list of its fields; trailing fields with defaults may be missing."""
    checks = _field_checks(message)
    required = sum(1 for _, _, optional in checks if not optional)
    if not isinstance(untrusted_fields, list) or not required <= len(untrusted_fields) <= len(checks):
        count = f"{required} to {len(checks)}" if required < len(checks) else f"{required}"
        raise BadMessage(f"{place} takes a list of {count} fields, found {_shown(untrusted_fields)}")
    pairs = zip(untrusted_fields, checks, strict=False)
    return message(*(check(value, f"{place}.{name}") for value, (name, check, _) in pairs))


def _unpack(untrusted_bytes: bytes) -> Any:
    try:
        return msgpack.unpackb(untrusted_bytes, strict_map_key=True)
    except (ValueError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise BadMessage(f"not msgpack: {error or type(error).__name__}") from None


@cache
def _field_checks(message: type) -> list[tuple[str, Check, bool]]:
    hints = get_type_hints(message, include_extras=True)
    return [
        (f.name, _check_for(hints[f.name]), not f.is_required)
        for f in fields(message)
    ]


def _check_for(hint: Any) -> Check:
    most = None
    if get_origin(hint) is Annotated:
        hint, bound = get_args(hint)
        most = bound.most if isinstance(bound, Most) else None
    if hint in ID_BOUNDS:
        return _integer(*ID_BOUNDS[hint])
    if hint is bool:
        return _boolean
    if hint is int:
        return _integer(0, 2**32 - 1 if most is None else most)
    if hint is str:
        return _text(TEXT_BYTES_MAX if most is None else most)
    if hint is bytes:
        return _bytes(TEXT_BYTES_MAX if most is None else most)
    if get_origin(hint) is list:
        return _list(_check_for(get_args(hint)[0]), LIST_ITEMS_MAX if most is None else most)
    if get_origin(hint) is dict:
        return _string_map
    if isinstance(hint, type) and is_record(hint):
        return lambda value, place: decode(hint, value, place)
    raise TypeError(f"no check for {hint!r}: a message field is an id, int, bool, str, bytes, list, dict or record")


def _integer(least: int, most: int) -> Check:
    def check(value: Any, place: str) -> int:
        if type(value) is not int or not least <= value <= most:
            raise BadMessage(f"{place} is an integer from {least} to {most}, found {_shown(value)}")
        return value

    return check


_counter = _integer(0, 2**63 - 1)


def _boolean(value: Any, place: str) -> bool:
    if type(value) is not bool:
        raise BadMessage(f"{place} is true or false, found {_shown(value)}")
    return value


def _text(most: int) -> Check:
    def check(value: Any, place: str) -> str:
        if type(value) is not str or len(value.encode("utf-8", "surrogatepass")) > most or "\0" in value:
            raise BadMessage(f"{place} is a text of at most {most} bytes without NUL, found {_shown(value)}")
        return value

    return check


def _bytes(most: int) -> Check:
    def check(value: Any, place: str) -> bytes:
        if type(value) is not bytes or len(value) > most:
            raise BadMessage(f"{place} is at most {most} bytes, found {_shown(value)}")
        return value

    return check


def _list(item: Check, most: int) -> Check:
    def check(value: Any, place: str) -> list[Any]:
        if not isinstance(value, list) or len(value) > most:
            raise BadMessage(f"{place} is a list of at most {most} items, found {_shown(value)}")
        return [item(entry, f"{place}[{index}]") for index, entry in enumerate(value)]

    return check


def _string_map(value: Any, place: str) -> dict[str, str]:
    if not isinstance(value, dict) or len(value) > 64:
        raise BadMessage(f"{place} is a map of at most 64 texts, found {_shown(value)}")
    text = _text(TEXT_BYTES_MAX)
    return {text(key, f"{place} key"): text(entry, f"{place}.{key}") for key, entry in value.items()}


def _shown(value: Any) -> str:
    """What was found, short whatever it is: a container may be nested deeper than Python prints."""
    if isinstance(value, list | dict):
        return f"a {type(value).__name__} of length {len(value)}"
    if isinstance(value, str | bytes) and len(value) > 60:
        return f"{type(value).__name__} of length {len(value)}"
    return repr(value)[:80]
