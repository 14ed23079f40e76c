"""Shared rings: the Python face of Xen's public/io/ring.h, both ends as mirrored verbs over one layout.

A front pushes requests and pops responses, a back pops requests and pushes responses. Both live in a writable buffer
(`Extent.pages`), share four index words with the peer, and keep their own cursors private. `push` returns whether the
peer asked to be notified; ringing its doorbell is the caller's own next step.

What the peer wrote is read once, as a copy. An index that claims more than the protocol allows raises PeerFault, and
from then on every use of that ring does.

Where both ends are `checked` (they agree on it by the key RING_CHECKS), an index is believed only while it agrees with
its check, and each end looks whether its own index is as it left it: no bit of an index changes unnoticed. Xen's ring.h
has no such thing; the checks lie in the header's padding.
"""

from hvd.transport._native import BackRing, FrontRing, Ring
from hvd.transport.pages import PAGE_SIZE

__all__ = ["RING_CHECKS", "RING_HEADER_SIZE", "BackRing", "FrontRing", "Ring", "ring_size"]

RING_HEADER_SIZE = 64
RING_CHECKS = "hvd-ring-checks"
"""The key by which a backend offers checks with "1", and a frontend takes them."""


def ring_size(pages: int, slot_size: int) -> int:
    """Slots of a ring of that many pages: what fits beside the header, rounded down to a power of two (RING_SIZE)."""
    slots = (pages * PAGE_SIZE - RING_HEADER_SIZE) // slot_size
    return 1 << (slots.bit_length() - 1) if slots > 0 else 0
