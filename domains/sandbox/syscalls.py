"""The system calls that each kind of domain may make: what hvd, CPython, libzmq and glibc are known to need, no more.

A name that an architecture or libseccomp does not know is left out. What is not listed is not allowed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hvd.transport.process import CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER, CLONE_NEWUTS
from hvd.transport.records import dataclass
from hvd.transport.sandbox import Kind

CLONE_THREAD = 0x00010000
CLONE_NEWCGROUP, CLONE_NEWTIME = 0x02000000, 0x00000080
NEW_NAMESPACES = (
    CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUSER | CLONE_NEWUTS | CLONE_NEWCGROUP
)
"""CLONE_NEWTIME shares its bit with the exit signal in clone, and clone3 is not there."""


ALL_BITS = (1 << 64) - 1
INT = (1 << 32) - 1
"""Those of an argument that the kernel takes as an int."""
ABOVE_63 = INT & ~63


class Only(NamedTuple):
    """Allowed if, of argument `argument`, the bits in `mask` are `value`."""

    argument: int
    value: int
    mask: int = ALL_BITS


Alternative = Only | tuple[Only, ...]
"""One condition, or several at once."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Unconditional calls by name; those that depend on arguments, with the alternatives."""

    always: frozenset[str]
    only: Mapping[str, Sequence[Alternative]]
    feigned: frozenset[str] = frozenset()
    """Calls that do nothing, and say that they did."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _first(argument: int, *values: int) -> tuple[Only, ...]:
    return tuple(Only(argument, value) for value in values)


IO = _words("""
    read write readv writev
    pread64 pwrite64 preadv pwritev preadv2 pwritev2 sendfile splice copy_file_range lseek _llseek
    close close_range dup dup2 dup3 pipe pipe2 flock fsync fdatasync ftruncate ftruncate64
    poll ppoll ppoll_time64 select _newselect pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait
    epoll_pwait2 eventfd eventfd2 timerfd_create timerfd_settime timerfd_gettime signalfd4 inotify_init1
""")
FILES = _words("""
    open openat stat lstat fstat newfstatat fstatat64 statx statfs fstatfs access faccessat faccessat2
    readlink readlinkat getdents getdents64 getcwd chdir fchdir umask getxattr lgetxattr fgetxattr listxattr
    mkdir mkdirat rmdir link linkat unlink unlinkat rename renameat renameat2 truncate utimensat fadvise64
""")
"""Which files, and whether they can be written, is the business of the layers root and landlock."""
MEMORY = _words("brk mmap mmap2 munmap mremap mprotect madvise msync mincore membarrier mlock munlock get_mempolicy")
THREADS = _words("""
    futex futex_time64 futex_waitv set_robust_list get_robust_list rseq set_tid_address gettid exit exit_group
    sched_yield sched_getaffinity sched_getparam sched_getscheduler sched_setscheduler sched_get_priority_max
    sched_get_priority_min sched_rr_get_interval sched_getattr getpriority getcpu arch_prctl restart_syscall
""")
"""sched_setscheduler: libzmq aborts where it is refused by seccomp; the kernel itself refuses to raise anything."""
SIGNALS = _words("""
    rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend rt_sigqueueinfo sigaltstack
    pause kill tkill tgkill alarm getitimer setitimer wait4 waitid
