"""What a spare would ask first has been carried out by the time that it is let run: the answers, and what is left over.

A mapping is taken up at once, since the hypervisor hands out the descriptor of an extent once. Everything else waits
for the multicall that it is an answer to; what none has asked for is given back.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import msgpack

from hvd.domains.grants import Grants
from hvd.transport import messages as m
from hvd.transport.channels import is_closed
from hvd.transport.errors import PeerFault
from hvd.transport.hypercalls import HypercallError
from hvd.transport.ids import Port


class Answer(NamedTuple):
    """To one call."""

    value: Any
    descriptors: list[int]
    """Ours to close."""


class Ahead:
    """Of one domain, for as long as it takes up its devices."""

    def __init__(self, answers: Mapping[bytes, tuple[Any, list[int]]], grants: Grants) -> None:
        """By the call, packed as an entry of a multicall."""
        self._grants = grants
        self._answers: dict[bytes, Answer] = {}
        for call, (value, descriptors) in answers.items():
            if _kind(call) is not m.GnttabMap:
                self._answers[call] = Answer(value, descriptors)
                continue
            with suppress(OSError, PeerFault):  # no room for it: whoever wants it asks, and is told so
                grants.adopt(value, descriptors)
                self._answers[call] = Answer(value, [])

    def ask(self, message: m.Multicall, call: Callable[[m.Multicall], Any]) -> Any:
        """What a multicall brings, as `call` would: of its entries only those are asked that were not answered.

        Of all up to the first that has no answer now either: for what is behind it the caller asks again.
        """
        answers = [self._take(entry, call) for entry in message.calls]
        unasked = [entry for entry, answer in zip(message.calls, answers, strict=True) if answer is None]
        try:
            asked = call(m.Multicall(unasked)) if unasked else []
        except HypercallError:  # all of it is refused: what was answered waits on
            self._keep(message.calls, answers)
            raise
        replies, brought = asked if isinstance(asked, tuple) else (asked, [])
        left, descriptors = iter(replies), iter(brought)
        merged: list[Any] = []
        all_descriptors: list[int] = []
        for answer in answers:
            found = next(left, None) if answer is None else (0, answer.value, len(answer.descriptors))
            if found is None:
                self._keep(message.calls[len(merged) :], answers[len(merged) :])
                break
            code, value, count = found
            merged.append([code, value, count])
            all_descriptors += [next(descriptors) for _ in range(count)] if answer is None else answer.descriptors
        return (merged, all_descriptors) if all_descriptors else merged

    def _keep(self, entries: list[bytes], answers: list[Answer | None]) -> None:
        known = zip(entries, answers, strict=True)
        self._answers |= {entry: answer for entry, answer in known if answer is not None}

    def _take(self, entry: bytes, call: Callable[[Any], Any]) -> Answer | None:
        """A port is one of the same number by now where the other end of ours is gone: that is asked for anew."""
        answer = self._answers.get(entry)
        if answer is None or _kind(entry) is not m.EvtchnBindInterdomain:
            return self._answers.pop(entry, None)
        if not is_closed(answer.descriptors[0], answer.value["side"]):
            return self._answers.pop(entry)
        self._give_back(entry, call)
        return None

    def give_back(self, call: Callable[[Any], Any]) -> None:
        """What nobody has asked for."""
        for entry in list(self._answers):
            self._give_back(entry, call)

    def _give_back(self, entry: bytes, call: Callable[[Any], Any]) -> None:
        value, descriptors = self._answers.pop(entry)
        for descriptor in descriptors:
            os.close(descriptor)
        with suppress(HypercallError):
            kind = _kind(entry)
            if kind is m.GnttabMap:
                self._grants.disown(value)
            elif kind is m.EvtchnBindInterdomain:
                call(m.EvtchnClose(Port(value["port"])))
            elif kind is m.StoreWatch:
                call(m.StoreUnwatch(*msgpack.unpackb(entry)[1][:2]))


def _kind(entry: bytes) -> type | None:
    """Of the hypercall in an entry of a multicall."""
    return m.HYPERCALLS.get(msgpack.unpackb(entry)[0])
