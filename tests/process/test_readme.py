"""README's first guest and first fault test: what stands there is what lies in examples/, and it works."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hvd import Cluster

ROOT = Path(__file__).resolve().parents[2]
FIRST_GUEST = ROOT / "examples" / "first-guest"
DEADLINE_S = 60.0


def blocks(language):
    """The README's fenced blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture
def directory(tmp_path):
    """The three files as a reader would copy them from the page, and the image as he is told to make it."""
    guest, fault_test = blocks("python")
    (cluster,) = blocks("toml")
    (tmp_path / "counter.py").write_text(guest)
    (tmp_path / "counter.toml").write_text(cluster)
    (tmp_path / "test_counter.py").write_text(fault_test)
    command = next(line[2:] for line in blocks("console")[0].splitlines() if line.startswith("$ truncate "))
    subprocess.run(command.split(), cwd=tmp_path, check=True, timeout=DEADLINE_S)
    return tmp_path


def test_the_page_shows_the_files_of_the_example(directory):
    for path in [path for path in FIRST_GUEST.iterdir() if path.suffix in (".py", ".toml")]:
        assert (directory / path.name).read_text() == path.read_text()


def test_the_first_guest_counts_on_its_disk(directory):
    with Cluster.load(directory / "counter.toml") as cluster:
        counter = cluster.domain("counter")
        counter.shutdown()
        counter.wait_gone()
        printed = counter.console_log().splitlines()
    assert printed[0] == "1 is on the disk"
    count = int.from_bytes((directory / "counter.img").read_bytes()[:512], "little")
    assert count - len(printed) in (0, 1)  # it may be told to stop between the disk and the console


def test_the_first_fault_test_passes(directory):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "test_counter.py"]
    result = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert result.returncode == 0, result.stdout
    assert "1 passed" in result.stdout


def test_the_first_fault_test_notices_a_guest_that_does_not_flush_its_count(directory):
    """The page's test is one that can fail."""
    kernel = directory / "counter.py"
    kernel.write_text(kernel.read_text().replace('disk.read(0, 1), "little")', 'b"", "little")'))
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "test_counter.py"]
    result = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert result.returncode == 1
    assert "1 failed" in result.stdout


@pytest.mark.parametrize(
    "page", ["README.md", "ARCHITECTURE.md", "docs/block-write.md", "docs/chaos.md", "examples/cockpit/README.md"]
)
def test_every_link_and_every_file_that_a_page_names_is_there(page):
    path = ROOT / page
    text = path.read_text()
    links = [target for target in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in target]
    named = re.findall(r"`((?:hvd|domains|transport|tests|scripts|examples|docs)/[\w./-]+\.\w+)`", text)
    missing = [target for target in links if not (path.parent / target).exists()]
    missing += [name for name in named if not (ROOT / name).exists()]
    assert not missing
    assert len(links) + len(named) > 2
