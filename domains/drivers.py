"""Which drivers there are: the shipped ones in one table, others by the entry-point group `hvd.drivers`."""

from __future__ import annotations

import importlib
from functools import cache

from hvd.domains.device import DeviceDriver
from hvd.transport.errors import LocalError

SHIPPED: dict[str, str] = {
    "vbd": "hvd.domains.block:DRIVER",
    "echo": "hvd.domains.echo:DRIVER",
    "vif": "hvd.domains.net:DRIVER",
}
GROUP = "hvd.drivers"


@cache
def find_driver(kind: str) -> DeviceDriver:
    """The driver of a device kind; LocalError naming those there are when it is unknown or does not load."""
    target = SHIPPED.get(kind) or _registered().get(kind)
    if target is None:
        raise LocalError(f"no driver for device kind {kind!r}; there are {', '.join([*SHIPPED, *_registered()])}")
    module, _, name = target.partition(":")
    try:
        driver = getattr(importlib.import_module(module), name, None)
    except Exception as error:  # somebody else's module: whatever it raises, it does not load
        raise LocalError(f"driver {target} of kind {kind!r} does not load: {type(error).__name__}: {error}") from error
    if not isinstance(driver, DeviceDriver) or driver.kind != kind:
        raise LocalError(f"driver entry point {target} of kind {kind!r} is no DeviceDriver of that kind")
    return driver


def _registered() -> dict[str, str]:
    import importlib.metadata  # not above: it takes longer to load than all of our drivers, and dom0 does without

    return {point.name: point.value for point in importlib.metadata.entry_points(group=GROUP)}
