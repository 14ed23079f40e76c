"""How long a property's test may take: a failing example is made small for minutes before anybody is told of it."""

from __future__ import annotations

from pathlib import Path

import pytest

SHRINKING_S = 600
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Past its time the process that runs a test ends, and the example is lost with it."""
    for item in items:
        if item.path.parent == HERE:
            item.add_marker(pytest.mark.timeout(SHRINKING_S))
