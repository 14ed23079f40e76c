"""Which files and names are kernels, found out without running any."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from hvd.domains import kernel as bootable
from hvd.toolstack.config import ClusterConfig, Problem
from hvd.toolstack.config.kernels import KERNEL_BYTES_MAX, shipped

DOMAIN = '[[domain]]\nname = "ivi"\nkernel = "{}"\n'


@pytest.fixture
def kernel_problem(problem: Callable[[str], Problem], directory: Path) -> Callable[[str | bytes], Problem]:
    """The problem of a cluster whose one kernel has this source."""

    def problem_of(source: str | bytes) -> Problem:
        (directory / "k.py").write_bytes(source if isinstance(source, bytes) else source.encode())
        told = problem(DOMAIN.format("k.py"))
        assert (told.key, told.line) == ('domain[0] "ivi".kernel', 3)
        return told

    return problem_of


def test_a_file_is_found_from_the_cluster_files_directory(
    cluster: Callable[[str], ClusterConfig], directory: Path
) -> None:
    (directory / "programs").mkdir()
    (directory / "programs" / "disk.py").write_text("def main(guest): ...\n")
    assert cluster(DOMAIN.format("programs/disk.py")).domain("ivi").kernel == str(directory / "programs" / "disk.py")
    assert cluster(DOMAIN.format(directory / "guest.py")).domain("ivi").kernel == str(directory / "guest.py")


@pytest.mark.parametrize(
    "name", ["hvd:driver_domain", "hvd:dom0", "json.decoder:JSONDecoder", "hvd.domains.programs.idle:main"]
)
def test_names_of_shipped_kernels_and_installed_modules_pass_as_they_are(
    cluster: Callable[[str], ClusterConfig], name: str
) -> None:
    assert cluster(DOMAIN.format(name)).domain("ivi").kernel == name


def test_an_entry_point_is_a_kernel(
    cluster: Callable[[str], ClusterConfig], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = directory / "installed" / "radio-1.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: radio\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[hvd.kernels]\nradio:fm = radio_guest:main\n")
    monkeypatch.syspath_prepend(directory / "installed")
    assert cluster(DOMAIN.format("radio:fm")).domain("ivi").kernel == "radio:fm"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("hvd:drivr_domain", 'did you mean "hvd:driver_domain"?'),
        ("hvd:nothing_of_ours_xyz", ""),
        ("no_such_package_at_all:main", ""),
        ("guest", 'for a file write "guest.py"'),
        ("json:", ""),
        (":main", ""),
        ("a b:main", ""),
        ("..:main", ""),
    ],
)
def test_a_name_that_leads_nowhere_is_told_with_what_would(
    problem: Callable[[str], Problem], name: str, hint: str
) -> None:
    told = problem(DOMAIN.format(name))
    assert told.hint == hint
    assert "hvd:driver_domain" in told.expected


def test_a_module_that_was_never_imported_from_anywhere_is_no_kernel(
    problem: Callable[[str], Problem], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "made_up_here", ModuleType("made_up_here"))
    assert problem(DOMAIN.format("made_up_here:main")).line == 3


def test_the_shipped_kernels_are_those_that_domains_can_boot() -> None:
    assert shipped() == sorted(bootable.SHIPPED)


def test_a_missing_file_is_named(problem: Callable[[str], Problem], directory: Path) -> None:
    assert problem(DOMAIN.format("gone.py")).found == f'"{directory / "gone.py"}": No such file or directory'


@pytest.mark.parametrize(
    "source", ["", "def man(guest): ...", "class A:\n  def main(self): ...", "f = lambda main: main", "main"]
)
def test_a_kernel_without_main_is_told(kernel_problem: Callable[[str], Problem], source: str) -> None:
    told = kernel_problem(source)
    assert (told.expected, told.found) == ("a function main(guest)", "none in k.py")


@pytest.mark.parametrize(
    "source",
    [
        "def main(guest): ...",
        "def main(guest, *args, speed=1): ...",
        "def main(*args): ...",
        "main = lambda guest: None",
        "from json import dumps as main",
        "from json import *",
        "try:\n  import main\nexcept ImportError:\n  pass",
        "if True:\n  def main(guest): ...\nelse:\n  def main(guest): ...",
        "def main(): ...\ndef main(guest): ...",
        "class main:\n  def __init__(self, guest): ...",
        "# -*- coding: latin-1 -*-\n# \xe9\ndef main(guest): ...",
    ],
)
def test_whatever_binds_main_to_something_that_takes_a_guest_will_do(
    cluster: Callable[[str], ClusterConfig], directory: Path, source: str
) -> None:
    (directory / "k.py").write_bytes(source.encode("latin-1"))
    assert cluster(DOMAIN.format("k.py")).domain("ivi").kernel == str(directory / "k.py")


@pytest.mark.parametrize("args", ["", "a, b", "guest, *, speed", "*, guest", "**guest", "a, b, *rest, c, **d"])
def test_main_takes_one_argument(kernel_problem: Callable[[str], Problem], args: str) -> None:
    assert kernel_problem(f"\n\ndef main({args}): ...").found == f"main({args}) in k.py line 3"


def test_parameters_are_shown_however_deep_and_long_they_are(kernel_problem: Callable[[str], Problem]) -> None:
    assert kernel_problem(f"def main(a, b, c={'-' * 900}1): ...").found == "main(a, b, c) in k.py line 1"
    assert len(kernel_problem(f"def main(a, b, {'c' * 9000}): ...").found) < 100


def test_a_coroutine_would_never_run(kernel_problem: Callable[[str], Problem]) -> None:
    assert kernel_problem("async def main(guest): ...").found == "async def main in k.py line 1"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("x = 1\ndef main(guest:\n", "k.py line 2: '(' was never closed"),
        ("def main(guest): ...\nreturn", "k.py line 2: 'return' outside function"),
        (b"def main(guest): ...\0", "null bytes"),
        (b"x = '\xff'\ndef main(guest): ...", "k.py"),
        ("(" * 300, "k.py"),
        ("x = " + "-" * 20_000 + "1", "k.py"),
    ],
)
def test_a_kernel_that_does_not_compile_is_told_with_its_line(
    kernel_problem: Callable[[str | bytes], Problem], source: str | bytes, found: str
) -> None:
    told = kernel_problem(source)
    assert told.expected == "a Python file that compiles"
    assert found in told.found


@pytest.mark.parametrize("source", [b"\x7fELF and more", b"#!/bin/sh\necho hi\n"], ids=["elf", "script"])
def test_any_program_is_a_kernel(cluster: Callable[[str], ClusterConfig], directory: Path, source: bytes) -> None:
    (directory / "tool").write_bytes(source)
    (directory / "tool").chmod(0o755)
    assert cluster(DOMAIN.format("./tool")).domain("ivi").kernel == str(directory / "tool")


@pytest.mark.parametrize(
    ("source", "mode", "found"),
    [
        (b"#!/bin/sh\n", 0o644, "it is not executable"),
        (b"def main(guest): ...\n", 0o755, "it is neither an ELF file nor begins with #!"),
        (b"", 0o755, "it is no regular file, or empty"),
        (None, 0, "No such file or directory"),
    ],
)
def test_what_is_no_program_is_told_with_the_line_and_why(
    problem: Callable[[str], Problem], directory: Path, source: bytes | None, mode: int, found: str
) -> None:
    if source is not None:
        (directory / "tool").write_bytes(source)
        (directory / "tool").chmod(mode)
    told = problem(DOMAIN.format("./tool"))
    assert (told.key, told.line) == ('domain[0] "ivi".kernel', 3)
    assert told.expected == "a program (a Python file with main(guest) ends in .py)"
    assert told.found == f'"{directory / "tool"}": {found}'


def test_a_directory_is_no_program(problem: Callable[[str], Problem], directory: Path) -> None:
    (directory / "tools").mkdir()
    assert "Is a directory" in problem(DOMAIN.format("./tools")).found


def test_a_program_that_is_named_without_its_path_is_told_with_it(
    problem: Callable[[str], Problem], directory: Path
) -> None:
    (directory / "tool").touch()
    assert problem(DOMAIN.format("tool")).hint == 'for the program here write "./tool"'
    assert problem(DOMAIN.format("sh")).hint == f'for the program write "{shutil.which("sh")}"'


def test_a_kernel_is_looked_at_but_not_run(cluster: Callable[[str], ClusterConfig], directory: Path) -> None:
    source = f"open({str(directory / 'ran')!r}, 'w')\ndef main(guest): ...\n"
    (directory / "k.py").write_text(source)
    cluster(DOMAIN.format("k.py"))
    assert not (directory / "ran").exists()


def test_warnings_about_a_kernel_stay_out_of_the_toolstack(
    cluster: Callable[[str], ClusterConfig], directory: Path
) -> None:
    (directory / "k.py").write_text("assert (1, 'always true')\ndef main(guest): return '\\d' is 1\n")
    cluster(DOMAIN.format("k.py"))


@pytest.mark.parametrize("size", [KERNEL_BYTES_MAX, KERNEL_BYTES_MAX + 1])
def test_a_kernel_has_a_size_limit(directory: Path, size: int, request: pytest.FixtureRequest) -> None:
    source = b"def main(guest): ...\n#"
    (directory / "k.py").write_bytes(source + b"x" * (size - len(source)))
    if size > KERNEL_BYTES_MAX:
        told = request.getfixturevalue("problem")(DOMAIN.format("k.py"))
        assert told.expected == f"a regular file of at most {KERNEL_BYTES_MAX} bytes"
    else:
        request.getfixturevalue("cluster")(DOMAIN.format("k.py"))


@pytest.mark.parametrize("kernel", [".", "/dev/null", "guest.py/x"])
def test_a_kernel_is_a_regular_file(problem: Callable[[str], Problem], directory: Path, kernel: str) -> None:
    assert problem(DOMAIN.format(kernel if "/" in kernel else "./")).key == 'domain[0] "ivi".kernel'
