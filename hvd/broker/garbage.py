"""When the broker looks for garbage in cycles: among what is young, so that it takes no time, however much there is.

What has lived through two collections is never looked at again. A store of 100,000 nodes would otherwise hold everybody
up for tens of milliseconds, and so would the modules that every process of hvd has loaded. Nothing is lost by it: no
tree, table or connection is in a cycle once it is over (tests/unit/broker/test_garbage.py); reference counts free it.
"""

from __future__ import annotations

import gc

YOUNG, SURVIVORS = 700, 10
"""Objects that are made before the young are looked at, and how often that is done before survivors are, once more."""
NEVER = 1 << 30
_SECOND = 1


def look_at_the_young_only() -> None:
    """From now on, in this process; what there is already is not young."""
    gc.set_threshold(YOUNG, SURVIVORS, NEVER)
    gc.freeze()
    gc.callbacks.append(_keep_survivors)


def _keep_survivors(phase: str, info: dict[str, int]) -> None:
    if phase == "stop" and info["generation"] >= _SECOND:
        gc.freeze()
