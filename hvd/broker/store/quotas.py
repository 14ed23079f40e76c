"""Every bound of the store: what one domain may hold, and the ceilings under which dom0 works."""

from hvd.transport.records import dataclass

PAYLOAD_BYTES_MAX = 4096
"""Of one message on the wire (xs_wire.h XENSTORE_PAYLOAD_MAX); also of one reply to directory_part."""
ABSOLUTE_PATH_BYTES_MAX = 3072
TOKEN_BYTES_MAX = PAYLOAD_BYTES_MAX - ABSOLUTE_PATH_BYTES_MAX - 2
"""With the longest path and two NULs this still fits one message: no watch event is ever too long to send (XSA-324)."""


@dataclass(frozen=True, slots=True)
class Quotas:
    """What one domain may hold; the defaults are those of Xen's xenstored for unprivileged domains."""

    nodes_max: int = 1000
    """Nodes it owns, by the first entry of their permissions. ENOSPC."""
    node_bytes_max: int = 2048
    """One node's record: header, permissions, value and the names of its children. ENOSPC."""
    permissions_max: int = 5
    """Entries of one node, its owner's included. ENOSPC."""
    path_bytes_max: int = 2048
    """A path, counted behind /local/domain/<domid>/ where it begins so. EINVAL."""
    depth_max: int = 128
    """Names in a path; xenstored has no such bound, but every call walks them all. EINVAL."""
    watches_max: int = 128
    """E2BIG."""
    transactions_max: int = 10
    """Open at once. ENOSPC."""
    transaction_nodes_max: int = 1024
    """Paths that one transaction reads or writes, those that it removes with one above them included. ENOSPC."""
    memory_bytes_max: int = 2_097_152
    """Its nodes, its watches, and what its open transactions have read and written. ENOMEM."""
    events_max: int = 1024
    """Watch events not taken yet; what fires beyond says only which watch it was, and new watches get ENOSPC."""


UNPRIVILEGED = Quotas()
PRIVILEGED = Quotas(
    nodes_max=1_000_000,
    node_bytes_max=1 << 24,
    permissions_max=64,
    depth_max=1024,
    watches_max=65_536,
    transactions_max=1024,
    transaction_nodes_max=65_536,
    memory_bytes_max=1 << 30,
    events_max=65_536,
)
"""Dom0's ceilings: far above any use, but every table has an end."""
