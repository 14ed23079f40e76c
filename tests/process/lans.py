"""Owns what tests of programs on networks share: a cluster file of shell scripts, each a domain with a vif."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hvd import Cluster
from hvd.toolstack.cluster import Domain, DomainState
from hvd.toolstack.cluster.errors import NotReached
from tests.process.stations import SWITCH

DEADLINE_S = 60.0
PYTHON, SH = "/usr/bin/python3", "/bin/sh"
NETWORK = SWITCH + """
[[network]]
name = "lan"
backend = "net"
{network}
"""
PROGRAM = """
[[domain]]
name = "{name}"
kernel = "/bin/sh"
args = ["-c", '''{script}''']
paths = {paths}
after = {after}
on_poweroff = "preserve"
on_crash = "{on_crash}"
vif = ["{vif}"]
"""
WEB = "exec python3 -m http.server 80 --bind :: --directory {directory}"
"""Of both families."""
GET = "curl -sS --retry 30 --retry-connrefused --retry-max-time 50"
"""A program is ready when it runs, which is before it listens."""
MARKS = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(not Path(PYTHON).exists(), reason=f"there is no {PYTHON}"),
    pytest.mark.skipif(not os.access("/dev/net/tun", os.R_OK | os.W_OK), reason="there is no /dev/net/tun for us"),
]
"""Of whoever runs any of it."""


def needs(*programs: str) -> pytest.MarkDecorator:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    lacking = [program for program in programs if shutil.which(program, path=path) is None]
    return pytest.mark.skipif(bool(lacking), reason=f"not on this machine: {', '.join(lacking)}")


class Lan:
    """A cluster file of programs on one network, and the cluster that it makes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.chmod(0o755)
        self._domains: list[str] = []
        self._clusters: list[Cluster] = []

    def add(
        self, name: str, script: str, vif: str, *, paths: list[Path] | None = None, after: str = "",
        on_crash: str = "preserve",
    ) -> None:  # fmt: skip
        shown, behind = [str(path) for path in paths or []], [after] if after else []
        text = PROGRAM.format(name=name, script=script, vif=vif, paths=shown, after=behind, on_crash=on_crash)
        self._domains.append(text)

    def start(self, network: str = "") -> Cluster:
        file = self.directory / "lan.toml"
        file.write_text(NETWORK.format(network=network) + "".join(self._domains))
        self._clusters.append(Cluster.load(file, run_dir=self.directory / "run"))
        return self._clusters[0].__enter__()

    def stop(self) -> None:
        for cluster in self._clusters:
            cluster.__exit__(None, None, None)

    def file(self, name: str, content: bytes, mode: int = 0o644) -> Path:
        path = self.directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        path.chmod(mode)
        return path


def lan_in(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lan]:
    """For a fixture: one whose cluster the command line finds, and which is gone after the test."""
    monkeypatch.setenv("HVD_RUN_DIR", str(directory / "run"))
    made = Lan(directory)
    yield made
    made.stop()


def printed(domain: Domain) -> str:
    """What a program that ends well has printed."""
    try:
        death = domain.wait_state(DomainState.PRESERVED, deadline_s=DEADLINE_S).last_death
    except NotReached as late:
        death = str(late)
    assert death == "poweroff", domain.console_log()
    return domain.console_log()
