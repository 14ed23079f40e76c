"""The native core without Python, under ThreadSanitizer and under AddressSanitizer with UndefinedBehaviourSanitizer."""

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

PROGRAMS = (
    "ring_threads.cpp", "doorbell_threads.cpp", "console_threads.cpp", "blkif_slots.cpp", "blkif_threads.cpp",
    "netif_threads.cpp", "forwarding_table.cpp",
    "trace_threads.cpp", "cpu_follower_threads.cpp",
)  # fmt: skip
# Two compilers, so that the headers are warning-free under both.
SANITIZERS = {"thread": "g++", "address,undefined": "clang++"}
RUN_DEADLINE_S = 300


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("sanitizer", SANITIZERS)
@pytest.mark.timeout(700)
def test_a_sanitizer_finds_nothing(compile_native, program, sanitizer):
    compiler = SANITIZERS[sanitizer] if shutil.which(SANITIZERS[sanitizer]) else "g++"
    flags = ("-std=c++20", "-O1", "-g", "-pthread", f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all")
    built = compile_native(Path(__file__).with_name(program), compiler, *flags)
    # A sanitizer's shadow lies at fixed addresses, which a randomised layout with many bits may already have taken.
    command = ["setarch", platform.machine(), "-R", str(built)] if shutil.which("setarch") else [str(built)]
    options = "halt_on_error=1:abort_on_error=0:exitcode=66"
    environment = os.environ | {"TSAN_OPTIONS": options, "ASAN_OPTIONS": options, "UBSAN_OPTIONS": options}
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=RUN_DEADLINE_S, check=False, env=environment
    )
    assert result.returncode == 0, result.stderr
