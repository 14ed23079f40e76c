"""The root directory of a domain: empty but for what it is given, each thing at the path it has on the host.

It is put together on a tmpfs that hides the host's /proc: the one directory that is surely there, and of which no
domain is given anything. What a domain is given is mounted from the host, read-only unless it is said otherwise.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

from hvd.domains.sandbox.host_mounts import HostMounts
from hvd.transport._native import (
    bind_mount,
    clone_tree,
    detach_mount,
    enter_root,
    make_mounts_private,
    mount_new,
    mount_scratch,
    mount_tmpfs,
    place_tree,
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

    def __init__(self, owners: int, host: HostMounts | None = None) -> None:
        """`owners`: the user namespace that owners are translated by where the file system can do that; -1: not.

        `host`: for whoever wants to `move_in` before it is whole.
        """
        make_mounts_private()
        mount_tmpfs(STAGE, OPTIONS)
        self._top = STAGE
        """Where it is; "" when it is all there is."""
        self.host = host
        self._owners = owners
        self._fetched: dict[str, tuple[bool, int]] = {}
        """By path: whether it is a directory, and a copy of what is mounted there, or -1."""
        self._given: list[str] = []
        self._hidden: list[str] = []

    def give(self, path: str, *, writable: bool = False, translated: bool = True) -> None:
        """Show a file or directory of the host's, or what was fetched for it, links followed. Nothing if it is not."""
        if not writable and self._is_shown(path):
            return
        if path not in self._fetched:
            with self.seeing_host():
                self.fetch(path)
        directory, tree = self._fetched.pop(path)
        if tree < 0:
            return
        try:
            self._make_point(path, directory=directory)
            self._place(tree, path, NOSUID | NODEV | (0 if writable else RDONLY), translated=translated)
        finally:
            os.close(tree)
        if not writable:
            self._given.append(path)

    def fetch(self, path: str, source: str = "") -> None:
        """What `give` will show there: `source`, or what is there on the host.

        For whoever is `seeing_host`, so that each need not look by itself. OSError when the kernel refuses.
        """
        if path in self._fetched:
            return
        source = os.path.realpath(source or path)
        there = os.path.lexists(source)
        self._fetched[path] = os.path.isdir(source), clone_tree(source) if there else -1

    def give_system(self, path: str, *, translated: bool = True) -> None:
        """As `give`, but a link stays one: /lib leads to usr/lib. `translated`: what is root's is the domain's."""
        with self.seeing_host():
            target = os.readlink(path) if os.path.islink(path) else None
        if target is None:
            self.give(path, translated=translated)
        elif not self._is_shown(path):
            self.link(path, target)

    def link(self, path: str, target: str) -> None:
        """A symbolic link. Before anything writable is given, where it could land in a directory of the host's."""
        self.make_directory(os.path.dirname(path))
        os.symlink(target, self._top + path)

    def give_device(self, path: str) -> None:
        """A device node, or a directory of them; they can be written however they are mounted."""
        with self.seeing_host():
            is_link, directory = os.path.islink(path), os.path.isdir(path)
            tree = clone_tree(path) if os.path.exists(path) and not is_link else -1
        if is_link:
            self.give_system(path)
        elif tree >= 0:
            try:
                self._make_point(path, directory=directory)
                place_tree(tree, self._top + path, NOSUID | NOEXEC)
            finally:
                os.close(tree)

    def give_terminals(self) -> None:
        """The host's pseudo-terminals. Where only root may use /dev/pts/ptmx, as on most hosts, it takes all of /dev.

        The device node alone is no good: the kernel looks for the file system of terminals beside it, where it really
        is. Nodes are guarded by their modes and by Landlock; what is mounted below /dev beside /dev/pts is hidden.
        """
        with self.seeing_host():
            is_open = os.path.exists(PTMX) and os.stat(PTMX).st_mode & 0o006 == 0o006
        if is_open:
            self.give_device(os.path.dirname(PTMX))
            self.link("/dev/ptmx", "pts/ptmx")
            return
        self.give_device("/dev")
        for name in SHARED:
            self.hide(f"/dev/{name}")

    def make_directory(self, path: str) -> None:
        """With those above it, whatever the umask: a domain with a uid of its own has to pass."""
        before = os.umask(0o022)
        try:
            os.makedirs(self._top + path or "/", 0o755, exist_ok=True)
        finally:
            os.umask(before)

    def write(self, path: str, text: str) -> None:
        """A small file of its own, which cannot be changed later."""
        self._make_point(path, directory=False)
        descriptor = os.open(self._top + path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            os.write(descriptor, text.encode())
            os.fchmod(descriptor, 0o644)  # whatever the umask
        finally:
            os.close(descriptor)

    def mount(self, kind: str, path: str, options: str, *, writable: bool = True) -> None:
        """A file system of its own: proc, devpts."""
        self._make_point(path, directory=True)
        mount_new(kind, self._top + path, options)
        if not writable:
            set_mount_attributes(self._top + path, RDONLY)

    def give_scratch(self, directories: Mapping[str, int], options: str, owner: tuple[int, int]) -> None:
        """Directories of these modes that can be written, empty, all of them on one tmpfs. `owner`: uid and gid."""
        self._make_point(SCRATCH, directory=True)
        scratch = self._top + SCRATCH
        mount_scratch(scratch, options)
        for number, (path, mode) in enumerate(directories.items()):
            made = f"{scratch}/{number}"
            os.mkdir(made)
            os.chmod(made, mode)
            os.chown(made, *owner)
            self._make_point(path, directory=True)
            bind_mount(made, self._top + path, NOSUID | NODEV)
        detach_mount(scratch)
        os.rmdir(scratch)

    def hide(self, path: str) -> None:
        """Show an empty directory there, if what was given shows anything."""
        if os.path.isdir(self._top + path):
            mount_tmpfs(self._top + path, OPTIONS)
            self._hidden.append(path)

    def move_in(self) -> None:
        """It is all there is from here on, but for what is `seen` of the host, and can be built on."""
        enter_root(STAGE)
        self._top = ""
        if self.host is not None:
            self.host.moved()

    def seeing_host(self) -> AbstractContextManager[None]:
        """Paths are the host's meanwhile: they are anyway, until we have moved in."""
        return nullcontext() if self.host is None or self._top else self.host.seen()

    @property
    def descriptors(self) -> list[int]:
        """Those that it needs until it is entered or abandoned."""
        trees = [tree for _, tree in self._fetched.values() if tree >= 0]
        return trees if self.host is None else [*trees, *self.host.descriptors]

    def enter(self) -> None:
        """From here on there is nothing else, and it stays as it is."""
        for path in (*self._hidden, ""):
            set_mount_attributes(self._top + path or "/", RDONLY | NOSUID | NODEV | NOEXEC)
        if self._top:
            self.move_in()
        self._drop_fetched()
        if self.host is not None:
            self.host.close()

    def abandon(self) -> None:
        """The host's root stays, or is ours again. Stranded if it cannot be."""
        self._drop_fetched()
        if self.host is None:
            detach_mount(STAGE)
        else:
            self.host.go_back()

    def _drop_fetched(self) -> None:
        for _, tree in self._fetched.values():
            if tree >= 0:
                os.close(tree)
        self._fetched.clear()

    def _place(self, tree: int, path: str, attributes: int, *, translated: bool) -> None:
        target = self._top + path
        if translated and self._owners >= 0:
            try:
                place_tree(tree, target, attributes, self._owners)
                return
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EPERM, errno.EOPNOTSUPP):  # its file system cannot do that
                    raise
        place_tree(tree, target, attributes)

    def _is_shown(self, path: str) -> bool:
        return any(os.path.commonpath([path, given]) == given for given in self._given)

    def _make_point(self, path: str, *, directory: bool) -> None:
        """Something to mount on. Inside what was given before it is there already."""
        point = self._top + path
        if os.path.lexists(point):
            return
        self.make_directory(os.path.dirname(path))
        if directory:
            os.mkdir(point, 0o755)
        else:
            os.close(os.open(point, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
