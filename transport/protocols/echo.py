"""The echo device: 64-byte messages that come back; hvd's measure of a bare ring between two domains.

One page, one ring of `ring.h` with slots of 64 bytes, one event channel. A request is 64 opaque bytes; its response
is the same bytes, in order. Frontend keys: `ring-ref`, `event-channel`. Backend keys: none.
"""

from __future__ import annotations

from typing import Final

MESSAGE_SIZE: Final = 64
