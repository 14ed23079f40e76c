"""The root directory of a domain: empty but for what it is given, each thing at the path it has on the host.

It is put together on a tmpfs that hides the host's /proc: the one directory that is surely there, and of which no
domain is given anything. What a domain is given is mounted from the host, read-only unless it is said otherwise.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping

from hvd.transport._native import (
    bind_mount,
    detach_mount,
    enter_root,
    make_mounts_private,
    mount_new,
    mount_scratch,
    mount_tmpfs,
    set_mount_attributes,
)

RDONLY, NOSUID, NODEV, NOEXEC = 1, 2, 4, 8  # linux/mount.h MOUNT_ATTR_*
STAGE = "/proc"
SCRATCH = "/mnt"
"""Where a tmpfs is mounted until its directories are where they belong."""
PTMX = "/dev/pts/ptmx"
SHARED = ("shm", "mqueue", "hugepages")
"""Below /dev, and everybody's."""
OPTIONS = "mode=0755,size=1m,nr_inodes=4096"
"""Directories to mount on, and nothing else, are made there."""


class Root:
    """Under construction until `enter`. OSError, at any step, when the kernel refuses."""

    def __init__(self, owners: int) -> None:
        """`owners`: the user namespace that owners are translated by where the file system can do that; -1: not."""
        make_mounts_private()
        mount_tmpfs(STAGE, OPTIONS)
        self._owners = owners
        self._given: list[str] = []
        self._hidden: list[str] = []

    def give(self, path: str, *, writable: bool = False, source: str = "", translated: bool = True) -> None:
        """Show a file or directory (`source`, or what `path` is on the host), links followed. Nothing if it is not."""
        source = os.path.realpath(source or path)
        if not os.path.lexists(source) or (not writable and self._is_shown(path)):
            return
        self._make_point(path, directory=os.path.isdir(source))
        self._mount(source, STAGE + path, NOSUID | NODEV | (0 if writable else RDONLY), translated=translated)
        if not writable:
            self._given.append(path)

    def give_system(self, path: str, *, translated: bool = True) -> None:
        """As `give`, but a link stays one: /lib leads to usr/lib. `translated`: what is root's is the domain's."""
        if not os.path.islink(path):
            self.give(path, translated=translated)
        elif not self._is_shown(path):
            self._make_directory(os.path.dirname(path))
            os.symlink(os.readlink(path), STAGE + path)

    def link(self, path: str, target: str) -> None:
        """A symbolic link. Before anything writable is given, where it could land in a directory of the host's."""
        self._make_directory(os.path.dirname(path))
        os.symlink(target, STAGE + path)

    def give_device(self, path: str) -> None:
        """A device node, or a directory of them; they can be written however they are mounted."""
        if os.path.islink(path):
            self.give_system(path)
        elif os.path.exists(path):
            self._make_point(path, directory=os.path.isdir(path))
            bind_mount(path, STAGE + path, NOSUID | NOEXEC)

    def give_terminals(self) -> None:
        """The host's pseudo-terminals. Where only root may use /dev/pts/ptmx, as on most hosts, it takes all of /dev.

        The device node alone is no good: the kernel looks for the file system of terminals beside it, where it really
        is. Nodes are guarded by their modes and by Landlock; what is mounted below /dev beside /dev/pts is hidden.
        """
        if os.path.exists(PTMX) and os.stat(PTMX).st_mode & 0o006 == 0o006:
            self.give_device(os.path.dirname(PTMX))
            os.symlink("pts/ptmx", f"{STAGE}/dev/ptmx")
            return
        bind_mount("/dev", f"{STAGE}/dev", NOSUID | NOEXEC)
        for name in SHARED:
            self.hide(f"/dev/{name}")

    def write(self, path: str, text: str) -> None:
        """A small file of its own, which cannot be changed later."""
        self._make_point(path, directory=False)
        descriptor = os.open(STAGE + path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            os.write(descriptor, text.encode())
            os.fchmod(descriptor, 0o644)  # whatever the umask
        finally:
            os.close(descriptor)

    def mount(self, kind: str, path: str, options: str, *, writable: bool = True) -> None:
        """A file system of its own: proc, devpts."""
        self._make_point(path, directory=True)
        mount_new(kind, STAGE + path, options)
        if not writable:
            set_mount_attributes(STAGE + path, RDONLY)

    def give_scratch(self, directories: Mapping[str, int], options: str, owner: tuple[int, int]) -> None:
        """Directories of these modes that can be written, empty, all of them on one tmpfs. `owner`: uid and gid."""
        self._make_point(SCRATCH, directory=True)
        mount_scratch(STAGE + SCRATCH, options)
        for number, (path, mode) in enumerate(directories.items()):
            made = f"{STAGE}{SCRATCH}/{number}"
            os.mkdir(made)
            os.chmod(made, mode)
            os.chown(made, *owner)
            self._make_point(path, directory=True)
            bind_mount(made, STAGE + path, NOSUID | NODEV)
        detach_mount(STAGE + SCRATCH)
        os.rmdir(STAGE + SCRATCH)

    def hide(self, path: str) -> None:
        """Show an empty directory there, if what was given shows anything."""
        if os.path.isdir(STAGE + path):
            mount_tmpfs(STAGE + path, OPTIONS)
            self._hidden.append(STAGE + path)

    def enter(self) -> None:
        """From here on there is nothing else."""
        for mount in (*self._hidden, STAGE):
            set_mount_attributes(mount, RDONLY | NOSUID | NODEV | NOEXEC)
        enter_root(STAGE)

    def abandon(self) -> None:
        """The host's root stays."""
        detach_mount(STAGE)

    def _mount(self, source: str, target: str, attributes: int, *, translated: bool) -> None:
        if translated and self._owners >= 0:
            try:
                bind_mount(source, target, attributes, self._owners)
                return
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EPERM, errno.EOPNOTSUPP):  # its file system cannot do that
                    raise
        bind_mount(source, target, attributes)

    def _is_shown(self, path: str) -> bool:
        return any(os.path.commonpath([path, given]) == given for given in self._given)

    def _make_point(self, path: str, *, directory: bool) -> None:
        """Something to mount on. Inside what was given before it is there already."""
        point = STAGE + path
        if os.path.lexists(point):
            return
        self._make_directory(os.path.dirname(path))
        if directory:
            os.mkdir(point, 0o755)
        else:
            os.close(os.open(point, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))

    def _make_directory(self, path: str) -> None:
        """Whatever the umask: a domain with a uid of its own has to pass."""
        before = os.umask(0o022)
        try:
            os.makedirs(STAGE + path, 0o755, exist_ok=True)
        finally:
            os.umask(before)
