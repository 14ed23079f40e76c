"""The block device: a guest's disk, served from an image by a driver domain."""

from hvd.domains.block.backend import BlockBackend
from hvd.domains.block.frontend import BlockFrontend
from hvd.domains.device import DeviceDriver
from hvd.transport.protocols import block


def exercise(disk: BlockFrontend) -> None:
    """What is written, directly and through indirect segments, is read back."""
    for sectors in (1, 8 * (block.DIRECT_SEGMENTS_MAX + 1)):
        data = bytes(range(256)) * 2 * sectors
        disk.write(0, data)
        disk.flush()
        if disk.read(0, sectors) != data:
            raise AssertionError(f"{sectors} sectors read back are not what was written")


DRIVER = DeviceDriver("vbd", BlockFrontend, BlockBackend, block.__doc__ or "", exercise, has_medium=True)
