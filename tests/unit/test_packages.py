"""Owns the proof that the packages keep apart at run time: import-linter sees neither native modules nor importlib."""

import json
import pkgutil
import subprocess
import sys

import pytest

import hvd

USERS_LIBRARIES = ["structlog", "typer", "rich", "psutil"]
"""Slow to import (structlog alone 60 ms) and of no use inside a domain: they would delay every boot."""

FORBIDDEN = {
    "hvd": [*USERS_LIBRARIES, "zmq", "hvd.toolstack", "hvd.broker", "hvd.machine", "hvd.domains"],
    "hvd.transport": [*USERS_LIBRARIES, "hvd.toolstack", "hvd.broker", "hvd.machine", "hvd.domains"],
    "hvd.domains": [*USERS_LIBRARIES, "hvd.toolstack", "hvd.broker", "hvd.machine"],
    "hvd.machine": ["typer", "rich", "hvd.toolstack", "hvd.broker", "hvd.domains"],
    "hvd.broker": ["typer", "rich", "hvd.toolstack", "hvd.machine", "hvd.domains"],
    "hvd.toolstack": ["hvd.broker", "hvd.machine", "hvd.domains"],
}
PRESENT = ["hvd", *(f"hvd.{module.name}" for module in pkgutil.iter_modules(hvd.__path__) if module.ispkg)]

IMPORT_EVERYTHING = """
import importlib, json, pkgutil, sys
name = sys.argv[1]
package = importlib.import_module(name)
if name != "hvd":
    for module in pkgutil.walk_packages(package.__path__, name + "."):
        importlib.import_module(module.name)
json.dump(sorted(sys.modules), sys.stdout)
"""


def modules_loaded_by(package: str) -> list[str]:
    """sys.modules of a fresh interpreter that imported every module of the package (of hvd itself: only that one)."""
    command = [sys.executable, "-c", IMPORT_EVERYTHING, package]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    modules: list[str] = json.loads(result.stdout)
    return modules


@pytest.mark.parametrize("package", PRESENT)
def test_a_package_loads_nothing_that_belongs_to_another_process(package):
    forbidden = tuple(f"{name}." for name in FORBIDDEN[package])
    loaded = [module for module in modules_loaded_by(package) if f"{module}.".startswith(forbidden)]
    assert loaded == []


@pytest.mark.parametrize("package", PRESENT)
def test_the_folders_at_the_top_are_not_loaded_a_second_time_under_their_bare_names(package):
    bare = [module for module in modules_loaded_by(package) if module.split(".")[0] in ("domains", "transport")]
    assert bare == []


def test_every_package_has_a_row_in_the_table():
    assert set(PRESENT) == set(FORBIDDEN)


LOADS = {
    "from hvd.broker import loop; from hvd.machine import machine, run_dir, standing, uplinks": [],
    "from hvd.domains import zygote; zygote._load(zygote.FIRST)": ["ctypes"],  # libseccomp is called by it
}
"""What machine and broker load at first, and the zygote before domain 0, and which of the costly is among it."""
COSTLY = ["dataclasses", "inspect", "hashlib", "ctypes", "shutil", "pathlib", "asyncio", "multiprocessing", "logging"]
"""A millisecond and more of a boot each."""


@pytest.mark.parametrize("program", LOADS)
def test_a_boot_loads_nothing_costly(program):
    script = f"{program}; import sys; print(*(name for name in sys.argv[1:] if name in sys.modules))"
    command = [sys.executable, "-c", script, *COSTLY]
    loaded = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.split()
    assert loaded == LOADS[program]
