"""The fixture `cluster` in sessions of its own: what it starts, how it is told what, what it costs others."""

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

DEADLINE_S = 280
FILE = '[[domain]]\nname = "one"\nkernel = "hvd:idle"\n'


def session_with(directory: Path, test: str, *options: str) -> subprocess.CompletedProcess[str]:
    (directory / "c.toml").write_text(FILE)
    (directory / "test_it.py").write_text(test)
    (directory / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options]
    environment = os.environ | {"HVD_TEST_SESSION": f"{os.environ['HVD_TEST_SESSION']}.{uuid.uuid4().hex}"}
    environment["TMPDIR"] = str(directory / "tmp")
    (directory / "tmp").mkdir()
    return subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )


def test_a_marker_names_the_file_beside_the_test_and_nothing_is_left(tmp_path):
    body = """
import pytest
@pytest.mark.cluster("c.toml")
def test_it(cluster):
    assert [domain.name for domain in cluster.domains()] == ["Domain-0", "one"]
"""
    result = session_with(tmp_path, body)
    assert result.returncode == 0, result.stdout
    assert [entry for entry in (tmp_path / "tmp").iterdir() if entry.name.startswith("hvd")] == []


@pytest.mark.parametrize(
    "config",
    ['request.path.parent / "c.toml"', 'str(request.path.parent / "c.toml")', '[DomainConfig("one", "hvd:idle")]'],
    ids=["a path", "its text", "domains"],
)
def test_a_fixture_of_the_test_may_say_what_to_start(tmp_path, config):
    body = f"""
import pytest
from hvd.transport.messages import DomainConfig
@pytest.fixture
def cluster_config(request):
    return {config}
def test_it(cluster):
    assert cluster.domain("one").ready
"""
    result = session_with(tmp_path, body)
    assert result.returncode == 0, result.stdout


def test_a_test_that_says_nothing_is_told_how_to(tmp_path):
    result = session_with(tmp_path, "def test_it(cluster): pass\n")
    assert result.returncode == 1
    assert 'mark it @pytest.mark.cluster("FILE")' in result.stdout


def test_a_failing_test_shows_what_domains_have_written(tmp_path):
    kernel = tmp_path / "k.py"
    kernel.write_text("def main(guest):\n    print('it was me')\n    guest.run_forever()\n")
    body = f"""
import pytest, time
from hvd.transport.messages import DomainConfig
@pytest.mark.cluster("c.toml")
def test_it(cluster):
    one = cluster.create(DomainConfig("two", {str(kernel)!r}))
    until = time.monotonic() + 60
    while not one.console_log():
        assert time.monotonic() < until
    raise AssertionError
"""
    result = session_with(tmp_path, body)
    assert result.returncode == 1
    assert "---- two.log ----\nit was me" in result.stdout


def test_whoever_does_not_use_it_loads_nothing(tmp_path):
    body = """
import sys
def test_it():
    ours = {name for name in sys.modules if name.split(".")[0] in ("hvd", "zmq", "msgpack", "typer", "rich")}
    assert ours == {"hvd", "hvd.toolstack", "hvd.toolstack.pytest_plugin"}
"""
    result = session_with(tmp_path, body)
    assert result.returncode == 0, result.stdout
