"""The identifiers that cross between processes, each a type of its own so that they cannot be swapped."""

from typing import NewType

DomId = NewType("DomId", int)
"""A domain, 0..0x7FEF; the values above are Xen's reserved ones (public/xen.h)."""
Port = NewType("Port", int)
"""A local event-channel port; numbers are per domain and never 0."""
GrantRef = NewType("GrantRef", int)
"""A grant reference in its owner's table; one ref is one 4 KiB page."""
ExtentId = NewType("ExtentId", int)
"""A run of pages that is one memfd: the unit of isolation."""
Incarnation = NewType("Incarnation", int)
"""How often the process behind a domid has been started; 1 is the first."""
Handle = NewType("Handle", int)
"""One mapping of somebody else's grants (a grant handle in Xen's maptrack table)."""

DOM0 = DomId(0)
DOMID_FIRST_RESERVED = 0x7FF0
DOMID_SELF = DomId(0x7FF0)
DOMID_XEN = DomId(0x7FF2)
"""The broker itself, as the other end of a VIRQ channel."""

GRANT_REF_CONSOLE = GrantRef(0)
GRANT_REF_XENSTORE = GrantRef(1)
GRANT_REF_FIRST_FREE = GrantRef(8)
"""Refs 0..7 are reserved (GNTTAB_NR_RESERVED_ENTRIES); a guest's own start here."""
GRANT_REF_MAX = GrantRef(2**31 - 1)
