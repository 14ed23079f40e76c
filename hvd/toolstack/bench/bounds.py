"""What bounds the goals that a machine may miss: found by profile, printed beside a miss in docs/performance.md."""

from __future__ import annotations

WHAT_BOUNDS: tuple[tuple[str, str], ...] = ()
"""(pattern of goals' names, what is known), in the order of the page."""
