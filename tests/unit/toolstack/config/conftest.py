"""A directory with kernels and images, and what a cluster file's text in it comes to."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hvd.toolstack.config import ClusterConfig, ConfigError, Problem, load

SECTOR = 512


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """guest.py is a kernel, a.img and b.img are images."""
    (tmp_path / "guest.py").write_text("def main(guest):\n    pass\n")
    for name in ("a.img", "b.img"):
        (tmp_path / name).write_bytes(bytes(8 * SECTOR))
    return tmp_path


@pytest.fixture
def cluster(directory: Path) -> Callable[[str], ClusterConfig]:
    """Loads a text as the cluster file of the directory."""

    def load_text(text: str) -> ClusterConfig:
        (directory / "cluster.toml").write_text(text)
        return load(directory / "cluster.toml")

    return load_text


@pytest.fixture
def problems(cluster: Callable[[str], ClusterConfig]) -> Callable[[str], list[Problem]]:
    """The problems of a text that must have some."""

    def problems_of(text: str) -> list[Problem]:
        with pytest.raises(ConfigError) as caught:
            cluster(text)
        return list(caught.value.problems)

    return problems_of


@pytest.fixture
def problem(problems: Callable[[str], list[Problem]]) -> Callable[[str], Problem]:
    """The one problem of a text that must have exactly one."""

    def problem_of(text: str) -> Problem:
        found = problems(text)
        assert len(found) == 1, "\n".join(map(str, found))
        return found[0]

    return problem_of
