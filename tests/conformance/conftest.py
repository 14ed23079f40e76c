"""Out-of-tree drivers as an installer leaves them: modules in a directory of the path, with their entry points."""

import os
import tomllib
from pathlib import Path

import pytest

THERMOMETER = Path(__file__).resolve().parents[2] / "examples" / "drivers" / "thermometer"


def install(directory, source):
    """What `pip install --target` does for a package whose project table names its modules and entry points."""
    project = tomllib.loads((source / "pyproject.toml").read_text())
    for module in project["tool"]["setuptools"]["py-modules"]:
        (directory / f"{module}.py").write_bytes((source / f"{module}.py").read_bytes())
    information = directory / f"{project['project']['name'].replace('-', '_')}-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['project']['name']}\nVersion: 1.0\n")
    points = project["project"]["entry-points"]
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in table.items()) for group, table in points.items()]
    (information / "entry_points.txt").write_text("".join(lines))


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """installed(source, ...): from here on, clusters of this test find these packages."""
    site = tmp_path / "site"
    site.mkdir()

    def install_all(*sources):
        for source in sources:
            install(site, source)
        paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
        return site

    return install_all


@pytest.fixture
def thermometer(installed, tmp_path):
    """The example's driver, installed; the file that is its sensor."""
    installed(THERMOMETER)
    sensor = tmp_path / "temperature"
    sensor.write_text("48500\n")
    return sensor
