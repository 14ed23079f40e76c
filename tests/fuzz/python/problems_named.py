"""What every refusal of a user's file has to say."""

from __future__ import annotations

from hvd.toolstack.config.problems import ConfigError


def judge_problems(error: ConfigError, data: bytes) -> None:
    """Each names on one line what was expected and found, and a line that the file has if it names any."""
    assert error.problems
    for problem in error.problems:
        assert problem.expected and problem.found and "\n" not in str(problem)
        assert problem.line is None or 1 <= problem.line <= data.count(b"\n") + 1
