"""Counts what this process holds open, so that a target can tell whether an input leaked a descriptor."""

import select

NUMBERS = 256
"""New descriptors get the lowest free numbers, so that those of a target lie below."""
_POLL = select.poll()
for number in range(NUMBERS):
    _POLL.register(number, 0)


def open_descriptors() -> int:
    """In one system call."""
    return NUMBERS - sum(1 for _, events in _POLL.poll(0) if events & select.POLLNVAL)
