"""A domain's state in xl's six letters (xl(1), `list`), and why it is over."""

from __future__ import annotations

from hvd.toolstack.cluster.domain import DomainInfo, DomainState
from hvd.toolstack.cluster.process_times import ProcessTimes

_LETTERS = "-rscwS"
"""A shutdown reason as `xl list` shows it, by SHUTDOWN_* number."""
_CRASH = 3
_OVER = frozenset({DomainState.DEAD, DomainState.BACKING_OFF, DomainState.FAILED, DomainState.PRESERVED})
_DYING = frozenset({DomainState.DUMPING, DomainState.DYING})
_HELD = frozenset({DomainState.PAUSED, DomainState.WAITING})
"""The states in which it is not to run: what waits to be started has been built, for xl, and not unpaused."""


def reason(info: DomainInfo) -> int | None:
    """The SHUTDOWN_* number of one that is over or about to be, None of others. An end without a word is a crash."""
    if info.state in _OVER or (info.state in _DYING and info.shutdown is not None):
        return _CRASH if info.shutdown is None else info.shutdown
    return None


def state(info: DomainInfo, times: ProcessTimes) -> str:
    """The six letters: running, blocked, paused, shut down, why, dying."""
    over, runs = reason(info), info.state is DomainState.RUNNING
    flags = (
        "r" if runs and times.running else "-",
        "b" if runs and not times.running else "-",
        "p" if info.state in _HELD else "-",
        "s" if over is not None else "-",
        "-" if over is None else _LETTERS[over] if over < len(_LETTERS) else "?",
        "d" if info.state in _DYING else "-",
    )
    return "".join(flags)
