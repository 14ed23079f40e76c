"""What a domain's process says when its control groups cannot hold it as they are to."""

from __future__ import annotations

from pathlib import Path

import pytest

from hvd.domains.sandbox.limits import PROCESSES_MAX, PROGRAM_PROCESSES_MAX
from hvd.domains.sandbox.sandbox import Sandbox
from hvd.transport.cgroups import CPU, NO_DISKS, THREADS, DomainGroups
from hvd.transport.sandbox import Kind


@pytest.mark.parametrize(("io_bps", "lacking"), [(0, {}), (1 << 20, {"cgroups": NO_DISKS})])
def test_where_no_group_bounds_disks_who_is_to_be_bound_lacks_the_layer_and_keeps_his_other_bounds(
    tmp_path: Path, io_bps: int, lacking: dict[str, str]
) -> None:
    (tmp_path / "77").mkdir()
    for name in ("pids.max", "cgroup.procs"):
        (tmp_path / "77" / name).touch()
    sandbox = Sandbox({}, [DomainGroups(2, ("pids",), str(tmp_path))], in_user_namespace=False)
    sandbox._pid = 77
    sandbox._enter_groups()
    sandbox._try("cgroups", lambda: sandbox._bound_groups(Kind.GUEST, 64 << 10))
    sandbox._try("cgroups", lambda: sandbox._join_others(Kind.GUEST, 64 << 10, io_bps))
    assert sandbox.lacking == lacking
    sandbox._close_bounds()
    assert (tmp_path / "77" / "pids.max").read_text() == str(PROCESSES_MAX)


@pytest.mark.parametrize("kind", [Kind.GUEST, Kind.PROGRAM])
def test_where_a_hierarchy_shares_cpus_and_bounds_processes_a_program_is_bound_and_who_is_not_in_it_says_so(
    tmp_path: Path, kind: Kind
) -> None:
    """A program's group, which is made when its kind is known; the kernel's files are there at once."""
    sandbox = Sandbox({}, [DomainGroups(1, (CPU, "pids"), str(tmp_path))], in_user_namespace=False)
    sandbox._pid = 77
    if kind is Kind.PROGRAM:
        (tmp_path / "77").mkdir()
        for name in ("pids.max", THREADS):
            (tmp_path / "77" / name).touch()
    sandbox._enter_groups()
    sandbox._try("cgroups", lambda: sandbox._bound_groups(kind, 64 << 10))
    sandbox._try("cgroups", lambda: sandbox._join_others(kind, 64 << 10, io_bps=0))
    assert sandbox.lacking.keys() == (set() if kind is Kind.PROGRAM else {"cgroups"})
    if kind is Kind.PROGRAM:
        assert (tmp_path / "77" / "pids.max").read_text() == str(PROGRAM_PROCESSES_MAX)
