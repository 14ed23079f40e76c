"""Two mount namespaces: what a process has let go of it still sees when it looks, until it can no more."""

import ctypes
import errno
import os
import resource
import struct
from pathlib import Path

import pytest

from hvd.domains.sandbox.host_mounts import Stranded
from hvd.domains.sandbox.namespaces import Namespaces, map_own_user
from hvd.domains.sandbox.sandbox import Sandbox
from hvd.transport._native import seccomp_install
from hvd.transport.process import CLONE_NEWNS, CLONE_NEWUSER
from tests.forks import words_of

IDS = os.geteuid(), os.getegid()
PASSWD, MOUNTS = Path("/etc/passwd"), Path("/proc/self/mountinfo")
MS_REC, MS_SHARED = 1 << 14, 1 << 20


class NoRoot(Exception):
    """The kernel lets nobody have one."""


def in_a_process_of_its_own(body):
    """What the body returns, from a fork with a mount namespace of its own; skipped where there is none."""

    def run(tell):
        try:
            pid, flags = Namespaces().fork(())
            if pid == 0:
                if flags & CLONE_NEWUSER:
                    map_own_user(*IDS)
                tell(repr(body(flags)) if flags & CLONE_NEWNS else "no namespaces")
        except NoRoot:
            tell("no namespaces")

    told = words_of(run)
    if told == "no namespaces":
        pytest.skip(told)
    return told


def begun(flags, *, waits=True):
    sandbox = Sandbox(Namespaces().lacking(flags, ()), [], in_user_namespace=bool(flags & CLONE_NEWUSER))
    sandbox.begin(waits=waits)
    if "root" in sandbox.lacking:
        raise NoRoot
    return sandbox


def look(flags):
    """Where there is no /proc any more: what is at a path of the host's, before, while and after it is seen."""
    host = Path("/etc").stat().st_ino
    sandbox = begun(flags)
    before = PASSWD.exists()
    with sandbox._root.seeing_host():
        seen = Path("/etc").stat().st_ino == host and PASSWD.exists()
    return before, seen, PASSWD.exists(), Path("/usr/lib").exists(), sandbox.mounts >= 0


def test_who_waits_has_let_go_of_the_hosts_files_and_sees_them_when_it_looks():
    assert in_a_process_of_its_own(look) == repr((False, True, False, True, True))


def test_who_does_not_wait_lets_go_of_them_with_all_that_it_is_given():
    def body(flags):
        sandbox = begun(flags, waits=False)
        return PASSWD.exists(), sandbox.mounts, sandbox.hides_proc

    assert in_a_process_of_its_own(body) == repr((True, -1, True))


def test_who_does_not_get_its_root_is_back_in_the_hosts():
    def body(flags):
        sandbox = begun(flags)
        descriptors = sandbox.descriptors
        sandbox.show_host()
        closed = [number for number in descriptors if not is_open(number) and number != sandbox.person.owners]
        return PASSWD.exists(), len(closed), sandbox.hides_proc, sandbox.mounts

    assert in_a_process_of_its_own(body) == repr((True, 4, False, -1))


def is_open(number):
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def test_no_way_is_left_when_it_is_closed():
    def body(flags):
        sandbox = begun(flags)
        host = sandbox._root.host
        sandbox._root.enter()
        try:
            with host.seen():
                return "seen"
        except Stranded:
            return host.descriptors, PASSWD.exists()

    assert in_a_process_of_its_own(body) == repr(([], False))


def test_what_is_mounted_by_whoever_goes_back_is_mounted_nowhere_else():
    """As where systemd has made all of the host's mounts shared."""

    def body(flags):
        assert ctypes.CDLL(None).mount(None, b"/", None, MS_REC | MS_SHARED, None) == 0
        before = "shared:" in MOUNTS.read_text()
        sandbox = begun(flags)
        with sandbox._root.seeing_host():
            return before, "shared:" in MOUNTS.read_text()

    assert in_a_process_of_its_own(body) == repr((True, False))


def test_what_the_host_mounts_while_one_waits_is_seen_by_it_and_what_it_has_given_by_then_stays_as_it_was(tmp_path):
    """As by one that is forked when the domain is asked for: a disk that was plugged in since."""
    outside, given = tmp_path / "outside", tmp_path / "given"
    for path in (outside, given / "below"):
        path.mkdir(parents=True)

    def body(flags):
        libc = ctypes.CDLL(None)
        assert libc.mount(None, b"/", None, MS_REC | MS_SHARED, None) == 0
        host = os.open("/proc/self/ns/mnt", os.O_RDONLY)
        assert libc.unshare(CLONE_NEWNS) == 0
        sandbox = begun(flags)
        if "root" in sandbox.lacking:
            return "no namespaces"
        sandbox._root.give(str(given))
        away = os.fork()
        if away == 0:
            done = not libc.setns(host, CLONE_NEWNS)
            for path in (outside, given / "below"):
                done &= not libc.mount(b"new", str(path).encode(), b"tmpfs", 0, None)
                (path / "new").touch()
            os._exit(not done)
        assert os.waitpid(away, 0)[1] == 0
        sandbox._root.give(str(outside))
        return (outside / "new").exists(), (given / "below" / "new").exists()

    assert in_a_process_of_its_own(body) == repr((True, False))


SYS_SETNS = {"x86_64": 308, "aarch64": 268}[os.uname().machine]
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOWED, REFUSED = 0x7FFF0000, 0x00050000 | errno.EPERM


def test_who_may_leave_a_namespace_and_not_go_back_does_with_one():
    """As where a container's filter knows unshare and no setns: it finds out before it is anybody's."""

    def body(flags):
        steps = ((LOAD, 0, 0, 0), (JUMP_IF_EQUAL, 0, 1, SYS_SETNS), (RETURN, 0, 0, REFUSED), (RETURN, 0, 0, ALLOWED))
        seccomp_install(b"".join(struct.pack("=HBBI", *step) for step in steps))
        sandbox = begun(flags)
        return sandbox.lacking.get("root"), sandbox.mounts, sandbox.hides_proc, PASSWD.exists()

    assert in_a_process_of_its_own(body) == repr((None, -1, True, True))


def test_who_cannot_have_a_second_namespace_does_with_one():
    """It has too few descriptors left for two, and enough for one."""

    def body(flags):
        limit = free = 0
        while free < 2:
            free += not is_open(limit)
            limit += 1
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        sandbox = Sandbox({}, [], in_user_namespace=True)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        sandbox.begin(waits=True)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return sandbox.lacking.get("root"), sandbox.mounts, sandbox.hides_proc, PASSWD.exists()

    assert in_a_process_of_its_own(body) == repr((None, -1, True, True))
