"""The media that backends were handed: a driver domain opens no file itself, the hypervisor opens it for one device.

Which file, and whether it may be written, stands in the hypervisor's own tables, which the toolstack fills; what any
domain writes into XenStore does not matter.
"""

from __future__ import annotations

import errno

from hvd.broker.domain import Domain
from hvd.broker.errors import Refused
from hvd.broker.hardware import Hardware, NoHardware
from hvd.transport.ids import DomId
from hvd.transport.messages import DeviceConfig
from hvd.transport.records import dataclass, field


@dataclass(frozen=True, slots=True)
class Device:
    """Whose medium it is: the domain that hosts the backend, and the device of its client."""

    backend: DomId
    client: DomId
    kind: str
    devid: int


@dataclass(slots=True)
class Media:
    """Every open medium by its device, under the number it is held by."""

    opened: dict[Device, int] = field(default_factory=dict)
    next_number: int = 1
    hardware: Hardware = field(default_factory=NoHardware)

    def open(self, backend: Domain, client: Domain, kind: str, devid: int) -> int:
        """Open the medium afresh, in place of what was open; its number.

        EPERM unless the caller hosts that device's backend, ENOENT if it has no medium; OSError as the host refuses,
        EBUSY when another device writes it.
        """
        config = _device(client, kind, devid)
        if config is None or config.backend != backend.name:
            text = f"domain {backend.domid} hosts no backend of {kind} {devid} of domain {client.domid}"
            raise Refused(errno.EPERM, text)
        if "params" not in config.backend_keys:
            raise Refused(errno.ENOENT, f"{kind} {devid} of domain {client.domid} has no medium (no key params)")
        device, number = Device(backend.domid, client.domid, kind, devid), self.next_number
        self._close(device)
        self.hardware.open_medium(number, config.backend_keys["params"], readonly=is_readonly(config))
        self.next_number += 1
        self.opened[device] = number
        return number

    def domain_died(self, dom: DomId) -> None:
        """Its backends have ended: their media are closed."""
        for device in [device for device in self.opened if device.backend == dom]:
            self._close(device)

    def domain_removed(self, dom: DomId) -> None:
        """Its devices are no more."""
        for device in [device for device in self.opened if device.client == dom]:
            self._close(device)

    def device_removed(self, client: DomId, kind: str, devid: int) -> None:
        """One device of a domain is no more."""
        for device in [d for d in self.opened if (d.client, d.kind, d.devid) == (client, kind, devid)]:
            self._close(device)

    def _close(self, device: Device) -> None:
        number = self.opened.pop(device, None)
        if number is not None:
            self.hardware.release_medium(number)


def is_readonly(device: DeviceConfig) -> bool:
    """A medium without a mode is written, as xl's are."""
    return not device.backend_keys.get("mode", "w").startswith("w")


def _device(client: Domain, kind: str, devid: int) -> DeviceConfig | None:
    return next((d for d in client.config.devices if (d.kind, d.devid) == (kind, devid)), None)
