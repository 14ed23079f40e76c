"""Devices that come and go while their domain runs.

To take a device away is xl's handshake: the toolstack writes `online` 0 and Closing into the backend's directory; the
frontend, if it can let go, goes to Closing, waits until the backend has let go of its pages, and to Closed; then both
directories are removed. A frontend that is in use says so in `hvd-busy`, and everything is as before. So it is when
the toolstack takes its request back before the frontend has said anything.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from hvd.broker import devices, spares
from hvd.broker.domain import ALIVE, Domain
from hvd.broker.errors import Refused
from hvd.broker.networks import VIF
from hvd.broker.store import Store, StoreError
from hvd.transport.ids import DOM0, DomId
from hvd.transport.kernels import is_program
from hvd.transport.limits import DEVICES_MAX, INTERFACES_MAX
from hvd.transport.messages import DeviceConfig, DomainConfig
from hvd.transport.records import replace
from hvd.transport.upcalls import TOOLSTACK
from hvd.transport.xenbus_state import XenbusState, parse_state

if TYPE_CHECKING:
    from hvd.broker.lives import Lives

BUSY = "hvd-busy"
BUSY_MAX = 200
"""Characters of a refusal's reason that are passed on."""


class Asked(NamedTuple):
    """What the request to let go of a device has found."""

    backend: DomId
    state: str | None
    """The backend's, before it was Closing for this; None: it had none."""


Leaving = dict[tuple[DomId, str, int], Asked]
"""Devices whose frontends are asked to let go."""


def attach(h: Lives, dom: DomId, device: DeviceConfig) -> None:
    """One more device. EEXIST, ENOSPC or EINVAL change nothing."""
    domain, backend = h.domain(dom), h.by_name(device.backend)
    label = f"{device.kind} {device.devid}"
    if find(domain.config, device.kind, device.devid) is not None:
        text = f"domain {domain.name} has a device {label} already: detach that first, or attach this by another number"
        raise Refused(errno.EEXIST, text)
    if len(domain.config.devices) >= DEVICES_MAX:
        raise Refused(errno.ENOSPC, f"domain {domain.name} has {DEVICES_MAX} devices, which is the most")
    vifs = sum(each.kind == VIF for each in (*domain.config.devices, device))
    if device.kind == VIF and is_program(domain.config.kernel) and vifs > INTERFACES_MAX:
        text = f"domain {domain.name} is a program and has {INTERFACES_MAX} vifs, which is the most: detach one first"
        raise Refused(errno.ENOSPC, text)
    if backend is None or backend is domain:
        raise Refused(errno.EINVAL, f"{label} names {device.backend!r} as its backend, which is no other domain")
    h.networks.check(domain.name, device, domain.config.devices, h.domains.values())
    if domain.life in ALIVE:
        _write(h, domain, device, backend.domid)
    domain.config = replace(domain.config, devices=[*domain.config.devices, device])
    spares.renew(h, domain)
    h.announce("attached", domain, label)
    h.collect_store_events()


def detach(h: Lives, dom: DomId, kind: str, devid: int, *, force: bool) -> None:
    """One device less, when its frontend has let go; at once if it cannot be asked, or is not. ENOENT: it has none."""
    domain = h.domain(dom)
    device = find(domain.config, kind, devid)
    if device is None:
        raise Refused(errno.ENOENT, f"domain {domain.name} has no device {kind} {devid}")
    backend = h.by_name(device.backend)
    path = devices.backend_path(backend.domid, dom, device) if backend is not None else ""
    unasked = force or backend is None or domain.life not in ALIVE or not h.store.exists(path)
    if unasked or _front_state(h, dom, device) is XenbusState.INITIALISING:  # it has published nothing to let go of
        _take_away(h, domain, device)
        return
    assert backend is not None
    if (dom, kind, devid) not in h.leaving:
        h.leaving[dom, kind, devid] = Asked(backend.domid, _read(h.store, f"{path}/state"))
        _remove(h.store, f"{devices.frontend_path(dom, device)}/{BUSY}")  # said too late to an earlier request
    h.store.write(DOM0, 0, f"{path}/online", b"0")
    _set_state(h.store, path, XenbusState.CLOSING)
    h.collect_store_events()


def keep(h: Lives, dom: DomId, kind: str, devid: int) -> None:
    """Take `detach` back. ENOENT: the device has gone, or nobody asked for it; EBUSY: its frontend is letting go."""
    domain = h.domain(dom)
    device, asked = find(domain.config, kind, devid), h.leaving.get((dom, kind, devid))
    if device is None or asked is None:
        raise Refused(errno.ENOENT, f"nobody has asked domain {domain.name} to let go of {kind} {devid}")
    if _front_state(h, dom, device) in (XenbusState.CLOSING, XenbusState.CLOSED):
        raise Refused(errno.EBUSY, f"domain {domain.name} is letting go of {kind} {devid} already")
    _stays(h, domain, device, asked, "the request was taken back")


