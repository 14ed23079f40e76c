"""What this machine or container offers a cluster, what each lack costs, and how to get it."""

from hvd.toolstack.doctor.facts import look
from hvd.toolstack.doctor.finding import Finding, Status
from hvd.toolstack.doctor.judgement import judge

__all__ = ["Finding", "Status", "examine"]


def examine(run_dir: str | None = None) -> list[Finding]:
    """Every finding about this machine, for a cluster in `run_dir` (default: HVD_RUN_DIR, or below XDG_RUNTIME_DIR).

    Everything is really tried, without root; nothing that a trial makes outlives the call.
    """
    return judge(look(run_dir))
