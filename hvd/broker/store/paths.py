"""Store paths: what is a valid one, which node a relative one means, and how they come apart.

Every function but `resolve` takes a canonical path: absolute, valid, "/" for the root.
"""

import errno
import re

from hvd.broker.store.errors import StoreError
from hvd.broker.store.quotas import ABSOLUTE_PATH_BYTES_MAX, Quotas
from hvd.transport.ids import DomId

_VALID = re.compile(r"/|(?:/[A-Za-z0-9_@-]+)+")
_HOME = re.compile(r"/local/domain/[0-9]{1,5}/")


def home(domid: DomId) -> str:
    """Where a domain's relative paths begin."""
    return f"/local/domain/{domid}"


def resolve(domid: DomId, path: str, limits: Quotas) -> str:
    """The canonical path of what `domid` calls `path`; EINVAL for a path that no node can have."""
    absolute = path if path.startswith(("/", "@")) else f"{home(domid)}/{path}"
    if len(absolute) > ABSOLUTE_PATH_BYTES_MAX:
        raise StoreError(errno.EINVAL, f"a path has at most {ABSOLUTE_PATH_BYTES_MAX} bytes, this one {len(absolute)}")
    if not _VALID.fullmatch(absolute):
        raise StoreError(errno.EINVAL, f"not a path: {path[:80]!r} (letters, digits and -_@ between single slashes)")
    if len(absolute) > limits.depth_max and absolute.count("/") > limits.depth_max:
        raise StoreError(errno.EINVAL, f"a path has at most {limits.depth_max} names: {path[:80]!r}...")
    if len(absolute) > limits.path_bytes_max and _bytes_below_home(absolute) > limits.path_bytes_max:
        raise StoreError(errno.EINVAL, f"a path has at most {limits.path_bytes_max} bytes: {path[:80]!r}...")
    return absolute


def _bytes_below_home(path: str) -> int:
    prefix = _HOME.match(path)
    return len(path) - (prefix.end() if prefix else 0)


def split(path: str) -> list[str]:
    """The names on the way from the root."""
    return [] if path == "/" else path[1:].split("/")


def join(names: list[str]) -> str:
    """The reverse of `split`."""
    return "/" + "/".join(names)


def child(path: str, name: str) -> str:
    """The path of a node's child."""
    return f"/{name}" if path == "/" else f"{path}/{name}"


def parent(path: str) -> str:
    """The path above; the root is its own."""
    return path[: path.rfind("/")] or "/"


def as_seen_from(domid: DomId, path: str) -> str:
    """A path at or below the domain's home, as a relative path."""
    return path[len(home(domid)) + 1 :]
