"""A trace buffer whose domain writes anything into it: it is followed to the end, what makes no sense is counted,
and the story of all buffers is told.

What must hold: nothing is raised; a record that was read counts once, as an event, torn, senseless or lost; what a
trace keeps is bounded; and no mark of a story lies on a lane that it has not.
"""

from __future__ import annotations

import os

from hvd.toolstack.trace.clock import Moment, Timeline
from hvd.toolstack.trace.session import Recording
from hvd.toolstack.trace.story import tell
from hvd.toolstack.trace.track import JUMP_MAX, KEPT_MAX, Track
from hvd.transport.ids import DomId, Incarnation
from hvd.transport.limits import TRACE_RECORDS
from hvd.transport.pages import PAGE_SIZE
from hvd.transport.trace import HEAD, HYPERVISOR, RECORD, create_trace_buffer, give_memory_back, read_head, read_slots
from tests.fuzz.python.choices import Choices

STEPS_MAX = 40
LOOKS_MAX = 3
NOW = 1 << 40
BUFFERS = [create_trace_buffer() for _ in range(3)]
WHOSE = (HYPERVISOR, (DomId(1), Incarnation(1)), (DomId(2), Incarnation(3)))


def play(data: bytes) -> None:
    choices = Choices(data)
    for buffer in BUFFERS:
        give_memory_back(buffer)
    tracks = [Track(*whose, f"domain {whose[0]}", 0) for whose in WHOSE]
    for _ in range(STEPS_MAX):
        if not choices.more():
            break
        which = choices.below(len(BUFFERS))
        _write(choices, BUFFERS[which])
        if choices.below(4) == 0:
            _follow(tracks[which], BUFFERS[which], final=choices.flag())
    for track, buffer in zip(tracks, BUFFERS, strict=True):
        _follow(track, buffer, final=True)
    story = tell(Recording(Timeline(Moment(0, 0), Moment(NOW, NOW)), tracks))
    assert all(mark.lane in story.lanes for mark in story.marks)


def _write(choices: Choices, buffer: int) -> None:
    head = read_head(buffer)
    match choices.below(4):
        case 0:  # records that look like some
            for _ in range(1 + choices.below(8)):
                count = choices.pick((0, 1, 2, 65_535, choices.number(2)))
                id_ = choices.pick((choices.number(1), choices.number(8), choices.number(1) << 32 | choices.below(3)))
                at, head = head % TRACE_RECORDS, (head + 1) % (1 << 64)
                record = RECORD.pack(head, choices.number(4), id_, choices.below(5), count, choices.below(12))
                os.pwrite(buffer, record, PAGE_SIZE + at * RECORD.size)
            os.pwrite(buffer, HEAD.pack(head), 0)
        case 1:
            os.pwrite(buffer, choices.take(RECORD.size), PAGE_SIZE + choices.number(2) % TRACE_RECORDS * RECORD.size)
        case 2:
            os.pwrite(buffer, HEAD.pack(choices.number(8) if choices.below(8) == 0 else choices.below(100)), 0)
        case _:
            jump = choices.number(2) * TRACE_RECORDS // 4 if choices.below(32) == 0 else choices.below(100)
            os.pwrite(buffer, HEAD.pack((head + jump) % (1 << 64)), 0)


def _follow(track: Track, buffer: int, *, final: bool) -> None:
    """As a trace session reads it, but that its broker hands the slots on."""
    head = read_head(buffer)
    first = track.first_wanted(head, final=final)
    for _ in range(LOOKS_MAX):
        if first is None:
            break
        slots = read_slots(buffer, first)
        if not slots.untrusted_bytes:
            break
        track.take(slots, NOW, final=final)
        if track.next == first or track.next >= head:
            break
        first = track.first_wanted(head, final=final)
    assert len(track.events) <= KEPT_MAX and track.next >= 0
    assert min(track.lost, track.torn, track.senseless) >= 0 and track.next < (1 << 64) + JUMP_MAX
