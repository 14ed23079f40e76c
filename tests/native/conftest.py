"""Owns compiling: native tests are built at test time, once a session and process, with warnings as errors."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

COMPILE_DEADLINE_S = 300
Compile = Callable[..., Path]


@pytest.fixture(scope="session")
def compile_native(tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """compile_native(source, compiler, *flags) -> what was built; skips where the compiler is not installed."""

    def compile_one(source: Path, compiler: str, *flags: str) -> Path:
        if shutil.which(compiler) is None:
            pytest.skip(f"{compiler} is not installed")
        built = tmp_path_factory.mktemp("native") / source.stem
        command = [compiler, "-Wall", "-Wextra", "-Wconversion", "-Werror", *flags, str(source), "-o", str(built)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_DEADLINE_S, check=False)
        assert result.returncode == 0, f"{' '.join(command)}\n{result.stderr}"
        return built

    return compile_one
