"""What is a program is told by its path alone."""

from __future__ import annotations

import pytest

from hvd.transport.kernels import is_program


@pytest.mark.parametrize("kernel", ["/bin/sh", "./tool", "/opt/tool.pyc", "/usr/bin/python3", "tools/py"])
def test_a_path_is_a_programs(kernel: str) -> None:
    assert is_program(kernel)


@pytest.mark.parametrize("kernel", ["guest.py", "/srv/guest.py", "hvd:idle", "module:main", "sh", ""])
def test_a_python_file_and_a_name_are_none(kernel: str) -> None:
    assert not is_program(kernel)
