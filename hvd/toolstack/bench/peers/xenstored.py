"""Xen's own xenstored and oxenstored, which run here without Xen: no_xen.c takes the place of its libraries."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hvd.toolstack.bench.peers.peer import Absent
from hvd.transport.pages import PAGE_SIZE

VARIABLE = "HVD_XEN_UTILS"
"""Names the directory of xenstored, oxenstored and test-xenstore where they are unpacked and not installed."""
UNPACKED = Path(__file__).parents[4] / "build/xen-utils/usr/lib/xen-4.17/bin"
"""Where scripts/test.sh unpacks them."""
INSTALLED = ("/usr/lib/xen-4.17/bin", "/usr/libexec/xen/bin", "/usr/lib/xen/bin")
PACKAGE = "xen-utils-4.17"
NO_XEN = Path(__file__).with_name("no_xen.c")
XENSTORED, OXENSTORED = "xenstored", "oxenstored"
DAEMONS = {XENSTORED: "socket", OXENSTORED: "run/xenstored/socket"}
"""In C and in OCaml: dom0's socket in its directory."""
OXENSTORED_SAYS = "Xen Storage Daemon, version 1.0"
"""When its socket is there. The other says which process it is."""
START_DEADLINE_S = 10.0

_THEIR_PATHS = 'mount --bind "$NO_XEN/run" /run && mount --bind "$NO_XEN/log" /var/log && exec "$@"'
"""Those of oxenstored are compiled in: where it runs, others are there."""


@dataclass(frozen=True, slots=True)
class XensDaemon:
    """One that runs."""

    socket: Path
    """dom0's."""
    directory: Path
    """no_xen.c says what is in it: a file for each domain, and `events`."""
    process: subprocess.Popen[bytes]


def find(name: str) -> Path:
    """A program of Debian's xen-utils. Absent where there is none on this machine."""
    for directory in (os.environ.get(VARIABLE, ""), str(UNPACKED), *INSTALLED):
        if directory and (found := Path(directory) / name).exists():
            return found
    raise Absent(f"no {name} on this machine: scripts/test.sh unpacks {PACKAGE}, or {VARIABLE} names where it is")


@contextmanager
def running(name: str, guests: int = 0) -> Iterator[XensDaemon]:
    """`xenstored` or `oxenstored` with an empty store, and so many domains that it has not been told of.

    Absent where this machine lacks what it takes.
    """
    program = find(name)
    with tempfile.TemporaryDirectory(prefix="hvd-xens-", ignore_cleanup_errors=True) as made:
        directory = Path(made)
        _furnish(directory, guests)
        daemon = XensDaemon(directory / DAEMONS[name], directory, _start(program, directory))
        try:
            _wait_for(daemon, name)
            yield daemon
        finally:
            daemon.process.kill()
            daemon.process.wait()
            if daemon.process.stdout is not None:
                daemon.process.stdout.close()


def _furnish(directory: Path, guests: int) -> None:
    """What the daemon finds: our libraries, the event channel, a page for each domain."""
    command = ["cc", "-O1", "-shared", "-fPIC", "-o", f"{directory}/no_xen.so", str(NO_XEN), "-ldl"]
    if shutil.which("cc") is None:
        raise Absent("no C compiler on this machine")
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        raise Absent(f"no_xen.c, which needs libxen-dev, cannot be compiled: {made.stderr.splitlines()[0]}")
    os.mkfifo(directory / "events")
    (directory / "xsd_port").write_text("0")
    for page in ("xsd_kva", *map(str, range(1, guests + 1))):
        (directory / page).write_bytes(bytes(PAGE_SIZE))
    (directory / "conf").write_text(f"xenstored-kva = {directory}/xsd_kva\nxenstored-port = {directory}/xsd_port\n")
    for below in ("run", "log/xen"):
        (directory / below).mkdir(parents=True)


def _start(program: Path, directory: Path) -> subprocess.Popen[bytes]:
    """It ends with this process, however that ends; its first line is for `_wait_for`.

    In a session of its own, as a daemon is: the kernel shares out the CPUs among sessions (sched(7), autogroup), so
    on a busy machine one in ours would be scheduled otherwise than a broker.
    """
    ends_with_us = ["setpriv", "--pdeathsig", "KILL", "env", f"LD_PRELOAD={directory}/no_xen.so"]
    command = [*ends_with_us, str(program), "--no-fork", "--pid-file", f"{directory}/pid"]
    if program.name == OXENSTORED:
        user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        places = ["unshare", *user, "--mount", "sh", "-c", _THEIR_PATHS, "sh"]
        command = [*places, *command, "--config-file", f"{directory}/conf"]
    else:
        command.append("--output-pid")
    environment = os.environ | {"NO_XEN": str(directory), "XENSTORED_RUNDIR": str(directory)}
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip


def _wait_for(daemon: XensDaemon, name: str) -> None:
    """Until it says that its socket is there. Absent when it says anything else."""
    said = daemon.process.stdout
    assert said is not None
    ready, _, _ = select.select([said], [], [], START_DEADLINE_S)
    line = said.readline().decode(errors="replace").strip() if ready else f"nothing in {START_DEADLINE_S:g} s"
    if line not in (str(daemon.process.pid), OXENSTORED_SAYS):
        raise Absent(f"{name} does not run here; it says: {line or 'nothing'}")
