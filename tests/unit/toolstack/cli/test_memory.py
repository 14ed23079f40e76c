"""Sizes of memory as xl 4.17 reads them: the golden answers are those of Debian's xl (parse_mem_size_kb, by gdb).

A number alone is MiB there, whatever xl(1) says. For no digits at all it answers 0, and below 0 what it is told; those
are refused here, and so is what overflows.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hvd.toolstack.cli.memory import kib_of
from hvd.toolstack.cluster.errors import ClusterError

GOLDEN = Path(__file__).with_name("golden")
SIZES = [line.rpartition(" ") for line in (GOLDEN / "mem-sizes.txt").read_text().splitlines()]
INVALID = (GOLDEN / "mem-sizes-invalid.txt").read_text().splitlines()


@pytest.mark.parametrize(("mem", "kib"), [(mem, int(kib)) for mem, _, kib in SIZES])
def test_a_size_is_mib_or_what_its_letter_says(mem, kib):
    assert kib_of(mem) == kib


@pytest.mark.parametrize("line", INVALID)
def test_what_is_no_size_is_named(line):
    with pytest.raises(ClusterError, match=re.escape(line)):
        kib_of(line.partition(": ")[2][1:-1])
