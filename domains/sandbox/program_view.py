"""What an unmodified program sees of the files: a small system of its own, read-only but for what it may scribble on.

The host's programs and libraries are shown as everybody sees them: owners are not translated, so that what only root
may read there stays root's. What `paths` gives is translated, as for any domain.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct

from hvd.domains.sandbox import view
from hvd.domains.sandbox.root import STAGE, Root
from hvd.transport._native import bind_mount

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc/alternatives", "/etc/ld.so.cache",
          "/etc/localtime", "/etc/protocols", "/etc/services", "/etc/mime.types", "/etc/terminfo", "/etc/ssl/certs",
          "/etc/ssl/openssl.cnf", "/etc/ca-certificates.conf")  # fmt: skip
"""No directory of /etc in which hosts keep secrets."""
DEVICES = (*view.DEVICES, "/dev/tty")
LINKS = {"/dev/ptmx": "pts/ptmx", "/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0",
         "/dev/stdout": "/proc/self/fd/1", "/dev/stderr": "/proc/self/fd/2", "/etc/mtab": "/proc/self/mounts",
         "/etc/resolv.conf": "/run/resolv.conf"}  # fmt: skip
SCRATCH = {"/tmp": 0o1777, "/run": 0o755, "/root": 0o700, "/dev/shm": 0o1777, "/var/tmp": 0o1777, "/var/log": 0o755,
           "/var/lib": 0o755, "/var/cache": 0o755}  # fmt: skip
"""With their modes; what is in them is gone with the incarnation."""
SCRATCH_INODES = 65_536
RESOLVERS = "/etc/resolv.conf"
RESOLVERS_BYTES_MAX = 4096
FILES = {
    "/etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "/etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "/etc/shells": "/bin/sh\n",
}
TIOCSPTLCK, TIOCGPTPEER = 0x40045431, 0x5441
CONSOLE = "/dev/console"


def build(root: Root, name: str, owner: tuple[int, int], memory_kib: int) -> dict[str, str]:
    """Everything but what one domain is given besides; what there cannot be of it, each with the reason.

    `owner`: uid and gid of the program. For root it is a /proc that cannot be written: the host's settings
    in it are his. OSError when there can be no root at all.
    """
    lacking = {}
    for path in SYSTEM:
        root.give_system(path, translated=False)
    for path in DEVICES:
        root.give_device(path)
    for path, target in LINKS.items():
        root.link(path, target)
    for path, text in FILES.items():
        root.write(path, text)
    root.write("/etc/hostname", f"{name}\n")
    root.write("/etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {name}\n::1 localhost ip6-localhost ip6-loopback\n")
    root.give_scratch(SCRATCH, f"mode=0755,size={memory_kib}k,nr_inodes={SCRATCH_INODES}", owner)
    root.link("/var/run", "/run")
    _copy_resolvers(owner)
    try:
        root.mount("proc", "/proc", "", writable=owner[0] != 0)
    except OSError as error:  # in a container that hides parts of its own /proc
        lacking["/proc"] = str(error.strerror)
    root.mount("devpts", "/dev/pts", "newinstance,ptmxmode=0666,mode=0620")
    return lacking


def shows(path: str) -> bool:
    """Whether the root that is being built shows this file of the host's already, by way of a link perhaps."""
    real = os.path.realpath(path)
    return os.path.exists(STAGE + path) and any(os.path.commonpath([real, given]) == given for given in SYSTEM)


def _copy_resolvers(owner: tuple[int, int]) -> None:
    """The host's, to begin with: a DHCP client in the domain may write others."""
    with contextlib.suppress(OSError), open(RESOLVERS, "rb") as file:
        target = f"{STAGE}/run/resolv.conf"
        descriptor = os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644)
        os.write(descriptor, file.read(RESOLVERS_BYTES_MAX))
        os.fchown(descriptor, *owner)
        os.close(descriptor)


def open_console(owner: tuple[int, int]) -> tuple[int, int]:
    """(master, slave) of a terminal in the root that is being built: its /dev/pts/0, and its /dev/console."""
    master, slave = _open_pty(f"{STAGE}/dev/pts/ptmx")
    os.fchown(slave, *owner)
    point = STAGE + CONSOLE
    os.close(os.open(point, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    bind_mount(f"{STAGE}/dev/pts/0", point, 0)
    return master, slave


def _open_pty(ptmx: str) -> tuple[int, int]:
    master = os.open(ptmx, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(master, TIOCSPTLCK, struct.pack("i", 0))
    slave = fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    return master, slave