""")
"""kill reaches nobody but the domain's own: that is the layers pid and landlock."""
FACTS = _words("""
    getpid getppid getpgrp getpgid getsid getuid geteuid getgid getegid getresuid getresgid getgroups
    uname sysinfo getrusage times time gettimeofday clock_gettime clock_gettime64 clock_getres nanosleep
    clock_nanosleep clock_nanosleep_time64 getrandom getrlimit ugetrlimit setrlimit capget
""")
SOCKETS = _words("""
    connect getsockopt setsockopt getsockname getpeername sendto recvfrom sendmsg recvmsg shutdown
""")
PROGRAMS = _words("""
    fork vfork execve execveat setpgid setsid bind listen accept accept4 sendmmsg recvmmsg ioctl prctl prlimit64
    fallocate sync syncfs sync_file_range readahead mknod mknodat symlink symlinkat chroot memfd_create personality
    chmod fchmod fchmodat chown fchown lchown fchownat utime utimes futimesat tee vmsplice
    setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr llistxattr flistxattr
    setuid setgid setreuid setregid setresuid setresgid setfsuid setfsgid capset
    sched_setparam sched_setattr setpriority ioprio_get ioprio_set pidfd_open pidfd_send_signal
    inotify_init inotify_add_watch inotify_rm_watch signalfd mlock2 mlockall munlockall process_madvise
    shmget shmat shmdt shmctl semget semop semtimedop semctl msgget msgsnd msgrcv msgctl
    mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr
    io_setup io_destroy io_submit io_getevents io_cancel io_pgetevents
    landlock_create_ruleset landlock_add_rule landlock_restrict_self seccomp
""")
"""What programs that were not written for this do, as container engines let them; but no new namespace, no mount, no
tracing, no io_uring, no bpf and of netlink what sets addresses and routes: each is a large part of the kernel. Most of
it concerns nobody else: they are in a root, a PID namespace and a network of their own."""
GUEST = IO | FILES | MEMORY | THREADS | SIGNALS | FACTS | SOCKETS

