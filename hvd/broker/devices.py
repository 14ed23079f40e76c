"""The XenStore directories of a domain and its devices, as xl lays them out; devices' kinds mean nothing here."""

from __future__ import annotations

from collections.abc import Iterable

from hvd.broker.domain import Domain
from hvd.broker.store import Store
from hvd.transport.ids import DOM0, GRANT_REF_CONSOLE, DomId, Port
from hvd.transport.messages import DeviceConfig
from hvd.transport.xenbus_state import XenbusState

OWN = ("device", "data", "control")
"""Directories of a domain's home that are its own to write in."""
KEPT = ("backend", "console", "name", "domid", "memory", "incarnation")
"""What is not of its own writing."""


def frontend_path(dom: DomId, device: DeviceConfig) -> str:
    return f"/local/domain/{dom}/device/{device.kind}/{device.devid}"


def backend_path(backend: DomId, dom: DomId, device: DeviceConfig) -> str:
    return f"/local/domain/{backend}/backend/{device.kind}/{dom}/{device.devid}"


def write_domain(store: Store, domain: Domain) -> None:
    """The domain's home, afresh for a new incarnation: what an older one wrote is gone."""
    home = f"/local/domain/{domain.domid}"
    if store.exists(home):
        for child in store.directory(DOM0, 0, home):
            if child not in ("backend", "console"):  # these are not of its own writing
                store.rm(DOM0, 0, f"{home}/{child}")
    store.mkdir(DOM0, 0, home)
    store.set_perms(DOM0, 0, home, ["n0", f"r{domain.domid}"])
    facts = {
        "name": domain.name,
        "domid": str(domain.domid),
        "memory/static-max": str(domain.memory.static_max),
        "memory/target": str(domain.memory.target),
        "incarnation": str(domain.incarnation),
    }
    for key, value in facts.items():
        _write(store, f"{home}/{key}", value)
    for key in ("device", "data", "control", "backend", "console"):
        store.mkdir(DOM0, 0, f"{home}/{key}")
        store.set_perms(DOM0, 0, f"{home}/{key}", [f"n{domain.domid}"])
    # Whoever attaches to a console opens the path that stands there: the domain is not to choose it.
    store.set_perms(DOM0, 0, f"{home}/console", ["n0", f"r{domain.domid}"])
    _write(store, f"{home}/control/shutdown", "")


def renew_domain(store: Store, domain: Domain) -> None:
    """What `write_domain` makes of the home of a domain that had one, with no more writes than differ."""
    home, own = f"/local/domain/{domain.domid}", [f"n{domain.domid}"]
    shutdown = f"{home}/control/shutdown"
    for child in store.directory(DOM0, 0, home):
        if child in OWN:
            for grandchild in store.directory(DOM0, 0, path := f"{home}/{child}"):
                if f"{path}/{grandchild}" != shutdown or not _is_plain(store, shutdown, own):
                    store.rm(DOM0, 0, f"{path}/{grandchild}")
            if store.get_perms(DOM0, 0, path) != own:
                store.set_perms(DOM0, 0, path, own)
        elif child not in KEPT:
            store.rm(DOM0, 0, f"{home}/{child}")
    _write(store, f"{home}/incarnation", str(domain.incarnation))
    _write(store, shutdown, "")


def _is_plain(store: Store, path: str, perms: list[str]) -> bool:
    """Whether a node is what it would be if it had been made anew, but for its value."""
    return store.get_perms(DOM0, 0, path) == perms and not store.directory(DOM0, 0, path)


def write_console(store: Store, domain: Domain, port: Port) -> None:
    """The first console, whose ring is made before the domain is (console.h: grant 0)."""
    home = f"/local/domain/{domain.domid}/console"
    for key, value in (("ring-ref", str(GRANT_REF_CONSOLE)), ("port", str(port)), ("type", "hvd"), ("limit", "1048576"),
                       ("incarnation", str(domain.incarnation))):
        _write(store, f"{home}/{key}", value)


