"""`hvd mem-set` and `hvd mem-max`: sizes as xl reads them, what xl prints, its exit status."""

from __future__ import annotations

import re
from collections.abc import Callable

from hvd.toolstack.cli.output import print_json
from hvd.toolstack.cluster import Cluster, Domain
from hvd.toolstack.cluster.errors import ClusterError

_SIZE = re.compile(r"\s*\+?(\d{1,15})([tgmkb]?)", re.ASCII | re.IGNORECASE)
_KIB = {"t": 1 << 30, "g": 1 << 20, "m": 1 << 10, "": 1 << 10, "k": 1}


def kib_of(mem: str) -> int:
    """What xl's parse_mem_size_kb makes of a size: MiB, or what the letter behind it says. ClusterError: it is none.

    (xl(1) calls KiB the default. xl does not.)
    """
    found = _SIZE.fullmatch(mem)
    if found is None:
        raise ClusterError(f"invalid memory size: {mem!r}; expected as 512, 512m, 1g, 524288k, 536870912b or 1t")
    number, unit = int(found[1]), found[2].lower()
    return number // 1024 if unit == "b" else number * _KIB[unit]


def mem_set(name: str, mem: str, *, as_json: bool) -> None:
    """What a domain is to do with."""
    _change(name, mem, Domain.mem_set, "memory target set", as_json=as_json)


def mem_max(name: str, mem: str, *, as_json: bool) -> None:
    """What a domain may have at most."""
    _change(name, mem, Domain.mem_max, "memory maximum set", as_json=as_json)


def _change(name: str, mem: str, change: Callable[[Domain, int], None], done: str, *, as_json: bool) -> None:
    """xl says nothing when it has done it."""
    kib = kib_of(mem)
    with Cluster.attach() as cluster:
        domain = cluster.domain(name)
        change(domain, kib)
        info = domain.info()
    if as_json:
        amounts = {key: getattr(info, key) for key in ("memory_target_kib", "memory_max_kib", "memory_static_max_kib")}
        print_json({"done": done, "domid": domain.domid, "name": info.name, "memory": info.memory, **amounts})