def look(h: Lives) -> None:
    """Something has changed in the store: finish what those who were asked have decided."""
    for dom, domain, device, asked in list(_asked(h)):
        front = devices.frontend_path(dom, device)
        if (busy := _read(h.store, f"{front}/{BUSY}")) is not None:
            h.store.rm(DOM0, 0, f"{front}/{BUSY}")
            _stays(h, domain, device, asked, busy)
        elif parse_state(_read(h.store, f"{front}/state")) is XenbusState.CLOSED:
            _take_away(h, domain, device)


def domain_died(h: Lives, domain: Domain) -> None:
    """Whoever is dead has let go."""
    for dom, _, device, _ in list(_asked(h)):
        if dom == domain.domid:
            _take_away(h, domain, device)


def find(config: DomainConfig, kind: str, devid: int) -> DeviceConfig | None:
    """The device of a domain by its names in XenStore."""
    return next((d for d in config.devices if (d.kind, d.devid) == (kind, devid)), None)


def _asked(h: Lives) -> Iterator[tuple[DomId, Domain, DeviceConfig, Asked]]:
    for (dom, kind, devid), asked in h.leaving.items():
        domain = h.domains.get(dom)
        device = None if domain is None else find(domain.config, kind, devid)
        if domain is not None and device is not None:
            yield dom, domain, device, asked


def _write(h: Lives, domain: Domain, device: DeviceConfig, backend: DomId) -> None:
    try:
        h.write_device(domain, device, backend)
    except StoreError as error:
        remove_directories(h.store, domain, device, backend)
        raise Refused(error.errno, f"{device.kind} {device.devid}: {error.text}") from None
    queue = h.upcalls.get(domain.domid)
    if queue is not None:
        queue.add(f"device/{device.kind}/{device.devid}", TOOLSTACK)
        h.hardware.events_pending(domain.domid)


def _stays(h: Lives, domain: Domain, device: DeviceConfig, asked: Asked, untrusted_reason: str) -> None:
    """Everything as before the request; what its backend has said of itself meanwhile holds."""
    del h.leaving[domain.domid, device.kind, device.devid]
    path = devices.backend_path(asked.backend, domain.domid, device)
    if h.store.exists(path):  # else its driver domain has been destroyed, and is to have no directory any more
        _back_online(h.store, path, asked.state)
    reason = untrusted_reason[:BUSY_MAX]
    h.announce("detach refused", domain, f"{device.kind} {device.devid}: {reason}")
    h.collect_store_events()


def _back_online(store: Store, path: str, state: str | None) -> None:
    store.write(DOM0, 0, f"{path}/online", b"1")
    if parse_state(_read(store, f"{path}/state")) is not XenbusState.CLOSING:
        return
    if state is None:
        store.rm(DOM0, 0, f"{path}/state")
    else:
        store.write(DOM0, 0, f"{path}/state", state.encode())


def _take_away(h: Lives, domain: Domain, device: DeviceConfig) -> None:
    h.leaving.pop((domain.domid, device.kind, device.devid), None)
    domain.config = replace(domain.config, devices=[d for d in domain.config.devices if d is not device])
    spares.renew(h, domain)
    backend = h.by_name(device.backend)
    if backend is not None:
        remove_directories(h.store, domain, device, backend.domid)
    h.media.device_removed(domain.domid, device.kind, device.devid)
    h.announce("detached", domain, f"{device.kind} {device.devid}")
    h.collect_store_events()


def remove_directories(store: Store, domain: Domain, device: DeviceConfig, backend: DomId) -> None:
    """The frontend's first: a frontend whose backend's goes looks whether it is itself still there."""
    front, back = devices.frontend_path(domain.domid, device), devices.backend_path(backend, domain.domid, device)
    for path in (front, back):
        _remove(store, path)


def _remove(store: Store, path: str) -> None:
    if _read(store, path) is not None:
        store.rm(DOM0, 0, path)


def _front_state(h: Lives, dom: DomId, device: DeviceConfig) -> XenbusState:
    return parse_state(_read(h.store, f"{devices.frontend_path(dom, device)}/state"))


def _set_state(store: Store, path: str, state: XenbusState) -> None:
    store.write(DOM0, 0, f"{path}/state", str(int(state)).encode())


def _read(store: Store, path: str) -> str | None:
    try:
        return store.read(DOM0, 0, path).decode("utf-8", "replace")
    except StoreError:
        return None
