"""Takes up what a peer offers: its pages mapped and its ports bound together, all of it or nothing.

One hypercall takes as many descriptors as a message has: a disk's ring of sixteen pages takes two.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from hvd.domains.grants import MappedPages
from hvd.transport import messages as m
from hvd.transport.channels import Endpoint
from hvd.transport.hypercalls import HypercallError
from hvd.transport.ids import DomId, GrantRef, Port
from hvd.transport.multicall import Answered, ask_each
from hvd.transport.records import dataclass, field

if TYPE_CHECKING:
    from hvd.domains.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Attached:
    """In the order in which they were named."""

    pages: list[MappedPages] = field(default_factory=list)
    runs: list[MappedPages] = field(default_factory=list)
    ports: list[tuple[Port, Endpoint]] = field(default_factory=list)


def attach(
    runtime: Runtime,
    peer: DomId,
    refs: Sequence[GrantRef],
    ports: Sequence[tuple[Port, Callable[[], None]]],
    runs: Sequence[GrantRef],
) -> Attached:
    """`Runtime.attach`."""
    calls: list[Any] = [m.GnttabMap(peer, ref, 1, True) for ref in refs]
    calls += [m.GnttabMap(peer, ref, 0, True) for ref in runs]
    calls += [m.EvtchnBindInterdomain(peer, port) for port, _ in ports]
    answers: list[Answered] = []
    attached = Attached()
    try:
        for answered in ask_each(runtime.hypercalls.call, calls):
            answers.append(answered)  # one by one: what is here is given back, whatever becomes of the rest
        for call, answered in zip(calls, answers, strict=True):
            if answered.errno:
                raise HypercallError(answered.errno, str(answered.value), type(call).__name__)
        for _ in refs:
            attached.pages.append(runtime.grants.take(*_next(answers)))
        for _ in runs:
            attached.runs.append(runtime.grants.take(*_next(answers)))
        for _, handler in ports:
            value, descriptors = _next(answers)
            attached.ports.append(runtime.take_channel(value, descriptors, handler))
    except BaseException:
        _drop(runtime, answers)
        runtime.detach(attached)
        raise
    return attached


def _next(answers: list[Answered]) -> tuple[dict[str, Any], list[int]]:
    """Whoever takes it undoes it himself when he cannot."""
    answered = answers.pop(0)
    return answered.value, answered.descriptors


def _drop(runtime: Runtime, answers: list[Answered]) -> None:
    """Undo what nobody has taken."""
    for answered in answers:
        for descriptor in answered.descriptors:
            os.close(descriptor)
        if not answered.errno:
            with contextlib.suppress(HypercallError):
                _undo(runtime, answered.value)


def _undo(runtime: Runtime, value: dict[str, Any]) -> None:
    """Pages may have been mapped ahead, before anybody asked for them."""
    if "handle" in value:
        runtime.grants.disown(value)
    else:
        runtime.hypercalls.call(m.EvtchnClose(Port(value["port"])))
