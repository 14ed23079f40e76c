"""Which bits of a domain's shared pages a fault flips: of rings the control words, of what else it has granted data.

What a page is for, the frontend says in its store directory: `ring-ref` and its kin name rings. Backends read them
there too. The console's page and XenStore's are known by their grants' numbers.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from random import Random
from typing import TYPE_CHECKING

from hvd.broker.errors import Refused
from hvd.broker.store import StoreError
from hvd.transport.faults import ControlWord, RingKind, words_of
from hvd.transport.ids import DOM0, GRANT_REF_CONSOLE, GRANT_REF_XENSTORE, ExtentId, GrantRef
from hvd.transport.rings import RING_CHECKS

if TYPE_CHECKING:
    from hvd.broker.domain import Domain
    from hvd.broker.grant_tables import Extent
    from hvd.broker.lives import Lives

Bit = tuple[ExtentId, int, int]
"""Extent, byte in it, bit of that byte."""
RingPlace = tuple[ExtentId, int, bool]
"""Extent and page of a ring's control words, and whether its ends keep checks of them."""
PAGE_BYTES = 4096
BITS_MOST = 4096
INDEX_BITS = 32
RING_KEYS = ("ring-ref", "ring-ref0")
"""The first page of a ring has the words."""
REFS = {RingKind.CONSOLE: GRANT_REF_CONSOLE, RingKind.STORE: GRANT_REF_XENSTORE}
"""Of pages that are there by their number alone."""
NONE = {
    RingKind.DEVICE: "no device with a ring",
    RingKind.CONSOLE: "no console",
    RingKind.STORE: "no ring of XenStore's: it has asked for none (StoreRing)",
}
"""What is said of who has no ring of a kind."""


def ring(h: Lives, domain: Domain, word: int, chosen: Random) -> list[Bit]:
    """One bit of a control word of one of its rings, which somebody can find wrong. ENOENT: no such ring.

    `word` is a ControlWord; 0: one of a device's ring.
    """
    control = chosen.choice(words_of(RingKind.DEVICE)) if word == 0 else _word(word)
    rings = sorted(_rings_of(h, domain, control.ring))
    if not rings:
        raise Refused(errno.ENOENT, f"domain {domain.name} has {NONE[control.ring]}")
    extent, page, checked = chosen.choice(rings)
    bit = chosen.randrange(0 if checked else control.unsure_bits, INDEX_BITS)
    return [(extent, page * PAGE_BYTES + control.offset + bit // 8, bit % 8)]


def pages(h: Lives, domain: Domain, count: int, chosen: Random) -> list[Bit]:
    """`count` bits of the pages that it grants to others and that are no rings. ENOENT: it grants none."""
    if not 1 <= count <= BITS_MOST:
        raise Refused(errno.EINVAL, f"{count} bits; expected 1 to {BITS_MOST}")
    rings = {extent for kind in RingKind for extent, _, _ in _rings_of(h, domain, kind)}
    extents = [e for e in _granted(h, domain) if e.id not in rings]
    if not extents:
        raise Refused(errno.ENOENT, f"domain {domain.name} grants no page but rings")
    bytes_of = [extent.pages * PAGE_BYTES for extent in extents]
    picked = chosen.choices(extents, bytes_of, k=count)
    return [(e.id, chosen.randrange(e.pages * PAGE_BYTES), chosen.randrange(8)) for e in picked]


def _granted(h: Lives, domain: Domain) -> list[Extent]:
    return [extent for extent in h.grants.tables[domain.domid].extents.values() if extent.runs]


def _rings_of(h: Lives, domain: Domain, kind: RingKind) -> Iterator[RingPlace]:
    if kind is RingKind.DEVICE:
        yield from _device_rings(h, domain)
        return
    ref = REFS[kind]
    extent = h.grants.tables[domain.domid].refs.get(ref)
    if extent is not None:
        yield _place(extent, ref, checked=False)


def _device_rings(h: Lives, domain: Domain) -> Iterator[RingPlace]:
    refs = h.grants.tables[domain.domid].refs
    for device, _ in h.own_devices(domain):
        home = f"/local/domain/{domain.domid}/device/{device.kind}/{device.devid}"
        checked = _number(h, f"{home}/{RING_CHECKS}") == 1
        for key in RING_KEYS:
            ref = GrantRef(_number(h, f"{home}/{key}"))
            extent = refs.get(ref)
            if extent is not None:
                yield _place(extent, ref, checked=checked)


def _place(extent: Extent, ref: GrantRef, *, checked: bool) -> RingPlace:
    run = extent.runs[extent.place_of(ref)]
    return extent.id, run.first_page + ref - run.ref, checked


def _number(h: Lives, path: str) -> int:
    """What the domain wrote there, if it is a number; else one that is no ref."""
    try:
        untrusted_text = h.store.read(DOM0, 0, path)
    except StoreError:
        return -1
    return int(untrusted_text) if untrusted_text.isdigit() and len(untrusted_text) < 10 else -1


def _word(number: int) -> ControlWord:
    try:
        return ControlWord(number)
    except ValueError:
        raise Refused(errno.EINVAL, f"control word {number}; there are 1 to {len(ControlWord)}") from None
