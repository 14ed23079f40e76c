"""The block device: a guest's disk, served from an image by a driver domain."""

from hvd.domains.block.backend import BlockBackend
from hvd.domains.block.frontend import BlockFrontend
from hvd.domains.device import DeviceDriver

DRIVER = DeviceDriver("vbd", BlockFrontend, BlockBackend)