def write_device(store: Store, domain: Domain, device: DeviceConfig, backend: DomId) -> None:
    """Both directories of a device, each pointing at the other, both Initialising. A backend's keys outlive it."""
    dom = domain.domid
    front, back = frontend_path(dom, device), backend_path(backend, dom, device)
    front_perms, back_perms = [f"n{dom}", f"r{backend}"], [f"n{backend}", f"r{dom}"]
    if not store.exists(f"{back}/frontend"):
        _remove(store, back)  # what its driver domain said of one that was being removed has made the directory anew
        fields = {"frontend": front, "frontend-id": str(dom), "online": "1", "domain": domain.name}
        _make(store, back, fields | device.backend_keys, back_perms)
        _write(store, f"{back}/state", str(int(XenbusState.INITIALISING)))
    if store.exists(front):
        store.rm(DOM0, 0, front)
    fields = {"backend": back, "backend-id": str(backend), "handle": str(device.devid), **device.frontend_keys}
    _make(store, front, fields, front_perms)
    _write(store, f"{front}/state", str(int(XenbusState.INITIALISING)))


def drop_states(
    store: Store, domain: Domain, devices: list[tuple[DeviceConfig, DomId]], clients: list[tuple[Domain, DeviceConfig]]
) -> None:
    """A death as the other ends see it: the `state` nodes of the dead go, its frontends' and its backends' alike."""
    for device, _ in devices:
        _remove(store, f"{frontend_path(domain.domid, device)}/state")
    for client, device in clients:
        _remove(store, f"{backend_path(domain.domid, client.domid, device)}/state")


def offer_again(store: Store, domain: Domain, clients: list[tuple[Domain, DeviceConfig]]) -> None:
    """The spare that takes over offers what its predecessor did: as that stands in the store, under its own number.

    Its frontends need not wait for it to say so. What it finds that it must offer otherwise, it offers anew.
    """
    for client, device in clients:
        path = backend_path(domain.domid, client.domid, device)
        if store.exists(f"{path}/hvd-incarnation"):
            _write(store, f"{path}/hvd-incarnation", str(domain.incarnation))
            _write(store, f"{path}/state", str(int(XenbusState.INIT_WAIT)))


def served(store: Store, domain: Domain, clients: list[tuple[Domain, DeviceConfig]]) -> list[list[str]]:
    """[kind, domid, devid] of the devices whose directories it finds below its `backend`."""
    paths = [(client, device, backend_path(domain.domid, client.domid, device)) for client, device in clients]
    return [[d.kind, str(c.domid), str(d.devid)] for c, d, path in paths if store.exists(f"{path}/frontend")]


def drop_terminals(store: Store, domids: Iterable[DomId]) -> None:
    """Domain 0 died, and with it the ptys that consoles end in: their paths may soon be somebody else's."""
    for dom in domids:
        _remove(store, f"/local/domain/{dom}/console/tty")


def remove_domain(store: Store, domain: Domain, devices: list[tuple[DeviceConfig, DomId]]) -> None:
    """Take a domain's directories away, its devices' backend ones too."""
    for device, backend in devices:
        _remove(store, backend_path(backend, domain.domid, device).rpartition("/")[0])  # whatever is left there
    _remove(store, f"/local/domain/{domain.domid}")


def _make(store: Store, path: str, values: dict[str, str], perms: list[str]) -> None:
    store.mkdir(DOM0, 0, path)
    store.set_perms(DOM0, 0, path, perms)
    for key, value in values.items():
        _write(store, f"{path}/{key}", value)


def _write(store: Store, path: str, value: str) -> None:
    """A new node has the permissions of the directory it is made in."""
    store.write(DOM0, 0, path, value.encode())


def _remove(store: Store, path: str) -> None:
    if store.exists(path):
        store.rm(DOM0, 0, path)
