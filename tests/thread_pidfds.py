"""Whether the kernel tells of the end of one thread."""

import os

import pytest

from hvd.transport.process import PIDFD_THREAD


def _kernel_has_them() -> bool:
    try:
        os.close(os.pidfd_open(os.getpid(), PIDFD_THREAD))
    except OSError:
        return False
    return True


needs_thread_pidfds = pytest.mark.skipif(not _kernel_has_them(), reason="Linux 6.9 brought the pidfd of a thread")