NETLINK_ROUTE, NETLINK_SOCK_DIAG = 0, 4
SOL_IP, SOL_SOCKET, SOL_TCP, SOL_UDP, SOL_IPV6, SOL_ICMPV6, SOL_RAW, SOL_PACKET, SOL_NETLINK = (
    0, 1, 6, 17, 41, 58, 255, 263, 270,
)  # fmt: skip
AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET = 1, 2, 10, 16, 17
TERMINAL_FACTS = (0x5401, 0x802C542A, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
"""TCGETS, TCGETS2, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX."""
TERMINALS = (0x5402, 0x5403, 0x5404, 0x402C542B, 0x402C542C, 0x402C542D, 0x540B, 0x5414, 0x80045430, 0x40045431, 0x5441)
"""TCSETS, TCSETSW, TCSETSF, TCSETS2, TCSETSW2, TCSETSF2, TCFLSH, TIOCSWINSZ, TIOCGPTN, TIOCSPTLCK, TIOCGPTPEER."""
READERS = 0x21
"""IN_ACCESS | IN_OPEN."""
DISKS = (0x80081272, 0x1268, 0x127B, 0x1277)
"""BLKGETSIZE64, BLKSSZGET, BLKPBSZGET, BLKDISCARD."""
TUN = (0x400454CA, 0x800454D2, 0x400454D0, 0x400454D8, 0x8933, 0x8913, 0x8914, 0x8921, 0x8922)
"""TUNSETIFF, TUNGETIFF, TUNSETOFFLOAD, TUNSETVNETHDRSZ, SIOCGIFINDEX, SIOCGIFFLAGS, SIOCSIFFLAGS, SIOC(G|S)IFMTU."""
TAPS = (0x400454CA, 0x800454D2, 0x400454D0, 0x8933)
"""TUNSETIFF, TUNGETIFF, TUNSETOFFLOAD, SIOCGIFINDEX: of descriptors that it was handed."""
PRCTL = (1, 2, 3, 15, 16, 21, 23, 29, 30, 38, 39, 0x53564D41)
"""(G|S)ET_PDEATHSIG, GET_DUMPABLE, (S|G)ET_NAME, GET_SECCOMP, CAPBSET_READ, (S|G)ET_TIMERSLACK, (S|G)ET_NO_NEW_PRIVS,
SET_VMA, which glibc names its memory with."""

_FCNTL = (
    *(Only(1, first, INT & ~(count - 1)) for first, count in ((0, 8), (8, 2), (12, 4), (16, 2), (36, 2), (1024, 32))),
    *_first(1, 11, 38),
)
"""All but F_SETSIG, with which the kernel sends SIGCONT to whoever asks for it: that is the end of a pause."""
_GUEST_ONLY = {
    "fcntl": _FCNTL,
    "fcntl64": _FCNTL,
    "socket": _first(0, AF_UNIX),
    "socketpair": _first(0, AF_UNIX),
    "ioctl": _first(1, *TERMINAL_FACTS),
    "prctl": _first(0, *PRCTL),
    "prlimit64": _first(0, 0),
    "clone": (Only(0, CLONE_THREAD, CLONE_THREAD),),
}
FEIGNED = _words("setgroups")
"""Who lets go of groups before his work, as tcpdump and most daemons do, ends if he may not, and the kernel lets nobody
in a user namespace that one user made. There is one group in it, and nothing to let go of."""
_PROGRAM_ONLY: dict[str, Sequence[Alternative]] = {
    "fcntl": _FCNTL,
    "fcntl64": _FCNTL,
    "clone": (Only(0, 0, NEW_NAMESPACES),),
    "socket": (
        *_first(0, AF_UNIX, AF_INET, AF_INET6, AF_PACKET),
        (Only(0, AF_NETLINK), Only(2, NETLINK_ROUTE)),
        (Only(0, AF_NETLINK), Only(2, NETLINK_SOCK_DIAG)),
    ),
    "socketpair": _first(0, AF_UNIX),
    "setsockopt": (
        *_first(1, SOL_SOCKET, SOL_TCP, SOL_UDP, SOL_ICMPV6, SOL_RAW, SOL_PACKET, SOL_NETLINK),
        (Only(1, SOL_IP), Only(2, 0, ABOVE_63)),
        (Only(1, SOL_IPV6), Only(2, 0, ABOVE_63)),
        *((Only(1, SOL_IPV6), Only(2, first, INT & ~(count - 1))) for first, count in ((66, 2), (68, 4), (72, 8))),
    ),
}
"""Of IP's options those below 64 and IPv6's names above: what is between changes tables of iptables."""
_DRIVER_ONLY = _GUEST_ONLY | {"ioctl": _first(1, *TERMINAL_FACTS, *TERMINALS, *DISKS)}
INIT = "init"
"""Of no kind: the first process of a domain whose program is in a sandbox beside it."""
POLICIES: dict[str, Policy] = {
    Kind.GUEST: Policy(GUEST, _GUEST_ONLY),
    INIT: Policy(GUEST, _GUEST_ONLY | {"ioctl": _first(1, *TERMINAL_FACTS, *TAPS)}),
    Kind.DRIVER: Policy(GUEST | _words("fallocate sync_file_range readahead"), _DRIVER_ONLY),
    Kind.NETWORK: Policy(
        GUEST | _words("fallocate bind listen accept accept4 sendmmsg recvmmsg"),
        _DRIVER_ONLY
        | {
            "socket": _first(0, AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET),
            "ioctl": _first(1, *TERMINAL_FACTS, *TERMINALS, *DISKS, *TUN),
        },
    ),
    Kind.PROGRAM: Policy((GUEST | PROGRAMS) - _PROGRAM_ONLY.keys(), _PROGRAM_ONLY, FEIGNED),
}
CONSOLES = {kind: f"{kind} with consoles" for kind in (Kind.DRIVER, Kind.NETWORK)}
"""Of no kind: domain 0, which may ask who reads its terminals. Others could see who runs what on the host."""
POLICIES |= {
    name: Policy(
        POLICIES[kind].always | {"inotify_rm_watch"}, {**POLICIES[kind].only, "inotify_add_watch": _first(2, READERS)}
    )
    for kind, name in CONSOLES.items()
}
REFUSED = {
    "clone3": "ENOSYS",
    "openat2": "ENOSYS",
    "fchmodat2": "ENOSYS",
    "mseal": "ENOSYS",
    "pkey_alloc": "ENOSYS",
    "timer_create": "ENOSYS",
    "sched_setaffinity": "EPERM",
    "set_mempolicy": "EPERM",
    "mbind": "EPERM",
}
"""Never fatal, because libraries try them and do without: glibc falls back from clone3 to clone at ENOSYS.
A timer of timer_create could send its process SIGCONT, and so end a pause: timerfd and setitimer cannot."""
