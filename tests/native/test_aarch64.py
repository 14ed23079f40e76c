"""The portable twins of what is written for x86-64: compiled for aarch64 without a warning, and run under emulation.

What an emulator on x86-64 does not show is aarch64's weaker order of memory accesses.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
HERE = Path(__file__).parent
HEADERS = HERE.parents[1] / "transport" / "native"
OF_PYTHON = {"bindings.hpp"}
UNKNOWN_TO_THE_EMULATOR = b"Function not implemented"
RUN_DEADLINE_S = 300

pytestmark = pytest.mark.skipif(
    shutil.which(COMPILER) is None, reason=f"no {COMPILER}: apt-get install g++-aarch64-linux-gnu"
)


def test_every_header_compiles(tmp_path):
    source = tmp_path / "all.cpp"
    headers = sorted(header for header in HEADERS.glob("*.hpp") if header.name not in OF_PYTHON)
    source.write_text("".join(f'#include "{header}"\n' for header in headers))
    flags = ("-std=c++20", "-O2", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-fsyntax-only")
    result = subprocess.run([COMPILER, *flags, str(source)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_who_is_about_to_sleep_looks_by_a_load_that_does_not_overtake_what_he_advertises(tmp_path):
    """An acquiring load may be one that does, from armv8.3 on: the event is missed, and its sender has not rung."""
    source, assembly = tmp_path / "look.cpp", tmp_path / "look.s"
    look = "bool look(hvd::Doorbell& bell) { bell.arm(); return bell.pending(); }"
    source.write_text(f'#include "{HEADERS / "doorbell.hpp"}"\n{look}\n')
    flags = ("-std=c++20", "-O2", "-march=armv8.3-a", "-S", "-g0", "-o", str(assembly))
    result = subprocess.run([COMPILER, *flags, str(source)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    looks = assembly.read_text().partition("_Z4look")[2].partition(".cfi_endproc")[0]
    assert "stlr" in looks
    assert "ldapr" not in looks


@pytest.mark.skipif(shutil.which(EMULATOR) is None, reason=f"no {EMULATOR}: apt-get install qemu-user")
@pytest.mark.timeout(700)
@pytest.mark.parametrize("program", sorted(path.name for path in HERE.glob("*.cpp") if path.name != "trace_cost.cpp"))
def test_a_program_of_threads_does_the_same(compile_native, program):
    built = compile_native(HERE / program, COMPILER, "-std=c++20", "-O2", "-static", "-pthread")
    result = subprocess.run([EMULATOR, str(built)], capture_output=True, timeout=RUN_DEADLINE_S, check=False)
    if UNKNOWN_TO_THE_EMULATOR in result.stderr:
        pytest.skip(f"{EMULATOR}: {result.stderr.decode(errors='replace').splitlines()[1].strip()}")
    assert result.returncode == 0, result.stderr.decode(errors="replace")
