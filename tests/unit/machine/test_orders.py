"""What a broker orders of a domain's process: bounds that the host does not let it have are told of."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from hvd.machine.children import Child
from hvd.machine.orders import DomainOrders
from hvd.transport import cgroups
from hvd.transport.cgroups import DomainGroups
from hvd.transport.machine_link import BOUND, BOUND_DISKS, UNBOUND


@pytest.fixture
def child():
    """This process, as a domain's."""
    made = Child("domain", os.getpid(), 7, 2)
    yield made
    os.close(made.pidfd)


def ordered(child, order, groups):
    """What the broker is told when it has ordered this."""
    told: list[Any] = []
    unused: Any = None  # a bound asks neither exits nor dumps nor the others of a domain
    DomainOrders(unused, unused, unused, told.append).carry_out(child, order, groups)
    return told


@pytest.mark.parametrize("refused", [
    ([BOUND, 64], "memory", "its bound of memory is not in force: its control group: Operation not permitted"),
    ([BOUND_DISKS, 100_000], "blkio", "its io_bps is not in force: Operation not permitted"),
])  # fmt: skip
def test_a_bound_that_the_host_refuses_is_told_of_and_one_that_it_sets_is_not(child, tmp_path, monkeypatch, refused):
    order, controller, said = refused
    (tmp_path / "block" / "vda").mkdir(parents=True)
    (tmp_path / "block" / "vda" / "dev").write_text("254:0\n")
    monkeypatch.setattr(cgroups, "DISKS", str(tmp_path / "block"))
    groups, written = [DomainGroups(1, (controller,), str(tmp_path))], []
    monkeypatch.setattr(cgroups, "write_file", lambda path, text: written.append(Path(path).parent.name))
    assert ordered(child, order, groups) == []
    assert {*written} == {str(child.pid)}

    def refuse(path, text):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(cgroups, "write_file", refuse)
    assert ordered(child, order, groups) == [[UNBOUND, 7, 2, said]]
