"""Who is at the other end of a Unix socket: a process of which domain, or of the host. The second lock on an identity.

The first is that a domain finds no socket but its own. Where a machine permits no root of its own, this one is left.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping

from hvd.transport.ids import DomId
from hvd.transport.process import parent_of

_UCRED = struct.Struct("iii")
ANCESTORS_MAX = 64
"""Whoever hides its descent behind more processes than that is taken for nobody's of the host."""
NOBODY = DomId(-1)


def domain_of(client: socket.socket, living: Mapping[int, DomId]) -> DomId | None:
    """The domain whose process, or whose process's descendant, connected; None: the host's. `living` is by pid.

    NOBODY for one that has ended since: it is not there to be told from a domain's. Pid 0 is out of our sight, and all
    domains are in it.
    """
    pid, _, _ = _UCRED.unpack(client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    for _ in range(ANCESTORS_MAX):
        if pid in living:
            return living[pid]
        if pid <= 1:
            return None
        parent = parent_of(pid)
        if parent is None:
            break
        pid = parent
    return NOBODY
