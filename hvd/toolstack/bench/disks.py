"""Disk images that the measurements use, and the domains on either side of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from hvd.transport.messages import DeviceConfig, DomainConfig, RestartPolicy

IMAGE_BYTES = 64 << 20


def make_image(path: Path) -> Path:
    """An empty image that is all there: its first writes allocate nothing."""
    with path.open("wb") as image:
        os.posix_fallocate(image.fileno(), 0, IMAGE_BYTES)
    return path


def disk_domain(name: str, cpus: Sequence[int] = ()) -> DomainConfig:
    """A driver domain that may be killed as often as anybody likes."""
    restart = RestartPolicy(limit=0)
    return DomainConfig(name, "hvd:driver_domain", cpus=list(cpus), driver_domain=True, restart=restart)


def disk(image: Path, backend: str) -> DeviceConfig:
    """xvda on this image."""
    keys = {"params": str(image), "type": "file", "mode": "w", "dev": "xvda", "device-type": "disk"}
    return DeviceConfig("vbd", 51712, backend, keys, {"virtual-device": "51712", "device-type": "disk"})
