"""Reads one disk of a domain, as xl's disk line or as a TOML table, into the vbd that the wire carries."""

import re
from pathlib import Path
from typing import NamedTuple

from hvd.toolstack.config.disk_line import disk_line
from hvd.toolstack.config.images import image_at
from hvd.toolstack.config.names import DOM0_NAME, full_name
from hvd.toolstack.config.problems import Place, Report, shown
from hvd.toolstack.config.table import Table, text_in
from hvd.toolstack.config.vdev import SYNTAX, device_number
from hvd.transport.limits import TEXT_BYTES_MAX
from hvd.transport.messages import DeviceConfig
from hvd.transport.protocols.block import DISCARD

TIMEOUT_MS = 30_000
TIMEOUT_MS_MAX = 3_600_000
WRITE_LOG = "hvd-write-log"
"""The backend's key that names the file in which it logs its writes (transport/write_log.py)."""
_MODES = {"r": "r", "ro": "r", "w": "w", "rw": "w"}
_SWALLOWED = re.compile(r",\s*(format|vdev|access|backend|timeout_ms|write_log)=")


class Disk(NamedTuple):
    """A disk as read, with what is compared between disks."""

    place: Place
    config: DeviceConfig
    image: tuple[int, int] | None
    """Device and inode of the image, if it is there."""

    @property
    def writable(self) -> bool:
        return self.config.backend_keys["mode"] == "w"


def read_disk(report: Report, place: Place, untrusted: object, directory: Path) -> Disk | None:
    """One disk whose image is found from `directory`; None if it cannot be told which one is meant.

    A CD-ROM is read-only, whatever else is said of it. A drive without a medium is warned of, and None.
    """
    if isinstance(untrusted, dict):
        table = Table(report, place, untrusted)
    elif isinstance(untrusted, str) and text_in(report, place, untrusted, TEXT_BYTES_MAX):
        table = Table(report, place, disk_line(report, place, untrusted))
    else:
        if not isinstance(untrusted, str):
            report.wrong(place, "a disk line as xl's, or a table", shown(untrusted))
        return None
    cdrom = table.choice("devtype", "disk", ("disk", "cdrom")) == "cdrom"
    target, vdev = table.text("target", "" if cdrom else None), table.text("vdev", None)
    table.choice("format", "raw", ("raw",))
    access = _MODES[table.choice("access", "rw", tuple(_MODES))]
    mode = "r" if cdrom else access
    backend = full_name(table.text("backend", DOM0_NAME))
    timeout_ms = str(table.whole("timeout_ms", TIMEOUT_MS, 1, TIMEOUT_MS_MAX))
    discard = table.flag("discard", default=True)
    log = table.text("write_log", "")
    table.finish()
    devid = device_number(vdev)
    if vdev and devid is None:
        report.wrong(table.at("vdev"), SYNTAX, shown(vdev))
    if cdrom and not target:
        report.warn(place, "is left out: a CD-ROM drive without a medium, and none can be put in later")
    if not target or devid is None:
        return None
    path = directory / target
    image = image_at(report, table.at("target"), path, writable=mode == "w", hint=_swallowed(untrusted, target))
    keys = {"device-type": "cdrom" if cdrom else "disk", "timeout-ms": timeout_ms}
    backend_keys = {
        "params": str(path),
        "type": "phy" if image and image.block_device else "file",
        "mode": mode,
        "dev": vdev,
        "bootable": "1",
        "removable": str(int(cdrom)),
        **({} if discard else {DISCARD: "0"}),
        **keys,
        **({WRITE_LOG: str(directory / log)} if log else {}),
    }
    config = DeviceConfig("vbd", devid, backend, backend_keys, {"virtual-device": str(devid), **keys})
    return Disk(place, config, image.identity if image else None)


def _swallowed(untrusted: object, target: str) -> str:
    if isinstance(untrusted, str) and _SWALLOWED.search(target):
        return "target= takes the rest of the line: put it last"
    return ""
