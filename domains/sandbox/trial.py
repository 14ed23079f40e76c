"""A sandbox tried out without a machine: what `hvd doctor` says, and --require-sandbox asks beforehand."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from typing import Any, NoReturn

from hvd.domains.sandbox.namespaces import Namespaces, map_own_user
from hvd.domains.sandbox.sandbox import Sandbox
from hvd.transport.cgroups import DomainGroups, MachineGroups
from hvd.transport.process import CLONE_NEWUSER
from hvd.transport.sandbox import Kind

DOMID = 1


def run_trial() -> None:
    """Put a process into a guest's sandbox, and print what it lacks: a JSON object of layers and reasons."""
    read, write = os.pipe()
    with tempfile.TemporaryDirectory(prefix="hvd-trial-") as run_dir:
        os.mkdir(f"{run_dir}/endpoint", 0o755)
        machine_groups = MachineGroups()
        groups = machine_groups.make()
        middle = os.fork()
        if middle == 0:  # whose siblings are our children
            _fork_guest(write, run_dir, groups)
        os.close(write)
        with open(read, encoding="utf-8") as report:
            text = report.read()
        while True:
            try:
                os.wait()
            except ChildProcessError:
                break
        machine_groups.remove()
    json.dump(json.loads(text), sys.stdout)
    print()


def _fork_guest(write: int, run_dir: str, groups: list[DomainGroups]) -> NoReturn:
    try:
        ids = os.geteuid(), os.getegid()
        namespaces = Namespaces()
        pid, flags = namespaces.fork(())
        if pid == 0:
            if flags & CLONE_NEWUSER:
                map_own_user(*ids)
            in_user_namespace = bool(flags & CLONE_NEWUSER)
            sandbox = Sandbox(namespaces.lacking(flags, ()), groups, in_user_namespace=in_user_namespace)
            sandbox.begin()
            sandbox.enter(_certificate(run_dir))
            os.write(write, json.dumps(sandbox.lacking).encode())
    except BaseException:  # noqa: BLE001 - the top of a process: report, then end it without unwinding into its parent's
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(0)


def _certificate(run_dir: str) -> dict[str, Any]:
    settings = {"kind": str(Kind.GUEST), "off": [], "seccomp": "kill", "paths": [],
                "memory_kib": 64 << 10, "maxmem_kib": 64 << 10, "io_bps": 0}  # fmt: skip
    return {"domid": DOMID, "name": "trial", "kernel": "hvd:idle", "run_dir": run_dir, "endpoint": "endpoint",
            "traceable": False,
            "sandbox": settings}  # fmt: skip
