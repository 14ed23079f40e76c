"""What a command says on standard error beside its progress, which it tells of where something takes a while."""

from __future__ import annotations

WAITED = ("hvd: waiting for ", "hvd: writing the core of ", "hvd: starting ")


def without_progress(stderr: str) -> str:
    """The lines that say something else: how long it took is the machine's business."""
    return "".join(line for line in stderr.splitlines(keepends=True) if not line.startswith(WAITED))
